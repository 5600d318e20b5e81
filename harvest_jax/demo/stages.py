"""The stages of `harvest demo`, in their order. Each continues what an interrupted demo left in the same folder."""

import contextlib
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.manifest.read import read_manifest
from data_pipeline.prepare.options import Options
from data_pipeline.prepare.split import Execution, local_engine, write_split
from data_pipeline.shards.shard_format import split_lengths
from harvest_jax import api
from harvest_jax.checkpoint.tree_digest import tree_digest
from harvest_jax.config import files as config_files
from harvest_jax.config.run import load
from harvest_jax.demo import charts, clips, image_clip, page_examples, scoring, step_cost
from harvest_jax.demo.report import write_report
from harvest_jax.demo.world import SIZE
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate.report import grids, result_files, show
from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.files import write_atomically
from harvest_jax.input.patches import num_kept
from harvest_jax.machine import available_cores
from harvest_jax.terminal import progress
from harvest_jax.train.training import train
from harvest_jax.version import __version__


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """Options of a demo.

    Attributes:
      steps: of training; None is what configs/demo.py says.
      seed: of the clips, of the patches kept and of the training.
      train_image_clip: whether the image model is trained, too, instead of using the packaged one.
      train_clips: training clips of each of the 80 training captions.
    """

    steps: int | None = None
    seed: int = 0
    train_image_clip: bool = False
    train_clips: int = clips.TRAIN_CLIPS

    def words(self, workdir: Path) -> list[str]:
        """The words after `harvest` of the command that makes this demo."""
        words = ["demo", "--workdir", str(workdir), "--seed", str(self.seed)]
        words += [] if self.steps is None else ["--steps", str(self.steps)]
        return words + (["--train_image_clip"] if self.train_image_clip else [])

    def command(self, workdir: Path) -> str:
        """The shell command that makes this demo."""
        return shlex.join(["harvest", *self.words(workdir)])


