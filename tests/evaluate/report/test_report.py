"""Tables of results: rows, columns, intervals and differences."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harvest_jax import cli
from harvest_jax.errors import DataError
from harvest_jax.evaluate.report.bootstrap import interval
from harvest_jax.evaluate.report.grids import report
from harvest_jax.evaluate.report.query_scores import METRICS, differences, query_scores
from harvest_jax.evaluate.report.result_files import read_result, read_results
from harvest_jax.evaluate.result.queries import SCHEMA
from tests.helpers.written_results import noisy, write_retrieval

RUN = {"config": {"seed": 0, "train": {"steps": 10}}, "workdir_step": 10, "workdir": "x", "digest": "y"}


def grids(folder):
    return {grid.title: grid for grid in report(read_results([folder]).results).grids}


def rows(grid):
    return dict(grid.rows)


def test_queries_give_the_scores_and_do_not_depend_on_their_order(tmp_path):
    scores, owner = noisy(0)
    one = read_result(write_retrieval(tmp_path / "a.json", scores, owner))
    other = read_result(write_retrieval(tmp_path / "b.json", scores, owner, order=np.arange(len(owner))[::-1]))
    for metric in METRICS["retrieval"]:
        if metric.part:
            first, second = query_scores(one.queries, metric), query_scores(other.queries, metric)
            assert first.values.mean() == pytest.approx(one.number(metric.path))
            assert first.keys == second.keys
            np.testing.assert_array_equal(first.values, second.values)
            assert not differences(first, second, ("a", "b")).values.any()


def test_a_difference_is_paired(tmp_path):
    """Two models that err at the same captions but for a few: the paired interval is much narrower than either's."""
    scores, owner = noisy(0, videos=60)
    better = scores.copy()
    better[owner[:20], np.arange(20)] += 10
    write_retrieval(tmp_path / "1.json", scores, owner, "a")
    write_retrieval(tmp_path / "2.json", better, owner, "b", order=np.arange(len(owner))[::-1])
    grid = grids(tmp_path)["kites"]
    assert grid.heads[:2] == (("t2v R@1",), ("change",))
    (first, no_change, *_), (second, change, *_) = rows(grid).values()
    assert (no_change.text, no_change.detail) == ("", "")
    one, other = (read_result(tmp_path / name) for name in ("1.json", "2.json"))
    metric = METRICS["retrieval"][0]
    apart = differences(query_scores(one.queries, metric), query_scores(other.queries, metric), ("", ""))
    low, high = interval(apart.values, apart.clusters)
    assert change.detail == f"[+{low:.1f}, +{high:.1f}]"
    assert change.tone == "better"
    own = [float(end) for end in first.detail[1:-1].split(",")]
    assert high - low < own[1] - own[0]
    by = other.number(metric.path) - one.number(metric.path)
    assert (first.text, second.text, change.text) == (
        f"{one.number(metric.path):.1f}", f"{other.number(metric.path):.1f}", f"+{by:.1f}",
    )  # fmt: skip


def test_other_queries_are_not_compared(tmp_path):
    one = read_result(write_retrieval(tmp_path / "a.json", *noisy(0, videos=5)))
    other = read_result(write_retrieval(tmp_path / "b.json", *noisy(0, videos=6)))
    metric = METRICS["retrieval"][0]
    with pytest.raises(DataError, match="2 of the 12 queries of B are not in A, the first: video video5, 'caption 10'"):
        differences(query_scores(one.queries, metric), query_scores(other.queries, metric), ("A", "B"))


def test_two_protocols_are_two_columns_that_say_how_they_differ(tmp_path):
    write_retrieval(tmp_path / "a.json", *noisy(0))
    write_retrieval(tmp_path / "b.json", *noisy(0), protocol={"frames": 8})
    found = report(read_results([tmp_path]).results).grids
    assert found[0].heads == (("kites", "t2v R@1", "frames=4"), ("kites", "t2v R@1", "frames=8"))
    assert [grid.title for grid in found] == ["Overview", "kites, frames=4", "kites, frames=8"]
    # the name of a set is not part of the protocol
    write_retrieval(tmp_path / "c.json", *noisy(0), "b", protocol={"frames": 8}, set_name="goats")
    found = report(read_results([tmp_path]).results).grids
    assert found[0].heads == (("goats / kites", "t2v R@1", "frames=8"), ("kites", "t2v R@1", "frames=4"))


def test_runs_that_differ_in_the_seed_are_one_row(tmp_path):
    for seed, letter in enumerate("abc"):
        origin = {**RUN, "config": {**RUN["config"], "seed": seed}, "workdir": letter}
        write_retrieval(tmp_path / f"{letter}.json", *noisy(seed), letter, origin=origin)
    later = {**RUN, "workdir_step": 20}
    write_retrieval(tmp_path / "d.json", *noisy(3), "d", origin=later)
    shown = rows(grids(tmp_path)["kites"])
    assert list(shown) == ["runs/a/export, step 10, 3 runs, seeds 0, 1, 2", "runs/d/export, step 20"]
    scores = [read_result(tmp_path / f"{letter}.json").number(("t2v", "R@1")) for letter in "abc"]
    cell = shown["runs/a/export, step 10, 3 runs, seeds 0, 1, 2"][0]
    assert cell.text == f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f} (n=3)"
    assert cell.detail.startswith("[")
    assert "n=" not in shown["runs/d/export, step 20"][0].text


