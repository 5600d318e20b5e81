# %% [markdown]
# # Search your own videos
#
# Find videos by words, with `harvest search` or from Python. By default the videos are generated here and the model is
# the small image model of the package, which knows 4 colours, 3 shapes and nothing of the real world. **For your own
# search give two paths below**: a folder of videos, and a model (a CLIP that you imported, see `clip.ipynb`, or the
# folder of a training).
#
# With the generated videos it takes less than half a minute of processor time on an Intel Xeon (27 s were measured,
# with more videos). Times on Colab's GPUs and TPUs were not measured.

# %% parameters
import os
from pathlib import Path

VIDEOS = os.environ.get("HARVEST_VIDEOS", "")  # folder of your videos; empty: generated ones
MODEL = os.environ.get("HARVEST_MODEL", "")  # model folder; empty: the packaged image model
WORDS = "a green heart"
WORK = Path("harvest_search")  # folder for everything that is written

# %% install
from install_cell import harvest  # `make notebooks` puts the cell itself here

# %% [markdown]
# ## 1. The videos
#
# Any folder of video files, with folders below it. Here: 40 short MP4 files whose names say nothing.

# %% videos
from harvest_jax.demo.clips import scenes
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.demo.world import render_clip
from harvest_jax.encode import write_video

GENERATED = not VIDEOS
if GENERATED:
    VIDEOS = WORK / "videos"
    VIDEOS.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes(seed=1)["retrieval"]):
        write_video(VIDEOS / f"{number:05d}.mp4", render_clip(scene))
MODEL = MODEL or SHIPPED
files = sorted(path for path in Path(VIDEOS).rglob("*") if path.suffix.lower() in (".mp4", ".webm", ".mkv", ".mov"))
print(f"{len(files)} files, such as {files[0]}")

# %% [markdown]
# ## 2. Search by a command
#
# The first search embeds every video. Without `--index` the index is kept in your cache folder. A line of the result is
# the rank, the cosine, the file, the seconds of the moment, and how far the cosine is above the usual ones.

# %% first-search
INDEX = WORK / "index"
SEARCH = f"search --model '{MODEL}' --videos '{VIDEOS}' --index {INDEX} --top 3 '{WORDS}'"
harvest(SEARCH)

# %% [markdown]
# Later searches embed only what is new or changed. A file that cannot be read is named once, with the reason, and does
# not stop the search.

# %% changed
import shutil

if GENERATED:
    shutil.copy(files[0], VIDEOS / "new.mp4")
    (VIDEOS / "broken.mp4").write_bytes(b"this is no video")
    harvest(SEARCH)
    for name in ("new.mp4", "broken.mp4"):
        (VIDEOS / name).unlink()

# %% [markdown]
# ## 3. Search from Python
#
# Videos and words become vectors of length 1; the product of two is their cosine. The vectors can be kept in a file or
# in a vector database: one of 512 numbers for each video with a ViT-B/16.

# %% embed
import numpy as np

import harvest_jax

model = harvest_jax.load(MODEL)
vectors = model.encode_video(files)
print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers, {vectors.nbytes / 1e3:.0f} kB")

# %% look
from IPython.display import Markdown, display
from PIL import Image

from harvest_jax.demo import clip_pictures


def show(order, scores):
    """Videos in this order, each with its score: the frames that the model sees."""
    frames = model.prepare([files[number] for number in order])
    for number, clip in zip(order, frames, strict=True):
        print(f"{scores[number]:.3f}  {files[number]}")
        display(Image.fromarray(clip_pictures.strip(clip)))


def find(words, top=3):
    """Show the videos that fit best."""
    scores = vectors @ model.encode_text(words)[0]
    display(Markdown(f"**{words}**"))
    show(np.argsort(-scores)[:top], scores)


find(WORDS)
find("a blue triangle")

# %% [markdown]
# ## 4. What an image model cannot find
#
# It embeds single frames and averages them, so it cannot tell a motion from the same motion played backwards: the two
# captions below differ in the motion alone. A model trained on videos can (`quickstart.ipynb`).

# %% motion
find("a green heart moves left", top=2)
find("a green heart moves right", top=2)

# %% [markdown]
# ## 5. Which video is this clip from?
#
# Videos can be compared with each other, too: here the first file with all others. Near copies have cosines near 1.
# (Of the generated videos the second is the first one played backwards, which for an image model is the same.)

# %% similar
alike = vectors @ vectors[0]
show(np.argsort(-alike)[:3], alike)

# %% [markdown]
# ## Next steps
#
# - Faster, less exact: `model.keeping(0.25)` looks at a quarter of the patches.
# - A model that understands more than colours and shapes: `clip.ipynb`, then `shards.ipynb` and `harvest train
#   --config harvest_b16`.
# - `harvest search --json` prints one JSON object, for other programs.
