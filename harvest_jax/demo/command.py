"""`harvest demo`: the whole way on generated clips, and a page that shows it."""

import argparse
import contextlib
import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harvest_jax.errors import ConfigError
from harvest_jax.version import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest demo`."""
    parser.epilog = (
        "Writes WORKDIR/report.html (a page), WORKDIR/report.json (its figures), WORKDIR/clips (H.264 files\n"
        "and a manifest), WORKDIR/shards and WORKDIR/export (the trained model, for harvest search and harvest eval).\n"
        "About 6 minutes on 2 cores. A demo that was stopped goes on where its training stopped."
    )
    parser.add_argument("--workdir", required=True, type=Path, help="folder for everything the demo writes")
    parser.add_argument("--steps", type=int, help="training steps (default: configs/demo.py)")
    parser.add_argument("--seed", type=int, default=0, help="of the clips, the dropping and the training (%(default)s)")
    parser.add_argument(
        "--train_image_clip", action="store_true", help="train the image model too, instead of using the packaged one"
    )


def run(args: argparse.Namespace) -> int:
    """The stages in order; see the module's first line."""
    # jax is imported here so that `harvest demo --help` is instant
    from data_pipeline.decode.spec import DecodeSpec
    from data_pipeline.manifest.read import read_manifest
    from data_pipeline.prepare.split import write_split
    from data_pipeline.shards.shard_format import split_lengths
    from harvest_jax import api
    from harvest_jax.checkpoint.tree_digest import tree_digest
    from harvest_jax.config import files as config_files
    from harvest_jax.config.run import load
    from harvest_jax.demo import clips, cost, image_clip, scoring, show
    from harvest_jax.files import write_atomically
    from harvest_jax.input.patches import num_kept
    from harvest_jax.train.run import train

    if args.steps is not None and args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: at least 1")
    workdir: Path = args.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}

    with _stage("clips", "write H.264 clips with captions", seconds):
        manifest_file = workdir / "clips" / "manifest.csv"
        if not manifest_file.is_file() or _stale(workdir, args.seed):
            clips.write_clips(workdir / "clips", args.seed)
            (workdir / "clips" / "seed").write_text(str(args.seed))

    shards = workdir / "shards"
    with _stage("shards", "decode them into shards", seconds):
        manifest = read_manifest(manifest_file)
        there = split_lengths(shards) if (shards / "dataset_info.json").is_file() else {}
        for split in manifest.splits:
            if split not in there or (shards / "seed").read_text() != str(args.seed):
                rows = [row for row in manifest.rows if row.split == split]
                spec = DecodeSpec(num_frames=16, short_side=64)
                write_split(rows, manifest.root, shards, split, spec, os.cpu_count() or 1, overwrite=split in there)
        (shards / "seed").write_text(str(args.seed))

    image_folder = image_clip.SHIPPED
    if args.train_image_clip:
        image_folder = workdir / "image_clip"
        with _stage("image_clip", "train the image model on stills", seconds):
            if not (image_folder / "config.json").is_file():
                image_clip.train(image_folder, image_clip.STEPS, args.seed)

    with _stage("before", "score the image model, frame by frame", seconds):
        image_model = api.load(image_folder)
        before = scoring.score(image_model, shards)
        _say(before)

    overrides = [f"data.shards={shards}", f"model.init_from={image_folder}", f"seed={args.seed}"]
    if args.steps is not None:
        overrides += [f"train.steps={args.steps}", f"train.warmup_steps={min(100, args.steps // 4)}"]
    run_config = load(str(config_files.config_file("demo.py")), overrides)
    with _stage("train", "harvest a video model from it", seconds):
        export = train(run_config, workdir)

    with _stage("after", "score the video model", seconds):
        model = api.load(export)
        after = scoring.score(model, shards)
        _say(after)

    with _stage("cost", "time a step with all patches and with the kept ones", seconds):
        step_ms = {"all": cost.step_ms(run_config, 1.0), "kept": cost.step_ms(run_config, run_config.model.keep_ratio)}

    video = model.config.video
    total = video.num_frames * video.cells_per_frame
    kept = num_kept(video.num_frames, video.cells_per_frame, run_config.model.keep_ratio, run_config.model.drop_scope)
    report = {
        "before": before,
        "after": after,
        "text_tower_digest": {
            "before": tree_digest(image_model.params["text"]),
            "after": tree_digest(model.params["text"]),
        },
        "tokens": {"all": total, "kept": kept},
        "step_ms": step_ms,
        "step_clips": cost.CLIPS,
        "seconds": seconds,
        "steps": run_config.train.steps,
        "seed": args.seed,
        "version": __version__,
        "command": f"harvest demo --workdir {shlex.quote(str(workdir))} --seed {args.seed}",
        "longer_command": f"harvest demo --workdir {shlex.quote(f'{workdir}-long')} --seed {args.seed} --steps 2400",
    }
    with _stage("report", "draw the page", seconds):
        show.write_page(workdir, report, image_model, model, shards, run_config)
    write_atomically(workdir / "report.json", json.dumps(report, indent=2).encode() + b"\n")
    print(f"done in {sum(seconds.values()):.0f} s: look at {workdir / 'report.html'}", flush=True)
    return 0


@contextlib.contextmanager
def _stage(name: str, what: str, seconds: dict[str, float]) -> Iterator[None]:
    print(f"== {name}: {what}", flush=True)
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
    print(f"   {name} took {seconds[name]:.1f} s", flush=True)


def _stale(workdir: Path, seed: int) -> bool:
    """Whether the clips there are of another seed, or were not all written."""
    mark = workdir / "clips" / "seed"
    return not mark.is_file() or mark.read_text() != str(seed)


def _say(scores: dict[str, Any]) -> None:
    retrieval, choice = scores["retrieval"]["t2v"], scores["motion_choice"]
    print(
        f"   text-to-video R@1 {retrieval['R@1']:.1f} %; motion or its reverse {choice['accuracy']:.1f} % "
        f"(chance {choice['chance']:.0f} %, n {choice['n']})"
    )