def test_the_image_model_comes_first_then_averages_of_frames(tmp_path):
    scores, owner = noisy(0)
    average = {"frame_average": {"t2v": {"R@1": 12.5}, "v2t": {"R@1": 2.5}}}
    write_retrieval(tmp_path / "a.json", scores, owner, "a", metrics=average)
    write_retrieval(tmp_path / "z.json", *noisy(1), "b", frames=1, metrics=average)
    grid = grids(tmp_path)["kites"]
    assert [label for label, _ in grid.rows] == [
        "runs/b/export, image model, average of frames",
        "runs/a/export: average of its frames",
        "runs/a/export",
    ]
    averaged = rows(grid)["runs/a/export: average of its frames"]
    assert (averaged[0].text, averaged[0].detail, averaged[1].text) == ("12.5", "", "")
    assert any("change: of t2v R@1 from runs/b/export" in note for note in grid.notes)


def test_duplicates_count_once(tmp_path):
    write_retrieval(tmp_path / "a.json", *noisy(0), n_missing=3, date="2031-01-01T00:00:00+00:00")
    write_retrieval(tmp_path / "b.json", *noisy(1), date="2030-01-01T00:00:00+00:00")
    write_retrieval(tmp_path / "c.json", *noisy(1), date="2030-01-02T00:00:00+00:00")
    shown = report(read_results([tmp_path]).results)
    ((_, cells),) = shown.grids[0].rows
    assert cells[0].text == f"{read_result(tmp_path / 'b.json').number(('t2v', 'R@1')):.1f}"
    assert [text for text in shown.warnings if "a.json not used" in text and "fewer missing" in text]
    assert len(shown.warnings) == 1


def test_equal_labels_are_told_apart(tmp_path):
    for letter in "ab":
        write_retrieval(tmp_path / f"{letter}.json", *noisy(0), letter, name="m")
    assert list(rows(grids(tmp_path)["kites"])) == ["m (aaaaaaaa)", "m (bbbbbbbb)"]


def test_a_mixture_shows_its_alpha(tmp_path):
    mixed = {"mixed": {"first": "runs/clip", "second": "runs/mine/export", "alpha": 0.5}}
    write_retrieval(tmp_path / "a.json", *noisy(0), origin=mixed)
    assert list(rows(grids(tmp_path)["kites"])) == ["runs/a/export, mix of clip and export, alpha 0.5"]


def damage(path):
    table = path.with_name(f"{path.name}.queries.parquet")
    table.write_bytes(table.read_bytes()[:-1] + b"x")


def remove_table(path):
    path.with_name(f"{path.name}.queries.parquet").unlink()


@pytest.mark.parametrize(("harm", "says"), [(damage, "is not the table that"), (remove_table, "is not there")])
def test_a_result_without_its_table_has_no_interval(tmp_path, capsys, harm, says):
    path = write_retrieval(tmp_path / "a.json", *noisy(0))
    harm(path)
    assert cli.main(["results", str(path)]) == 0
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert says in said.err
    assert "kites" in said.out
    assert "[" not in said.out.split("In brackets")[0]


def test_scores_that_are_not_those_of_the_queries_have_no_interval(tmp_path):
    path = write_retrieval(tmp_path / "a.json", *noisy(0), metrics={"t2v": {"R@1": 99.0}})
    shown = report([read_result(path)])
    assert shown.grids[0].rows[0][1][0].detail == ""
    assert "the mean over the queries is" in shown.warnings[0]


def test_a_table_that_lacks_what_the_score_is_made_of(tmp_path):
    """Its digest is right: a table of another program."""
    path = write_retrieval(tmp_path / "a.json", *noisy(0))
    table = tmp_path / "a.json.queries.parquet"
    for content, says in (
        (SCHEMA.empty_table(), "has no queries of 't2v'"),
        (pa.table({"part": ["t2v"]}), "has other columns"),
        (read_result(path).queries.set_column(7, "greater", pa.nulls(120, pa.int64())), "lacks the greater"),
    ):
        pq.write_table(content, table)
        sha256 = hashlib.sha256(table.read_bytes()).hexdigest()
        changed(queries={"name": table.name, "sha256": sha256})(path)
        shown = report([read_result(path)])
        assert shown.grids[0].rows[0][1][0].detail == ""
        assert says in shown.warnings[0], shown.warnings


