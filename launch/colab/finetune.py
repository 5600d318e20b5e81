# %% [markdown]
# # Fine-tune and evaluate
#
# A model folder is fine-tuned to classify videos, evaluated, and compared with two ways that train less. Retrieval and
# question answering go the same way with other configs (at the end). By default the videos are generated here, with
# their motion as label, and the start is the packaged image model; **for your own task set `MANIFEST` and `MODEL`**.
#
# Most of the time are 600 training steps of the size of the demo's, of which 1,200 take about 3 minutes on two CPU
# cores (`configs/demo.py`); with 4 steps the notebook took 61 s of processor time on an Intel Xeon. Times on Colab's
# GPUs and TPUs were not measured.

# %% parameters
import os
from pathlib import Path

MANIFEST = os.environ.get("HARVEST_MANIFEST", "")  # table with video, caption, label and split (train, test)
MODEL = os.environ.get("HARVEST_MODEL", "")  # model folder to start from; empty: the packaged image model
STEPS = int(os.environ.get("HARVEST_STEPS", 600))  # of training
CLIPS = int(os.environ.get("HARVEST_CLIPS", 8))  # generated training clips of each of 80 combinations
WORK = Path("harvest_finetune")  # folder for everything that is written

# %% install
from install_cell import harvest  # `make notebooks` puts the cell itself here

# %% [markdown]
# ## 1. Videos with labels
#
# One coloured shape with one of ten motions, which is the label. A single frame does not show it. The test has
# combinations of colour, shape and motion that are in no training.

# %% data
import csv

from harvest_jax.demo import clips, image_clip, world
from harvest_jax.encode import write_video

if not MANIFEST:
    rows = []
    for split, scenes in clips.scenes(seed=0, train_clips=CLIPS).items():
        name = {"train": "train", "choice": "test"}.get(split)
        for number, scene in enumerate(scenes if name else []):
            video = WORK / f"videos/{name}{number:05d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            write_video(video, world.render_clip(scene, 16 if name == "train" else 8))
            rows.append({"video": video.name, "caption": scene.caption, "label": scene.motion, "split": name})
    MANIFEST = WORK / "videos/labels.csv"
    with MANIFEST.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
MODEL = MODEL or image_clip.SHIPPED
SHARDS = WORK / "shards"
harvest(f"shards --manifest '{MANIFEST}' --out {SHARDS} --short_side 64 --overwrite")

# %% [markdown]
# ## 2. Without any training
#
# **Zero-shot**: each class name is put into a sentence, and the sentence that fits a clip best is the answer. Chance
# is 10 %. The image model averages single frames, which do not show the motion.

# %% zero-shot
RESULTS = WORK / "results"
DATA = f"--config.data.shards={SHARDS} --config.data.split=test"
prompts = [f"a {color} {shape} {{}}" for color in world.COLORS for shape in world.SHAPES]
PROMPTS = f'--config.prompts="{prompts}"'
harvest(f"eval --config eval/zero_shot --model '{MODEL}' --out {RESULTS}/zero_shot.json {DATA} {PROMPTS}")

# %% [markdown]
# ## 3. A linear probe
#
# A linear classifier on the frozen model's embeddings: what the model knows already, if one asks in the best way.

# %% probe
TRAIN = f"--config.train.shards={SHARDS}"
harvest(f"eval --config eval/linear_probe --model '{MODEL}' --out {RESULTS}/probe.json {DATA} {TRAIN}")

# %% [markdown]
# ## 4. Fine-tuning
#
# `finetune/classification` trains the video tower with a classifier on it. The fields below are those of this small
# model and of one CPU; for a ViT-B/16 the config's own values are a start (`configs/finetune/classification.py`). Nine
# of ten patches are dropped here, too.

# %% fine-tuning
RUN = WORK / f"run_steps{STEPS}_clips{CLIPS}"
small = {
    "model.size": "demo",
    "model.dtype": "float32",
    "model.num_frames": 8,
    "model.temporal_init": "ramp",
    "model.keep_ratio": 0.1,
    "text.length": 16,
    "data.crop": "center",
    "data.min_scale": 1.0,
    "data.workers": 0,
    "train.batch_size": 64,
    "train.learning_rate": 2e-3,
    "train.weight_decay": 0.1,
    "train.clip_norm": 1.0,
    "train.warmup_steps": min(100, STEPS // 4),
    "train.steps": STEPS,
    "train.log_every": 50,
    "train.lr_multipliers": '(("text/.*",0.0),(".*",1.0))',
}
fields = " ".join(f"--config.{name}='{value}'" for name, value in small.items())
harvest(
    f"train --config finetune/classification --workdir {RUN} --config.data.shards={SHARDS} "
    f"--config.model.init_from='{MODEL}' {fields}"
)

# %% [markdown]
# ## 5. The evaluation
#
# `answer_from=head` takes the scores from the classifier. A result is a JSON file that says how it was made; results
# with another `protocol_hash` cannot be compared and are never in one column.

# %% evaluation
harvest(
    f"eval --config eval/zero_shot --model {RUN}/export --out {RESULTS}/fine_tuned.json {DATA} "
    "--config.answer_from=head"
)
harvest(f"results {RESULTS}")

# %% [markdown]
# `--compare` asks the same clips of two results and gives the interval of the difference, which is narrower than the
# two intervals suggest: most clips are easy or hard for both.

# %% compare
harvest(f"results {RESULTS}/zero_shot.json {RESULTS}/fine_tuned.json --compare")

# %% [markdown]
# ## 6. Which classes are confused
#
# From Python: `classes` are the names, `class_logits` the scores of each.

# %% confusion
import matplotlib.pyplot as plt
import numpy as np

import harvest_jax

model = harvest_jax.load(RUN / "export")
with Path(MANIFEST).open(newline="") as file:
    tests = [row for row in csv.DictReader(file) if row["split"] == "test"]
found = model.class_logits([Path(MANIFEST).parent / row["video"] for row in tests]).argmax(axis=1)
counts = np.zeros((len(model.classes), len(model.classes)), int)
for row, answer in zip(tests, found, strict=True):
    counts[model.classes.index(row["label"]), answer] += 1

figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
axes.imshow(counts, cmap="Greens")
axes.set_xticks(range(len(model.classes)), model.classes, rotation=45, ha="right")
axes.set_yticks(range(len(model.classes)), model.classes)
axes.set_xlabel("answer of the model")
axes.set_ylabel("label")
for (row, column), count in np.ndenumerate(counts):
    if count:
        colour = "white" if count > counts.max() / 2 else "black"
        axes.text(column, row, count, ha="center", va="center", color=colour)
axes.set_title(f"{len(tests)} test clips")
plt.show()

# %% [markdown]
# ## Next steps
#
# - **Questions**: columns `question` and `answer`, `--config finetune/videoqa`, then `harvest eval --config
#   eval/videoqa --config.answer_from=head`. It needs a model with a decoder: one that was trained by this program on
#   videos with captions.
# - **Retrieval**: `--config finetune/retrieval`, then `harvest eval --config eval/retrieval`.
# - **Scores while it trains**: `--config.eval.every=100` and `--config.eval.config="eval/zero_shot ..."`;
#   `--config.eval.export=best` keeps the best checkpoint.
# - **Published benchmarks** by name: `harvest eval --config eval/msrvtt_1ka`, `eval/ucf101_1`, and more.
