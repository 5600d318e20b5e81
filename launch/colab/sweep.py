# %% [markdown]
# # Sweep and plot
#
# One training many times, with other values and seeds: a config file says which, one command runs and scores them all,
# and writes a table and a plot with mean and spread over the seeds. Here: how much does it cost in quality to drop
# more patches? By default the clips are generated here; **for your own sweep change the config below**.
#
# It trains 6 times 300 steps of the size of the demo's, of which 1,200 take about 3 minutes on two CPU cores with a
# tenth of the patches (`configs/demo.py`); the notebook as a whole was not timed. Times on Colab's GPUs and TPUs were
# not measured.

# %% parameters
import os
from pathlib import Path

STEPS = int(os.environ.get("HARVEST_STEPS", 300))  # of each training
CLIPS = int(os.environ.get("HARVEST_CLIPS", 8))  # generated training clips of each of 80 captions
SEEDS = int(os.environ.get("HARVEST_SEEDS", 2))  # trainings of each value
KEPT = [float(word) for word in os.environ.get("HARVEST_KEPT", "0.2 0.1 0.05").split()]  # shares of the patches
WORK = Path("harvest_sweep")  # folder for everything that is written

# %% install
from install_cell import harvest  # `make notebooks` puts the cell itself here

# %% [markdown]
# ## 1. Data
#
# As in `quickstart.ipynb`: clips of one moving shape, and the question which of two captions, a motion or its reverse,
# is right.

# %% data
from harvest_jax.demo import clips, image_clip

SHARDS = (WORK / "shards").resolve()
manifest = clips.write_clips(WORK / "clips", 0, CLIPS)
harvest(f"shards --manifest {manifest} --out {SHARDS} --short_side 64 --overwrite")

# %% [markdown]
# ## 2. The sweep
#
# A config file with three functions. `get_config` is the training, `sweep` adds the runs, and `evaluate` adds what
# each finished run is scored on (on the shards of the run).

# %% config
CONFIG = WORK / "my_sweep.py"
_ = CONFIG.write_text(f"""
from harvest_jax.config import load_dict


def get_config():
    config = load_dict("demo")
    config.data.shards = "{SHARDS}"
    config.model.init_from = "{image_clip.SHIPPED}"
    config.train.steps = {STEPS}
    config.train.warmup_steps = {min(100, STEPS // 4)}
    config.train.log_every = {max(1, min(20, STEPS // 4))}
    return config


def sweep(add):
    for keep_ratio in {KEPT}:
        for seed in range({SEEDS}):
            add(**{{"model.keep_ratio": keep_ratio, "seed": seed}})


def evaluate(add):
    add("choice", "eval/multiple_choice", **{{"data.split": "choice"}})
""")

# %% [markdown]
# Everything is checked before anything starts; `--dry_run` lists the runs. Each is a process of its own, so nothing in
# this notebook may use a TPU or GPU before the sweep is done.

# %% list
import importlib.util
import subprocess
import sys

# In a checkout `launch` lies beside the package, in an installed wheel inside it.
MODULE = "harvest_jax.launch.sweep" if importlib.util.find_spec("harvest_jax.launch") else "launch.sweep"
SWEEP = [sys.executable, "-m", MODULE, "--config", str(CONFIG), "--workdir-root", str(WORK / "runs")]


def run(*more):
    """The sweep's command; what it prints is shown as it comes."""
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*SWEEP, *more], **words) as process:
        for line in process.stdout:
            print(line, end="")
    if process.returncode:
        raise SystemExit(f"the sweep ended with exit code {process.returncode}")


run("--dry_run")

# %% [markdown]
# ## 3. Run it
#
# One run after the other on this machine (`--backend print` prints the commands instead, for a cluster). If you
# interrupt it and run the cell again, finished runs are skipped and the interrupted one continues. A run that failed
# is tried again once.

# %% run
run("--backend", "local")

# %% [markdown]
# ## 4. The table and the plot
#
# `results.csv` has every run, `results.md` one line for each value with mean and standard deviation over its seeds,
# and `results.svg` the same drawn.

# %% table
from IPython.display import SVG, Markdown, display

display(Markdown((WORK / "runs/results.md").read_text()))
display(SVG(filename=str(WORK / "runs/results.svg")))

# %% [markdown]
# ## 5. A plot of your own
#
# Quality against cost. Columns are named by the evaluation and its metric, costs are `step_ms` and `clips_per_s`.

# %% plot
import csv

import matplotlib.pyplot as plt

with (WORK / "runs/results.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
score = next(name for name in rows[0] if name.startswith("choice "))
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for keep_ratio in dict.fromkeys(row["model.keep_ratio"] for row in rows):
    runs = [row for row in rows if row["model.keep_ratio"] == keep_ratio]
    cost, quality = ([float(row[name]) for row in runs] for name in ("step_ms", score))
    axes.plot(cost, quality, "o", label=f"{float(keep_ratio):.0%} of the patches")
axes.axhline(50, color="grey", linestyle=":", label="chance")
axes.set_xlabel("milliseconds a step")
axes.set_ylabel("motion or its reverse, % right")
axes.set_ylim(0, 102)
axes.set_xlim(left=0)
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# Short trainings with two seeds show how it is done, not what is true: compare the spread between the seeds with the
# differences.
#
# ## Next steps
#
# - Ready sweeps of the paper's claims come with the package: `--config sweeps/world_dropping`, `sweeps/world_masking`,
#   and others in `configs/sweeps/`.
# - `--config.FIELD=VALUE` sets a field in every run; `--sweep NAME` takes the function `sweep_NAME` of the config.