@pytest.mark.parametrize("queries", [None, 5, {"name": "../a.queries.parquet", "sha256": "0"}])
def test_a_table_is_looked_for_beside_its_result_alone(tmp_path, queries):
    path = write_retrieval(tmp_path / "a.json", *noisy(0))
    changed(queries=queries)(path)
    assert read_result(path).queries is None
    assert read_result(path).fault


def changed(**parts):
    def change(path):
        content = json.loads(path.read_text("utf-8")) | parts
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}), "utf-8")

    return change


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.write_text("{", "utf-8"), "not JSON"),
        (lambda path: path.write_text("[1]", "utf-8"), "is JSON, but not a result of harvest eval"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
        (changed(format=None), "version 0.1.0 or older"),
        (changed(format=3), "format 3, and this program reads format 2"),
        (changed(task=5), "no usable 'task'"),
        (changed(model={"name": "m"}), "no usable model 'sha256'"),
        (changed(protocol={"frames": 16}), "protocol_hash is not that of its protocol"),
        (changed(task="juggling"), "knows no task 'juggling'"),
        (changed(metrics={"t2v": 5}), "it has no score t2v.R@1"),
        (lambda path: path.unlink(), "no file or folder"),
    ],
)
def test_what_is_no_result_is_one_line(tmp_path, capsys, harm, says):
    path = write_retrieval(tmp_path / "a.json", *noisy(0))
    harm(path)
    assert cli.main(["results", str(path)]) == DataError.exit_code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_a_split_is_named_where_the_set_is_a_file_or_folder(tmp_path):
    names = {
        "a": ("manifest", "clips.csv", "val"),
        "b": ("shards", "shards", "test"),
        "c": ("benchmark over shards", "MSVD", "test"),
        "d": ("manifest", "clips.csv", ""),
    }
    for model, (kind, name, split) in names.items():
        write_retrieval(tmp_path / f"{model}.json", *noisy(0), model, kind=kind, set_name=name, split=split)
    found = [read_result(tmp_path / f"{model}.json").set_name for model in names]
    assert found == ["clips.csv, split val", "shards, split test", "MSVD", "clips.csv"]


def test_an_empty_folder_and_an_old_result(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", "utf-8")
    assert cli.main(["results", str(tmp_path)]) == DataError.exit_code
    assert "no results of harvest eval in" in capsys.readouterr().err
    write_retrieval(tmp_path / "a.json", *noisy(0))
    old = write_retrieval(tmp_path / "old.json", *noisy(0))
    changed(format=None)(old)
    assert cli.main(["results", str(tmp_path)]) == 0
    error = capsys.readouterr().err
    assert "old.json was written by version 0.1.0 or older" in error
    assert "config.json" not in error
    assert error.count("\n") == 1


def test_markdown_and_page_hold_the_table_and_escape_names(tmp_path, capsys):
    write_retrieval(tmp_path / "a.json", *noisy(0), name="<b>|`x`", warnings=["see <script>"])
    write_retrieval(tmp_path / "b.json", *noisy(1), "b", set_name="kites <i>")
    out = tmp_path / "out"
    words = ["--markdown", str(out / "t.md"), "--html", str(out / "t.html")]
    assert cli.main(["results", str(tmp_path / "a.json"), str(tmp_path / "b.json"), *words]) == 0
    shown = capsys.readouterr().out
    score = f"{read_result(tmp_path / 'b.json').number(('t2v', 'R@1')):.1f}"
    text, page = (out / "t.md").read_text("utf-8"), (out / "t.html").read_text("utf-8")
    for found in (shown, text, page):
        assert score in found
        assert "percentile bootstrap" in found
    assert "<b>" not in text
    assert "&lt;b&gt;\\|\\`x\\`" in text
    assert "<b>" not in page
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert "http" not in page


def test_compare_shows_the_first_against_the_others(tmp_path, capsys):
    scores, owner = noisy(0)
    one = write_retrieval(tmp_path / "a.json", scores, owner)
    other = write_retrieval(tmp_path / "b.json", scores + 0, owner, "b", protocol={"frames": 8})
    assert cli.main(["results", str(one), str(other), "--compare"]) == 0
    shown = capsys.readouterr().out
    assert f"protocols differ: frames=8 in {other}, frames=4 in {one}" in " ".join(shown.split())
    assert "0.0 [0.0, 0.0]" in shown
    assert cli.main(["results", str(one), "--compare"]) == DataError.exit_code
    assert "needs two results" in capsys.readouterr().err
    third = write_retrieval(tmp_path / "c.json", *noisy(0, videos=5))
    assert cli.main(["results", str(one), str(third), "--compare"]) == DataError.exit_code
    assert "were not asked the same" in capsys.readouterr().err


def test_a_wide_table_comes_in_parts(tmp_path, capsys, monkeypatch):
    write_retrieval(tmp_path / "a.json", *noisy(0))
    monkeypatch.setenv("COLUMNS", "70")
    assert cli.main(["results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 70
    assert sum(line.startswith("runs/a/export") for line in lines) > 1
