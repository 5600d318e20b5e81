r"""What fine-tuning adds to frozen features, on the demo's world: scores on combinations that are in no training.

    python benchmarks/finetuning.py --workdir runs/finetuning --only retrieval --out retrieval.json
    python benchmarks/finetuning.py --workdir runs/finetuning --only classification --out classification.json
    python benchmarks/finetuning.py --workdir runs/finetuning --only videoqa --out videoqa.json
    python benchmarks/finetuning.py --workdir runs/finetuning_mixed --only videoqa --questions color,shape,motion \
        --out videoqa_mixed.json

Clips of one coloured shape with one of ten motions; a third of the combinations of colour, shape and motion is held
out. Every arm is the command `harvest train --config finetune/...` with the demo's sizes, and then `harvest eval`:
captions found by text-to-video R@1 among 40 clips, the ten motions as classes, and a question about each clip. In the
frozen arms the towers stay as they are; for questions the decoder and the head train. About an hour on two cores with
the default number of steps; a finished arm is not run again.

The question is about the motion by default, which one frame does not answer; --questions asks others as well. No
question names two of colour, shape and motion: where one did ("what does the red heart do?"), no training clip had the
answers that the held-out clips need, the head learnt that from the words alone, and no answer about motion was right.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from harvest_jax.demo.clips import TEST_FRAMES, scenes
from harvest_jax.demo.world import FRAMES, render_clip
from harvest_jax.encode import write_video

ROOT = Path(__file__).resolve().parents[1]
HARVEST = (sys.executable, "-m", "harvest_jax")
IMAGE_MODEL = ROOT / "harvest_jax/demo/data/image_clip"
FROZEN_TOWERS = '(("video/.*",0.0),("text/.*",0.0),("logit_scale",0.0),(".*",1.0))'
SIZES = {
    "model.size": "demo",
    "model.dtype": "float32",
    "model.temporal_init": "ramp",
    "model.num_frames": 8,
    "model.keep_ratio": 0.1,
    "text.length": 24,
    "data.crop": "center",
    "data.min_scale": 1.0,
    "data.workers": 0,
    "train.batch_size": 64,
    "train.clip_norm": 1.0,
    "train.weight_decay": 0.1,
    "train.decay": "cosine",
    "train.log_every": 100,
    "train.save_every": 10**6,
}
# task -> how it is evaluated: config, split, fields, the score's path in the metrics
TASKS = {
    "retrieval": ("eval/retrieval", "retrieval", {}, ("t2v", "R@1")),
    "classification": ("eval/zero_shot", "choice", {"answer_from": "head"}, ("top1",)),
    "videoqa": ("eval/videoqa", "choice", {"answer_from": "head"}, ("acc_all",)),
}
FROZEN_TEXT = '(("text/.*",0.0),(".*",1.0))'
# (task, arm) -> fields of its training; None: the model itself
ARMS: dict[tuple[str, str], dict[str, object] | None] = {
    ("retrieval", "frozen"): None,
    ("retrieval", "fine-tuned, text frozen"): {"train.lr_multipliers": FROZEN_TEXT},
    ("classification", "frozen, linear"): {"train.lr_multipliers": FROZEN_TOWERS},
    ("classification", "frozen, attentive"): {"train.lr_multipliers": FROZEN_TOWERS, "objective.head": "attentive"},
    ("classification", "fine-tuned, linear"): {"train.lr_multipliers": FROZEN_TEXT},
    ("videoqa", "frozen towers"): {"train.lr_multipliers": FROZEN_TOWERS},
    ("videoqa", "fine-tuned"): {"train.lr_multipliers": FROZEN_TEXT},
}


QUESTIONS = {"color": "what color is the shape?", "shape": "what shape is it?", "motion": "what does the shape do?"}


def write_world(folder: Path, seed: int, kinds: list[str]) -> Path:
    """The clips as shards with captions, labels and the questions `kinds`; returns the shard folder."""
    shards = folder / "shards"
    if (shards / "dataset_info.json").is_file():
        return shards
    rows = []
    for split, of in scenes(seed).items():
        (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
        for number, scene in enumerate(of):
            video = f"videos/{split}/{number:05d}.mp4"
            write_video(folder / video, render_clip(scene, FRAMES if split == "train" else TEST_FRAMES))
            question, answer = [QUESTIONS[kind] for kind in kinds], [getattr(scene, kind) for kind in kinds]
            row = {"id": f"{split}-{number:05d}", "video": video, "caption": scene.caption, "split": split}
            row |= {"label": scene.motion, "question": question, "answer": answer, "type": kinds}
            rows.append(json.dumps(row))
    (folder / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _run("shards", "--manifest", folder / "manifest.jsonl", "--out", shards, "--short_side", 64)
    return shards


def measure(task: str, arm: str, folder: Path, shards: Path, args: argparse.Namespace) -> dict[str, float]:
    """Train one arm, if it has a training, and evaluate it: scores in percent, first that of the task."""
    fields = ARMS[task, arm]
    workdir = folder / f"{task} {arm}".replace(", ", "_").replace(" ", "_")
    workdir.mkdir(parents=True, exist_ok=True)
    model = args.model
    if fields is not None:
        model = workdir / "export"
        own = {"data.shards": shards, "model.init_from": args.model, "seed": args.seed, "train.steps": args.steps}
        own |= {"train.warmup_steps": args.steps // 10, "train.learning_rate": args.learning_rate}
        own |= {"model.decoder_layers": 2, "objective.dropout": 0.1} if task == "videoqa" else {}
        words = [f"--config.{name}={value}" for name, value in (SIZES | own | fields).items()]
        if not (model / "config.json").is_file():
            _run("train", "--config", f"finetune/{task}", "--workdir", workdir, *words)
    config, split, settings, place = TASKS[task]
    words = [f"--config.{name}={value}" for name, value in settings.items()]
    out = workdir / "result.json"
    _run("eval", "--config", config, "--model", model, "--out", out, f"--config.data.shards={shards}",
         f"--config.data.split={split}", *words)  # fmt: skip
    metrics = json.loads(out.read_text("utf-8"))["metrics"]
    score = metrics
    for name in place:
        score = score[name]
    by_type = metrics["per_type"] if task == "videoqa" else {}
    return {"/".join(place): float(score)} | {name: float(one[place[0]]) for name, one in by_type.items()}


def _run(*words: object) -> None:
    subprocess.run([*HARVEST, *map(str, words)], check=True, cwd=ROOT, stdout=sys.stderr)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fine-tuning against frozen features, on the demo's world.")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of clips and trainings")
    parser.add_argument("--model", type=Path, default=IMAGE_MODEL, help="model folder that every arm starts from")
    parser.add_argument("--steps", type=int, default=1200, help="of each training")
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a task: retrieval, classification or videoqa")
    parser.add_argument("--questions", type=lambda text: text.split(","), default=["motion"],
                        help="what is asked: motion, or several of color,shape,motion")  # fmt: skip
    parser.add_argument("--out", type=Path, help="JSON file of the scores")
    args = parser.parse_args()
    args.workdir, args.model = args.workdir.absolute(), args.model.absolute()
    shards = write_world(args.workdir, args.seed, args.questions)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for task, arm in ARMS:
        if args.only in ("", task):
            scores.setdefault(task, {})[arm] = measure(task, arm, args.workdir, shards, args)
            found = ", ".join(f"{name} {score:.1f} %" for name, score in scores[task][arm].items())
            print(f"{task:16} {arm:26} {found}", flush=True)
    if args.out:
        settings = {name: getattr(args, name) for name in ("steps", "learning_rate", "seed", "questions")}
        args.out.write_text(json.dumps({"model": args.model.name, **settings, "percent": scores}, indent=2) + "\n")


if __name__ == "__main__":
    main()
