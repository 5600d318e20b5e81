# %% [markdown]
# # Shards from your own data
#
# Training reads *shards*: decoded clips with their captions in a few large files. This notebook makes them from a
# folder of videos and a table of captions, estimates the cost first, and looks at what could not be used. By default
# the videos are generated here, and some are spoiled on purpose; **for your own data set `MANIFEST`**.
#
# With the generated videos it takes about half a minute of processor time on an Intel Xeon (15 s were measured with
# half of the videos and a shorter measurement of the loader). Nothing here uses a GPU or TPU.

# %% parameters
import os
from pathlib import Path

MANIFEST = os.environ.get("HARVEST_MANIFEST", "")  # your table of videos and captions; empty: generated
CLIPS = int(os.environ.get("HARVEST_CLIPS", 2))  # generated clips of each of 80 captions
SECONDS = float(os.environ.get("HARVEST_SECONDS", 5))  # of measuring the loader
WORK = Path("harvest_shards")  # folder for everything that is written

# %% install
from install_cell import harvest  # `make notebooks` puts the cell itself here

# %% [markdown]
# ## 1. A manifest
#
# A CSV, TSV, JSON lines or Parquet file with the columns `video` and `caption`. Optional: `id`, `split`, `start` and
# `end` (a part of a long video, in seconds); other columns are kept for evaluations. The lists of WebVid, InternVid
# and Panda-70M, WebDataset tars, and folders of videos with caption files beside them need no manifest.
#
# Here: MP4 files with a caption each, and at the end of the table seven rows of the kind that real collections have: a
# part of a video, and six that cannot be used.

# %% manifest
import csv

from harvest_jax.demo.clips import scenes
from harvest_jax.demo.world import render_clip
from harvest_jax.encode import write_video

if not MANIFEST:
    folder = WORK / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, scene in enumerate(scenes(seed=2, train_clips=CLIPS)["train"]):
        rows.append({"video": f"{number:05d}.mp4", "caption": scene.caption, "start": "", "end": ""})
        write_video(folder / rows[-1]["video"], render_clip(scene))
    first = rows[0]["video"]
    (folder / "page.mp4").write_text("<html>Sign in to see this video</html>")
    (folder / "cut.mp4").write_bytes((folder / first).read_bytes()[:2000])
    (folder / "empty.mp4").write_bytes(b"")
    rows += [
        {"video": first, "caption": "the first second of a clip", "start": "0", "end": "1"},
        {"video": first, "caption": "a part after the end of the video", "start": "50", "end": "60"},
        {"video": first, "caption": "", "start": "", "end": ""},
        {"video": "gone.mp4", "caption": "a file that is not there", "start": "", "end": ""},
        {"video": "page.mp4", "caption": "a page that a downloader saved as a video", "start": "", "end": ""},
        {"video": "cut.mp4", "caption": "a download that broke off", "start": "", "end": ""},
        {"video": "empty.mp4", "caption": "an empty file", "start": "", "end": ""},
    ]
    MANIFEST = folder / "my_clips.csv"
    with MANIFEST.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

print("".join(Path(MANIFEST).read_text().splitlines(keepends=True)[:4]))

# %% [markdown]
# ## 2. What will it cost?
#
# `--dry_run` decodes a sample of the clips and estimates time and size. It writes nothing.

# %% estimate
SHARDS = WORK / "shards"
OPTIONS = "--frames 16 --short_side 64 --max_rejects 0.2"  # real videos: 16 frames, 256 pixels (the default)
harvest(f"shards --manifest '{MANIFEST}' --out {SHARDS} {OPTIONS} --dry_run")

# %% [markdown]
# ## 3. The shards
#
# Every video is decoded once. A clip that cannot be used does not stop the work; if more than `--max_rejects` of the
# rows (5 % by default) failed, the exit code is 3, so that a script notices. A run that was stopped continues when the
# command is given again.

# %% shards
harvest(f"shards --manifest '{MANIFEST}' --out {SHARDS} {OPTIONS} --overwrite")

# %% [markdown]
# ## 4. What was left out, and why
#
# `rejects-SPLIT.tsv` has a line for each row or video that was not used.

# %% rejects
from IPython.display import Markdown, display

lines = [line.split("\t") for line in (SHARDS / "rejects-train.tsv").read_text().splitlines()]
shown = ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]
display(Markdown("\n".join([shown[0], "|---" * len(lines[0]) + "|", *shown[1:]])))

# %% [markdown]
# ## 5. What is in them
#
# `harvest inspect` counts, and draws some clips into one picture; `--html FILE` writes a page with more clips and all
# of their captions. Always look at it before a long training: captions that belong to other videos show here.

# %% inspect
from IPython.display import Image

harvest(f"inspect {SHARDS} --html {WORK}/page.html")
display(Image(filename=str(SHARDS / "contact_sheet.png"), width=700))

# %% [markdown]
# The shards are a TFDS dataset of ArrayRecord files:

# %% files
for path in sorted(SHARDS.iterdir()):
    print(f"{path.stat().st_size:10,}  {path.name}")

# %% [markdown]
# ## 6. Is the loader fast enough?
#
# `harvest bench loader` measures how many clips a second reach the device, with 90 % of the patches dropped, and what
# limits it. A training needs at least as many as its step takes.

# %% loader
harvest(f"bench loader --shards {SHARDS} --config demo --batch 16 --seconds {SECONDS}")

# %% [markdown]
# ## Next steps
#
# - Train on them: `harvest train --config demo --config.data.shards=...` (`quickstart.ipynb`), or with a real CLIP
#   (`clip.ipynb`).
# - Ten million clips: `harvest shards --runner` works on Apache Beam's runners, with the same bytes.
