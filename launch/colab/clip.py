# %% [markdown]
# # Bring a CLIP
#
# The method starts from an image-text model. This notebook reads one from the files of another program, checks it,
# trains from it, mixes the result with its start, and writes it back for the other program. By default the files are
# made here, without any download: the small model of the package in the formats of Hugging Face transformers and of
# OpenCLIP, and random weights. **For your own CLIP set `CHECKPOINT`**: OpenAI's `ViT-B-16.pt`, a folder of OpenCLIP or
# Hugging Face, and others.
#
# With the small model it takes about two minutes on a CPU (70 s of processor time were measured on an Intel Xeon with
# 4 steps of training). Times on Colab's GPUs and TPUs were not measured, and no published checkpoint has been opened
# by the makers of this program: formats and names are those of the public code.

# %% parameters
import os
from pathlib import Path

CHECKPOINT = os.environ.get("HARVEST_CHECKPOINT", "")  # file or folder of a CLIP; empty: made here
STEPS = int(os.environ.get("HARVEST_STEPS", 100))  # of training
CLIPS = int(os.environ.get("HARVEST_CLIPS", 4))  # generated training clips of each of 80 captions
WORK = Path("harvest_clip")  # folder for everything that is written

# %% install
from install_cell import harvest  # `make notebooks` puts the cell itself here

# %% [markdown]
# ## 1. Files of a CLIP
#
# What you have on disk. Here: the same model as a Hugging Face folder and as an OpenCLIP folder.

# %% files
from harvest_jax.demo.image_clip import SHIPPED

SMALL = not CHECKPOINT  # the model made here
if SMALL:
    for form in ("hf", "open_clip"):
        if not (WORK / form).exists():
            harvest(f"weights export {SHIPPED} --format {form} --out {WORK / form}")
    for path in sorted([*(WORK / "hf").iterdir(), *(WORK / "open_clip").iterdir()]):
        print(f"{path.stat().st_size:10,}  {path.relative_to(WORK)}")
    CHECKPOINT = WORK / "hf"

# %% [markdown]
# ## 2. What is it?
#
# `harvest inspect` reads the headers alone. Nothing in a checkpoint is executed.

# %% inspect
harvest(f"inspect '{CHECKPOINT}'")

# %% [markdown]
# ## 3. Import
#
# The result is a model folder: a description and one file of tensors. Every tensor must have its place; one that is
# not expected, missing, of another shape or not finite is an error that names both sides.

# %% import
CLIP = WORK / "imported"
if not CLIP.exists():
    harvest(f"weights import '{CHECKPOINT}' --out {CLIP}")
harvest(f"inspect {CLIP}")

# %% [markdown]
# Both folders hold the same model, so their embeddings must be equal. The packaged model's are equal but for rounding:
# its one row of the table of frames was added to its table of patch positions, because a CLIP has no table of frames.

# %% equal
import numpy as np

import harvest_jax

if SMALL:
    if not (WORK / "imported_open_clip").exists():
        harvest(f"weights import {WORK / 'open_clip'} --out {WORK / 'imported_open_clip'}")
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 64, 64, 3), dtype=np.uint8)

    def embeddings(folder):
        """Of two clips of noise and of a text."""
        one = harvest_jax.load(folder)
        return np.concatenate([one.encode_video(noise), one.encode_text("a red heart")])

    imported = embeddings(CLIP)
    same = np.array_equal(imported, embeddings(WORK / "imported_open_clip"))
    print("the two imports have", "the same embeddings, bit for bit" if same else "DIFFERENT EMBEDDINGS")
    print(f"largest difference from the packaged model: {np.abs(imported - embeddings(SHIPPED)).max():.0e}")

# %% [markdown]
# ## 4. What a file does not say
#
# A bare file of tensors has no config. Its sizes are read from the shapes, but whether the model has GELU or
# quick-GELU is in no tensor, and the wrong one gives a model that seems to work, badly. So it must be said. Here:
# random weights in OpenCLIP's names.

# %% random
import shutil

from safetensors.numpy import load_file, save_file

if SMALL:
    rng = np.random.default_rng(0)
    tensors = load_file(WORK / "open_clip/open_clip_model.safetensors")
    random = {name: np.asarray(rng.normal(0, 0.02, tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    (WORK / "bare").mkdir(exist_ok=True)
    save_file(random, WORK / "bare/random.safetensors")
    shutil.rmtree(WORK / "imported_random", ignore_errors=True)
    harvest(f"weights import {WORK}/bare/random.safetensors --out {WORK}/imported_random", status=2)
    harvest(f"weights import {WORK}/bare/random.safetensors --out {WORK}/imported_random --activation gelu")

# %% [markdown]
# ## 5. Train from it
#
# `model.init_from` takes both towers, with their activation, resolution and preprocessing. The text tower is frozen.
# For a real CLIP: shards of your own videos (`shards.ipynb`), and `--config harvest_b16` (or `harvest_l14`) instead of
# `--config demo`.

# %% training
from harvest_jax.demo import clips

SHARDS, RUN = WORK / "shards", WORK / f"run_steps{STEPS}_clips{CLIPS}"
if SMALL:
    manifest = clips.write_clips(WORK / "clips", 0, CLIPS)
    harvest(f"shards --manifest {manifest} --out {SHARDS} --short_side 64 --overwrite")
    harvest(
        f"train --config demo --workdir {RUN} --config.data.shards={SHARDS} --config.model.init_from={CLIP} "
        f"--config.train.steps={STEPS} --config.train.warmup_steps={STEPS // 4} "
        f"--config.train.log_every={max(1, STEPS // 5)}"
    )

# %% [markdown]
# ## 6. Mix with the start
#
# Training on videos can cost some of what the CLIP knew. The weighted mean of both (WiSE-FT) often keeps most of
# either; `--alpha` 0 is the first model, 1 the second.

# %% mix
if SMALL:
    shutil.rmtree(WORK / "mixed", ignore_errors=True)
    # The CLIP with a table of 8 frames, all zeros, so that both models have the same parameters.
    if not (WORK / "imported_8").exists():
        harvest(f"weights import '{CHECKPOINT}' --num_frames 8 --out {WORK}/imported_8")
    harvest(f"weights mix {WORK}/imported_8 {RUN}/export --alpha 0.5 --out {WORK}/mixed")
    for name, folder in (("clip", CLIP), ("mixed", WORK / "mixed"), ("trained", RUN / "export")):
        harvest(
            f"eval --config eval/retrieval --model {folder} --out {WORK}/results/{name}.json "
            f"--config.data.shards={SHARDS} --config.data.split=retrieval"
        )
    harvest(f"results {WORK}/results")

# %% [markdown]
# ## 7. Back to the other program
#
# `hf_video`, `viclip`, `stablehlo` and this program's own folders hold the whole video model. `hf`, `open_clip` and
# `scenic` have no place for time: with `--drop_time` they get the image model that the video model is at one frame.

# %% export
if SMALL:
    shutil.rmtree(WORK / "back", ignore_errors=True)
    harvest(f"weights export {RUN}/export --format hf_video --out {WORK}/back")
    for path in sorted((WORK / "back").iterdir()):
        print(f"{path.stat().st_size:10,}  {path.name}")

# %% [markdown]
# With transformers 5 installed, `AutoModel.from_pretrained("harvest_clip/back", trust_remote_code=True)` opens it.
#
# ## Next steps
#
# `search.ipynb` with `MODEL` set to the imported folder searches your videos; `shards.ipynb` makes training data.
