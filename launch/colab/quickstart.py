# %% [markdown]
# # Quickstart: a video model from an image model
#
# A model trained on single pictures and their captions knows what things look like, but not how they move: one picture
# does not show whether a thing moves to the left or to the right. Here such a model is trained further on videos, by
# the method of [Harvest Video Foundation Models via Efficient Post-Pretraining](https://arxiv.org/abs/2310.19554):
#
# - the text tower is frozen, the video tower is trained;
# - the training data are short captioned clips, and in each step the model sees only **a tenth of each clip's
#   patches**;
# - some words of the captions are hidden, and the model predicts them.
#
# All data is generated here. Run the cells from top to bottom. The same steps as one command, `harvest demo`, take
# about 4 minutes on two CPU cores; no GPU is needed. Times on Colab's GPUs and TPUs were not measured.

# %% parameters
import os
from pathlib import Path

STEPS = int(os.environ.get("HARVEST_STEPS", 1200))  # of training
CLIPS = int(os.environ.get("HARVEST_CLIPS", 16))  # training clips of each of the 80 training captions
SEED = 0
WORK = Path("harvest_quickstart")  # folder for everything that is written

# %% install
from install_cell import harvest  # `make notebooks` puts the cell itself here

# %% [markdown]
# ## 1. The clips
#
# One coloured thing moves, grows, turns or blinks. Every clip has a counterpart: the same frames played backwards,
# with the opposite caption. A model that looks at single frames cannot tell the two apart. Time runs from left to
# right.

# %% world
import numpy as np
from IPython.display import HTML, Image, Markdown, display
from PIL import Image as Picture

from harvest_jax.demo import clip_pictures, world


def show(caption, picture):
    """A picture with its caption above it."""
    display(Markdown(caption), Picture.fromarray(picture))


rng = np.random.default_rng(SEED)
scene = world.random_scene(rng, "red", "heart", "moves right")
for one in (scene, scene.twin):
    show(one.caption, clip_pictures.strip(world.render_clip(one, 8)))

# %% [markdown]
# Now the clips as files: a folder of H.264 videos and a *manifest*, a table with the caption of each file. A third of
# all combinations of colour, shape and motion never occurs in the training. These are kept for two evaluations:
# **retrieval** (find the clip that a caption describes) and **choice** (a motion, or its reverse?).
#
# Decoding videos is slow, so it is done once: `harvest shards` stores the frames as JPEGs in a few large files, of
# which training can read any clip directly. `harvest inspect` describes them and draws a few.

# %% shards
from harvest_jax.demo import clips

MANIFEST = clips.write_clips(WORK / "clips", SEED, CLIPS)
SHARDS = WORK / "shards"
harvest(f"shards --manifest {MANIFEST} --out {SHARDS} --short_side 64 --overwrite")
harvest(f"inspect {SHARDS}")
display(Image(filename=str(SHARDS / "contact_sheet.png"), width=700))

# %% [markdown]
# ## 2. Dropping nine tenths of the patches
#
# The model reads a clip as patches of 8 x 8 pixels: 8 frames of 64 patches. In training only the framed patches are
# given to the model, and nothing is computed for the dark ones. Other patches are drawn each time. Neighbouring frames
# are so alike that little is lost.

# %% dropping
from harvest_jax.input.patches import keep_positions

frames = world.render_clip(scene, 8)
for draw in ("one draw", "the next"):
    kept = keep_positions(rng, num_frames=8, cells_per_frame=64, keep_ratio=0.1)
    shown = clip_pictures.highlight_kept(frames, kept, patch=8)
    show(f"{draw}: {len(kept)} of {8 * 64} patches", clip_pictures.strip(shown, gap=4))

# %% [markdown]
# ## 3. The image model, and what it cannot do
#
# The method starts from a model like CLIP. Here it is a very small one that comes with the package. It was trained on
# single pictures like these, in which marks, as in a comic, show the motion. The clips have no marks.

# %% image-model
import harvest_jax
from harvest_jax.demo.image_clip import SHIPPED as IMAGE_MODEL

image_model = harvest_jax.load(IMAGE_MODEL)
scenes = [world.random_scene(rng, "blue", "triangle", motion) for motion in world.MOTIONS]
stills = np.stack([world.render_still(one, 0.5, posed=True) for one in scenes])
show(" · ".join(world.MOTIONS), clip_pictures.strip(stills, most=len(stills)))

there, back = image_model.encode_text([scene.caption, scene.twin.caption])
print(f"cosine of {scene.caption!r} and {scene.twin.caption!r}: {there @ back:.2f}")
there, back = image_model.encode_video(np.stack([frames, frames[::-1]]))
print(f"cosine of the clip and the clip played backwards: {there @ back:.2f}")

# %% [markdown]
# Its text tower tells the two captions apart. Its image tower embeds the frames one by one, and their average is the
# same for both clips. So between a motion and its reverse this model can only guess, and about half of its answers are
# right:

# %% before
RESULTS = WORK / f"results_steps{STEPS}_clips{CLIPS}_seed{SEED}"


