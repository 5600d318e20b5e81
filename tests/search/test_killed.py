"""`kill -9` while an index is made: what was embedded stays, what is there is right, and the same command goes on."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from data_pipeline.decode.window_rule import WindowRule
from harvest_jax.search.folder import find_media
from harvest_jax.search.index import open_index
from harvest_jax.search.update import made_by, update
from harvest_jax.search.writer import open_writer
from tests.helpers.colour_films import COLOURS, ColourModel, film

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys, time
from pathlib import Path
from data_pipeline.decode.window_rule import WindowRule
from harvest_jax.search import update as u
from harvest_jax.search.folder import find_media
from harvest_jax.search.writer import open_writer
from tests.helpers.colour_films import ColourModel

class Slow(ColourModel):
    def encode_clips(self, clips):
        time.sleep(0.02)
        return super().encode_clips(clips)

u.BATCH = 2
model = Slow("m")
with open_writer(Path(sys.argv[2]), u.made_by(model, WindowRule())) as writer:
    print("open", flush=True)
    u.update(writer, find_media(Path(sys.argv[1])), model, WindowRule(), 1, lambda *_: None)
print("done", flush=True)
"""


def test_killed_again_and_again_it_goes_on_with_what_it_has(tmp_path):
    films, index = tmp_path / "films", tmp_path / "index"
    colours = list(COLOURS)
    for number in range(24):
        film(films / f"{number:02d}.mp4", colours[number % 4], frames=3 + number // 4)
    (films / "no.mp4").write_text("no film")
    model, rule, dice, known = ColourModel("m"), WindowRule(), random.Random(0), 0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(films), str(index)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        child.stdout.readline()
        deadline = time.monotonic() + 60
        while _rows(index, model, rule) <= known and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)  # until it has done something
        time.sleep(dice.uniform(0, 0.1))
        child.kill()
        child.stdout.close()
        child.wait()
        assert _rows(index, model, rule) > known or known == 25
        known = _rows(index, model, rule)
        _check(index, model, rule, colours)
    ColourModel.embedded = 0
    with open_writer(index, made_by(model, rule)) as writer:
        assert writer.notes == []
        update(writer, find_media(films), model, rule, 1, lambda *_: None)
    assert ColourModel.embedded <= 25 - known
    assert _rows(index, model, rule) == 25
    _check(index, model, rule, colours)


def _rows(index, model, rule):
    try:
        return len(open_index(index, made_by(model, rule)).files)
    except Exception:  # it is being made
        return 0


def _check(index, model, rule, colours):
    found = open_index(index, made_by(model, rule))
    for name, file in found.files.items():
        clip = found.clips[file.clip]
        if name == "no.mp4":
            assert clip.reason.startswith("not a video")
            continue
        wanted = np.array(COLOURS[colours[int(name[:2]) % 4]], np.float32)
        row = found.rows.exact[clip.first].astype(np.float32)
        assert row @ wanted / np.linalg.norm(wanted) > 0.98
        assert clip.crc == found.rows.crc(clip.first, 1)