def run_demo(workdir: Path, options: DemoOptions) -> None:
    """Run all stages.

    Args:
      workdir: made if missing; what finished stages left there is used.
      options: of a demo that is continued: the same as before.

    Raises:
      ConfigError: the folder holds a demo of another seed.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    shards, results = workdir / "shards", workdir / "results"
    words = options.words(workdir)

    with _stage("clips", "write H.264 clips with captions", seconds):
        manifest_file = _write_clips(workdir / "clips", options)
    with _stage("shards", "decode them into shards", seconds):
        _write_shards(manifest_file, shards)

    image_folder = image_clip.SHIPPED
    if options.train_image_clip:
        image_folder = workdir / "image_clip"
        with _stage("image_clip", "train the image model on stills", seconds):
            if not (image_folder / "config.json").is_file():
                image_clip.train(image_folder, image_clip.STEPS, options.seed)

    with _stage("before", "evaluate the image model, frame by frame", seconds):
        image_model = api.load(image_folder)
        before = scoring.score(image_model, shards, results, "image_model", words)
        _print_headlines(before)

    overrides = [f"data.shards={shards}", f"model.init_from={image_folder}", f"seed={options.seed}"]
    if options.steps is not None:
        overrides += [f"train.steps={options.steps}", f"train.warmup_steps={min(100, options.steps // 4)}"]
    run = load(str(config_files.config_file("demo.py")), overrides)
    with _stage("train", "train a video model from it", seconds):
        export = train(run, workdir)

    with _stage("after", "evaluate the video model", seconds):
        model = api.load(export)
        after = scoring.score(model, shards, results, "video_model", words)
        _print_headlines(after)

    video = model.config.video
    total = video.num_frames * video.cells_per_frame
    kept = num_kept(video.num_frames, video.cells_per_frame, run.model.keep_ratio, run.model.drop_scope)
    ratios = {"all": 1.0, "kept": run.model.keep_ratio}
    with _stage("cost", "time a training step with all patches and with the kept ones", seconds):
        costs = dict(zip(ratios, step_cost.measure(run, list(ratios.values())), strict=True))
        for name, patches in (("all", total), ("kept", kept)):
            print(f"   {patches} patches a clip: {costs[name].milliseconds:.0f} ms a step", flush=True)

    captions = [row.captions[0] for row in read_manifest(manifest_file).rows if row.split == run.data.split]
    longer = dataclasses.replace(options, steps=2 * run.train.steps)
    report = {
        "before": scoring.figures(before),
        "after": scoring.figures(after),
        "results": {
            when: {task: str(result.path.relative_to(workdir)) for task, result in of.items()}
            for when, of in (("before", before), ("after", after))
        },
        "text_tower_digest": {
            "before": tree_digest(image_model.params["text"]),
            "after": tree_digest(model.params["text"]),
        },
        "tokens": {"all": total, "kept": kept},
        "step_ms": {name: cost.milliseconds for name, cost in costs.items()},
        "attention_ms": {name: cost.attention_ms for name, cost in costs.items()},
        "step_flops": {name: cost.flops for name, cost in costs.items()},
        "step_clips": step_cost.CLIPS,
        "first_guess_limit": charts.first_guess_limit(captions, run.train.batch_size),
        "seconds": seconds,
        "steps": run.train.steps,
        "seed": options.seed,
        "version": __version__,
        "command": options.command(workdir),
        "longer_command": longer.command(Path(f"{workdir}-long")),
        "results_command": shlex.join(["harvest", "results", str(results)]),
    }
    with _stage("report", "draw the page", seconds):
        curves = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        shown = page_examples.page_examples(image_model, model, shards, run)
        found = result_files.read_results([results])
        tables = grids.report(found.results, found.left_out)
        write_report(workdir / "report.html", report, tables, before, after, curves, *shown)
    write_atomically(workdir / "report.json", json.dumps(report, indent=2).encode() + b"\n")
    for text in tables.warnings:
        print(f"warning: {text}", file=sys.stderr)
    print("\n".join(["", *show.terminal(tables, show.terminal_width()), ""]))
    print(f"done in {sum(seconds.values()):.0f} s: open {workdir / 'report.html'} in a browser", flush=True)


def _print_headlines(results: Mapping[str, result_files.ResultFile]) -> None:
    for task, result in results.items():
        print(f"   {task}: {METRICS[task][0].name} {scoring.headline(result)}, in {result.path}", flush=True)


@contextlib.contextmanager
def _stage(name: str, what: str, seconds: dict[str, float]) -> Iterator[None]:
    print(f"== {name}: {what}", flush=True)
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
    print(f"   {name} took {seconds[name]:.1f} s", flush=True)


def _write_clips(folder: Path, options: DemoOptions) -> Path:
    """The manifest of the demo's clips, which are written unless all of them are there."""
    finished = folder / "seed"  # written last; one folder holds one demo, so all later stages are of this seed
    if finished.is_file():
        seed = finished.read_text()
        if seed != str(options.seed):
            raise ConfigError(
                f"{folder.parent} holds a demo of seed {seed}: give --seed {seed} to continue it, or another --workdir"
            )
        print("   they are there already", flush=True)
        return folder / "manifest.csv"
    manifest_file = clips.write_clips(folder, options.seed, options.train_clips)
    print(f"   {len(read_manifest(manifest_file).rows):,} clips", flush=True)
    write_atomically(finished, str(options.seed).encode())
    return manifest_file


def _write_shards(manifest_file: Path, shards: Path) -> None:
    """Write the splits that are not there yet; an unfinished one is continued."""
    manifest = read_manifest(manifest_file)
    there = split_lengths(shards) if (shards / "dataset_info.json").is_file() else {}
    for split in manifest.splits:
        if split in there:
            print(f"   {split}: {sum(there[split])} clips are there already", flush=True)
            continue
        rows = [row for row in manifest.rows if row.split == split]
        options = Options(DecodeSpec(num_frames=16, short_side=SIZE))
        workers = available_cores()
        execution = Execution(local_engine(workers), workers, show=progress)
        written = write_split(rows, manifest.root, shards, split, options, execution)
        print(f"   {split}: {written.n_written} clips, {written.bytes / 1e6:.1f} MB", flush=True)