def evaluate(model, name):
    """The two evaluations, with their results in files."""
    for task, split in (("retrieval", "retrieval"), ("multiple_choice", "choice")):
        harvest(
            f"eval --config eval/{task} --model {model} --out {RESULTS}/{name}_{split}.json "
            f"--config.data.shards={SHARDS} --config.data.split={split}"
        )


evaluate(IMAGE_MODEL, "image_model")

# %% [markdown]
# ## 4. The training
#
# The model starts with the same weights, and with a position in time for every patch; the text tower is frozen. There
# are two losses: each clip must find its caption among the 64 of the batch (contrastive), and a small decoder must
# predict hidden words from the kept patches (masked words).
#
# If you interrupt the cell and run it again, it continues.

# %% training
RUN = WORK / f"run_steps{STEPS}_clips{CLIPS}_seed{SEED}"
harvest(
    f"train --config demo --workdir {RUN} --config.data.shards={SHARDS} --config.model.init_from={IMAGE_MODEL} "
    f"--config.seed={SEED} --config.train.steps={STEPS} --config.train.warmup_steps={min(100, STEPS // 4)}"
)

# %% curves
import csv
import json

from harvest_jax.demo import charts

measured = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
captions = [row["caption"] for row in csv.DictReader(MANIFEST.open()) if row["split"] == "train"]
limit = charts.first_guess_limit(captions, batch_size=64)
figures = [
    f'<figure style="margin:0"><b>{chart.title}</b><br><img src="{charts.draw(chart, measured, limit)}" width="320">'
    f'<figcaption style="width:300px">{chart.how_to_read}</figcaption></figure>'
    for chart in charts.CHARTS
]
style = "display:flex;flex-wrap:wrap;gap:16px;background:white;color:black"
display(HTML(f'<div style="{style}">{"".join(figures)}</div>'))
print(f"Captions repeat within a batch: even a perfect model is right at first in at most {limit:.0%} (dotted line).")

# %% [markdown]
# ## 5. What the video model can do
#
# The same evaluations, on combinations that were in no training, with the same frozen text tower. In the tables, t2v
# is a search for the clip of a caption, v2t for the caption of a clip; brackets are 95 % intervals over the clips.

# %% after
evaluate(RUN / "export", "video_model")
harvest(f"results {RESULTS}")

# %% [markdown]
# A pair of motions that stays near 50 % was not learned: set `STEPS` to 2400 or `SEED` to another number and try
# again.
#
# ## 6. Attention over time
#
# The embedding of a clip is computed from one token, the class token, which collects from the patches what it needs.
# Its attention in the last layer, in each frame: bright is much. The image model sees each frame by itself, so it
# spends the same amount on each; the video model may look at one frame more than at another. (Attention says what is
# mixed into the embedding, not why a model decides as it does.)

# %% attention
model = harvest_jax.load(RUN / "export")


def lit(frames, weights):
    """The frames, each patch as bright as the root of its weight; the clip's largest weight is full brightness."""
    side = frames.shape[1] // weights.shape[1]
    brightness = np.sqrt(weights / weights.max()).repeat(side, axis=1).repeat(side, axis=2)[..., None]
    return (frames * (0.2 + 0.8 * brightness)).astype(np.uint8)


for one in (scene, world.random_scene(rng, "green", "bar", "turns clockwise")):
    clip = world.render_clip(one, 8)
    show(one.caption, clip_pictures.strip(clip))
    for name, looking in (("image model", image_model), ("video model", model)):
        weights = looking.attention(clip)[0, -1]  # [frame, row, column] of the last layer
        of_frames = weights.sum(axis=(1, 2)) / weights.sum()
        show(
            f"{name}, share of each frame: {', '.join(f'{share:.0%}' for share in of_frames)}",
            clip_pictures.strip(lit(clip, weights)),
        )

# %% [markdown]
# ## 7. Search with words
#
# `encode_text` and `encode_video` return vectors of length 1. The product of two is their cosine: how well words and
# clip agree. `encode_video` takes paths of video files, too. Try other words: a colour, a shape and a motion from
# above.

# %% search
words = "a red triangle moves left"

gallery = [row for row in csv.DictReader(MANIFEST.open()) if row["split"] == "retrieval"]
videos = model.prepare([MANIFEST.parent / row["video"] for row in gallery])
for name, searcher in (("before", image_model), ("after", model)):
    fit = searcher.encode_video(videos) @ searcher.encode_text(words)[0]
    display(Markdown(f"**{name}**: {words!r}"))
    for number in np.argsort(-fit)[:3]:
        show(f"{gallery[number]['caption']} ({fit[number]:.2f})", clip_pictures.strip(videos[number]))

# %% [markdown]
# ## Next steps
#
# The other notebooks of this folder: `search.ipynb` (your own videos), `shards.ipynb` (training data from your own
# videos), `clip.ipynb` (start from a CLIP that you have), `finetune.ipynb` (labels and questions), `sweep.ipynb` (many
# trainings, one table).
#
# **Experiments.** Add `--config.model.keep_ratio=0.2` or `--config.model.drop_scope=tube` (the same positions in all
# frames) to the training in section 4, give `RUN` and `RESULTS` other names, and run the cells from section 4 on
# again. What do more patches improve, and what do they cost?
