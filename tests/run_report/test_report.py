"""The page of a run: of any state of it, of several side by side, of what strangers wrote into its files."""

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config import run as run_config
from harvest_jax.input.patches import patchify, take_patches
from harvest_jax.input.pipeline import training_batches
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.run_report import charts, runs, samples
from harvest_jax.run_report.page import page
from harvest_jax.weights.workdir_model import recorded_config
from tests.helpers.command import run as command

OLD = Path(__file__).resolve().parents[1] / "data" / "version_0_1_0"
VOID = {"meta", "img", "br", "source"}


def make_run(folder, name="run", events=(), **fields):
    """A run of version 0.1.0 with the events that are given; section__field=value changes its config."""
    root = folder / name
    shutil.copytree(OLD / "workdir", root)
    config = json.loads((root / "config.json").read_text())
    config["data"]["shards"] = str(OLD / "shards")
    for field, value in fields.items():
        section, key = field.split("__")
        config[section][key] = value
    (root / "config.json").write_text(json.dumps(config))
    if events:
        (root / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return root


def lines(attempt, start, end, first, last, how=None, **spent):
    """The lines of an attempt between two moments."""
    stamp = {"attempt": attempt, "clock": 0.0}
    found = [
        {"event": "start", **stamp, "time": start + 1, "command_began": start, "device": "TPU v5e", "devices": 4},
        {"event": "ready", **stamp, "time": start + 5, "step": first, "spent": {"start": 5.0}},
        {"event": "steps", **stamp, "time": end, "step": last, "first": first, "spent": spent},
    ]
    return [*found, {"event": how, **stamp, "time": end, "step": last, "spent": {}, "why": how}] if how else found


KILLED = [
    *lines(1, 1000.0, 1100.0, 0, 4, train=90.0, data_wait=5.0),
    *lines(2, 1200.0, 1300.0, 2, 6, "finished", train=80.0, compile=15.0),
]


class Structure(HTMLParser):
    """Open elements, addresses, texts by element."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.images, self.found = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.addresses += [values[name] for name in ("src", "href", "srcset") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.found.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.found).split())


def drawn(*paths):
    text = page(runs.find_runs(paths), ["harvest", "report"])
    structure = Structure(text)
    assert all(address.startswith("data:image/") for address in structure.addresses)  # nothing outside
    assert all(image.get("alt") for image in structure.images)
    assert "http" not in re.sub(r"data:image/[^\"]+", "", text)
    return structure


@pytest.fixture
def no_charts(monkeypatch):
    """Charts take most of the time of a page."""
    monkeypatch.setattr(charts, "chart", lambda fill, colours: "data:image/svg+xml;base64,")


def test_a_killed_run_that_went_on_shows_curves_stages_attempts_and_clips(tmp_path):
    root = make_run(tmp_path, events=KILLED, train__unmasked_steps=2)
    shown = drawn(root)
    assert "Finished. Step 4 of 6" in shown.text
    assert "patches dropped 1 to 4" in shown.text
    assert "all patches not begun 5 to 6" in shown.text
    assert "steps done again 40 s" in shown.text  # two of the second attempt's four steps
    assert "lost with killed attempts 100 s" in shown.text
    assert "training 2 min" in shown.text  # 90 + 80 / 2
    assert re.search(r"Goodput 43\.3\s*%", shown.text)  # 130 of 300
    assert "4 TPU v5e" in shown.text
    titles = " ".join(image["alt"] for image in shown.images)
    for title in ("Loss over", "Contrastive loss", "Learning rate", "Clips a second"):
        assert title in titles
    assert titles.count("Kept patches of a clip") == samples.CLIPS


def test_states_of_a_run(tmp_path, no_charts):
    now = time.time()
    running = lines(1, now - 100, now - 3, 0, 4, train=90.0)
    cases = {
        "finished": (KILLED, "finished"),
        "old": ([], "not finished, and it wrote no events: of an earlier version"),
        "running": (running, "running: its last line was"),
        "killed": (KILLED[:3], "it ended without a word"),
        "preempted": (lines(1, 1.0, 9.0, 0, 4, "preempted", train=1.0), "preempted"),
    }
    for name, (events, words) in cases.items():
        root = make_run(tmp_path, name, events)
        if name == "old":
            shutil.rmtree(root / "export")
        (found,) = runs.find_runs([root]).runs
        assert found.words.startswith(words), name
        assert found.state == {"old": "killed"}.get(name, name)
        assert (found.seconds_left is not None) == (name == "running")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    assert "Nothing was trained yet. Step 0 of 0" in drawn(tmp_path / "empty").text


def test_an_attempt_without_an_end_was_killed_unless_it_is_the_last_of_a_run_that_goes_on(tmp_path, no_charts):
    now = time.time()
    events = [*lines(1, now - 300, now - 200, 0, 4, train=90.0), *lines(2, now - 100, now - 3, 2, 6, train=80.0)]
    root = make_run(tmp_path, events=events)
    shown = drawn(root).text
    assert re.search(r"4 TPU v5e killed 2 .* 4 TPU v5e running", shown)
    later = [line | {"time": line["time"] - 4000} for line in events]
    assert len(re.findall("4 TPU v5e killed", drawn(make_run(tmp_path, "dead", later)).text)) == 2


def test_several_runs_are_side_by_side_with_what_differs(tmp_path, no_charts):
    one = make_run(tmp_path / "a", events=KILLED)
    other = make_run(tmp_path / "b", train__learning_rate=0.5)
    shown = drawn(one, other)
    assert "2 runs side by side" in shown.text
    assert "a/run" in shown.text
    assert "b/run" in shown.text  # names that tell them apart
    differing = shown.text.split("What differs")[1].split("Curves")[0]
    assert "run train.learning_rate a/run 0.01 b/run 0.5" in differing
    assert "train.b1" not in differing


def test_the_page_of_a_sweep_has_its_runs_values_and_results(tmp_path, no_charts, capsys):
    for number in (1, 2):
        make_run(tmp_path, f"rate={number}", events=KILLED)
    plan = [
        {"workdir": f"/elsewhere/rate={number}", "overrides": ["data.shards=x", f"train.learning_rate={number}"]}
        for number in (1, 2)
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": plan}))
    (tmp_path / "results.csv").write_text("run,complete,choice accuracy\nrate=1,True,51.5\n")
    code, said, _ = command(capsys, "report", tmp_path)
    assert code == 0
    assert "rate=2: step 4 of 6, finished, 43% of 300 s trained" in said
    shown = Structure((tmp_path / "report.html").read_text())
    assert "Results of the sweep" in shown.text
    assert "51.5" in shown.text
    assert "train.learning_rate=2" in shown.text
    assert "data.shards=x" not in shown.text  # all of them have it
    (tmp_path / "sweep.json").write_text('{"runs": [{}]}')
    code, _, error = command(capsys, "report", tmp_path)
    assert (code, error.count("\n")) == (3, 1)


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    code, _, error = command(capsys, "report", tmp_path)
    assert (code, error.count("\n")) == (3, 1)
    assert "is no training folder" in error
    code, _, error = command(capsys, "report", make_run(tmp_path), "--html", tmp_path)
    assert (code, error.count("\n")) == (2, 1)


def test_what_strangers_wrote_is_shown_as_text(tmp_path, no_charts):
    events = lines(1, 1.0, 9.0, 0, 4, "failed", train=1.0)
    events[-1]["why"] = "<script>alert(1)</script>"
    root = make_run(tmp_path, events=events, data__split="<img src=x>", data__shards="<nowhere>")
    with (root / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "eval/<b>/x": 3, "loss": null}\n{"step": "8"}\n[]\n{"step": 9, "loss": {}}\nhalf')
    shown = drawn(root)
    assert "<script>alert(1)</script>" in shown.text
    assert "The clips cannot be shown" in shown.text


def test_clips_are_those_of_the_first_batch_with_the_patches_that_were_kept(tmp_path):
    root = make_run(tmp_path)
    fields, config = run_config.load_recorded(root / "config.json"), recorded_config(Workdir(root))
    size, patch = config.video.image_size, config.video.patch_size
    tokenizer = Tokenizer(config.text.vocab_size)
    batches = training_batches(fields, size, patch, tokenizer, 0, 1)
    real = next(batches)
    batches.close()
    kept = samples._batch(fields, config, tokenizer, 3, fields.model.keep_ratio)
    whole = samples._batch(fields, config, tokenizer, 3, 1.0)
    for name in ("positions", "patches", "ids", "slots", "slot_weights"):
        np.testing.assert_array_equal(kept[name], real[name][:3])
    np.testing.assert_array_equal(take_patches(whole["patches"], kept["positions"]), kept["patches"])


def test_patches_become_frames_again():
    video = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(samples.unpatchify(patchify(video, 4), 3, 4), video)


def test_masked_words_of_a_caption():
    tokenizer = Tokenizer(4096)
    ids = tokenizer(["a red ball moves left"], 12)[0]
    texts = {"ids": ids, "slots": np.array([2, 4, 1]), "slot_weights": np.array([1.0, 1.0, 0.0])}
    pieces = samples.caption(texts, tokenizer)
    assert "".join(words for words, _ in pieces) == "a red ball moves left"
    masked = [words.strip() for words, masked in pieces if masked]
    assert masked == [tokenizer.decode(ids[2:3]), tokenizer.decode(ids[4:5])]
    assert samples.caption({}, tokenizer) == []


def test_long_runs_are_thinned_and_gaps_stay():
    rows = [{"step": step, "loss": float(step)} for step in range(1, 1001)]
    rows[5]["loss"] = None
    steps, values = charts.thinned(rows, charts.Line("loss", ""))
    assert len(steps) == len(values) <= charts.POINTS
    assert np.isnan(values[1])
    assert values[0] == steps[0] == 2.0
