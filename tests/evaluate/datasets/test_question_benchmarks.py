"""Readers of benchmarks with questions, on files in the official form that the tests write, and on faulty ones."""

import json

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import counts
from harvest_jax.evaluate.benchmarks.locate_annotations import locate
from harvest_jax.evaluate.benchmarks.read_benchmark import read_files
from harvest_jax.evaluate.datasets import egomcq, lsmdc_mc, msrvtt_mc, nextqa, open_qa, tgif_qa
from harvest_jax.evaluate.evaluation import load_task
from tests.helpers import question_miniatures
from tests.helpers.question_miniatures import QUESTION_MINIATURES, THINGS, options, table, written

MODULES = (msrvtt_mc, lsmdc_mc, egomcq, nextqa, tgif_qa, open_qa)
BENCHMARKS = {benchmark.name: benchmark for module in MODULES for benchmark in module.BENCHMARKS}


def rows_of(name, folder):
    return BENCHMARKS[name].read(locate(BENCHMARKS[name], folder))


@pytest.mark.parametrize("name", QUESTION_MINIATURES)
def test_a_file_in_the_official_form_is_found_and_read(name, tmp_path):
    benchmark = BENCHMARKS[name]
    rows = rows_of(name, QUESTION_MINIATURES[name](tmp_path))
    assert len({row.id for row in rows}) == len(rows) > 3
    assert all(row.extra for row in rows)
    assert set(benchmark.expected) <= set(counts(rows))
    assert load_task(benchmark.task).Settings
    json.dumps([row.extra for row in rows])


def test_every_benchmark_has_a_miniature():
    assert set(QUESTION_MINIATURES) == set(BENCHMARKS)


def test_both_forms_of_msrvtt_mc_are_the_same_questions(tmp_path):
    one = rows_of("msrvtt_mc", question_miniatures.msrvtt_mc(tmp_path / "a"))
    other = rows_of("msrvtt_mc", question_miniatures.msrvtt_mc_list(tmp_path / "b"))
    assert [(row.id, row.extra) for row in one] == [(row.id, row.extra) for row in other]
    assert (one[1].id, one[1].video, other[1].video) == ("video7011", "video7011", "video7011.mp4")
    assert one[1].extra == {"options": options(1), "answer": 1}


def test_lsmdc_mc_counts_from_one_even_if_no_answer_is_5(tmp_path):
    rows = rows_of("lsmdc_mc", question_miniatures.lsmdc_mc(tmp_path))
    assert [row.extra["answer"] for row in rows] == [0, 1, 2, 3]
    assert rows[0].extra["options"][4] == 'SOMEONE holds a ladder, "scene 0.'
    assert (rows[2].video, rows[3].video) == (rows[2].id, rows[2].id)
    assert rows[3].id == f"{rows[2].id}#2"


def test_egomcq_is_five_clips_a_sentence(tmp_path):
    rows = rows_of("egomcq", question_miniatures.egomcq(tmp_path))
    assert len(rows) == 20
    first, right = rows[0], rows[8]
    assert (first.id, first.video, first.start, first.end) == ("0/0", "uid-0", 0.0, 1.5)  # its start is before 0
    assert (right.id, right.video, right.start, right.end) == ("1/3", "uid-1-3", 29.75, 31.5)
    assert [row.extra["answer"] for row in rows[5:10]] == [0, 1, 0, 0, 0]
    assert {row.extra["text"] for row in rows[5:10]} == {"#C C lifts a goat"}
    assert [rows[n].extra["type"] for n in (0, 5, 10, 15)] == ["intra", "inter", "intra", "inter"]


def test_nextqa_ids_hold_the_video_and_tp_counts_as_tn(tmp_path):
    rows = rows_of("nextqa", question_miniatures.nextqa(tmp_path))
    assert [row.id for row in rows[:3]] == ["40100_0", "40100_1", "40101_0"]
    assert rows[0].video == "40100"
    assert [row.extra["type"] for row in rows] == ["CW", "CH", "TN", "TN", "TC", "DC", "DL", "DO"]
    assert [row.extra["group"] for row in rows] == ["causal"] * 2 + ["temporal"] * 3 + ["descriptive"] * 3
    assert rows[4].extra["question"] == "what happens, in the end"
    assert rows[4].extra["options"][rows[4].extra["answer"]] == "take the ladder"


def test_tgif_tables(tmp_path):
    action = rows_of("tgif_action", question_miniatures.tgif_choice("action")(tmp_path))
    assert action[1].video == "tumblr_x1_250"
    assert action[1].extra == {"question": 'What does the "goat do 1 times ?', "options": list(THINGS), "answer": 1}
    frame = rows_of("tgif_frame", question_miniatures.tgif_frame(tmp_path))
    assert [row.extra["type"] for row in frame] == ["object", "number", "color", "location", "number"]
    assert frame[0].extra["answer"] == "kite"
    count = rows_of("tgif_count", question_miniatures.tgif_count(tmp_path))
    assert [row.extra["answer"] for row in count] == [0, 10, 2, 3, 5]


def test_clips_of_open_questions_have_their_datasets_names(tmp_path):
    rows = rows_of("msrvtt_qa", question_miniatures.msrvtt_qa(tmp_path / "a"))
    assert [(row.id, row.video) for row in rows[1:3]] == [("501", "video7010"), ("502", "video7011")]
    rows = rows_of("msvd_qa", question_miniatures.msvd_qa(tmp_path / "b"))
    assert (rows[5].id, rows[5].video) == ("505", "-4wInvented2_2_7")
    alone = BENCHMARKS["msvd_qa"].read({"questions": tmp_path / "b" / "test_qa.json"})
    assert alone[5].video == "vid1303"


def test_open_questions_as_json_lines_without_ids(tmp_path):
    lines = [{"question": "what?", "answer": "goat", "video_id": "video7010", "answer_type": "what"}] * 2
    path = written(tmp_path / "test.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert [row.id for row in BENCHMARKS["msrvtt_qa"].read({"questions": path})] == ["video7010#1", "video7010#2"]


LSMDC = ["film_01", "t", "t", "t", "t", *THINGS]
HEADER = ["gif_name", "question", "answer", "vid_id", "key"]
FAULTS = [
    (
        "msrvtt_mc",
        {"clip_name": "v", "options": options(0), "answer": 5},
        "'answer' must be a whole number from 0 to 4",
    ),
    ("msrvtt_mc", {"clip_name": "v", "options": options(0)[:4], "answer": 0}, "must have 5 options, has 4"),
    ("msrvtt_mc", {"clip_name": "v", "options": [*THINGS[:4], ""], "answer": 0}, r"'options\[4\]' is empty"),
    ("msrvtt_mc", [{"video": "v.mp4", "caption": "a text", "answer": 0}], "'caption' must be a list of texts"),
    ("msrvtt_mc", {"video_id": "v", "question": "what?"}, "no 'video'"),
    ("lsmdc_mc", table([[*LSMDC, 0]]), "'answer' must be a whole number from 1 to 5, is 0"),
    ("lsmdc_mc", table([[*LSMDC, 6]]), "from 1 to 5, is 6"),
    ("lsmdc_mc", table([["clip", *LSMDC[1:], "answer"], [*LSMDC, 1]]), "line 1: 'answer' must be a whole number"),
    ("lsmdc_mc", table([LSMDC]), "line 1: 10 cells, but 11 columns"),
    ("lsmdc_mc", ",".join([*LSMDC, "1"]), "separated by commas, in the official file by tabs"),
    ("egomcq", [], "holds a list, where the official file has an object"),
    ("egomcq", {}, "has no questions"),
    ("egomcq", {"7": {"answer": 0, "choices": {}}}, "question 7: 'choices' must be an object with the keys 0 to 4"),
    ("nextqa", "question,answer\nwhy?,yes\n", "must name the columns video"),
    ("nextqa", "video,question,answer,qid,type,a0,a1,a2,a3,a4\n1,why?,0,0,XX,a,b,c,d,e\n", "'type' must be one of CW"),
    ("nextqa", "video,question,answer,qid,type,a0,a1,a2,a3,a4\n1,why?,0,0,CW,a,b,c,,e\n", "'a3' is empty"),
    (
        "nextqa",
        "video,question,answer,qid,type,a0,a1,a2,a3,a4\n" + "1,why?,0,3,CW,a,b,c,d,e\n" * 2,
        "line 3: the id '1_3' is used already, in line 2",
    ),
    (
        "tgif_count",
        table([HEADER, ["g", "How often?", "11", "C1", 1]]),
        "line 2: 'answer' must be a whole number from 0",
    ),
    ("tgif_count", ",".join(HEADER) + "\ng,How often?,3,C1,1\n", "separated by commas, in the official file by tabs"),
    ("tgif_action", table([HEADER, ["g", "What?", "1", "C1", 1]]), "a1, a2, a3, a4, a5 not in"),
    ("msrvtt_qa", [{"id": 1, "video_id": 7010, "question": "who?"}], "no 'answer'"),
    ("msrvtt_qa", [{"id": 1, "video_id": 7010, "question": "who?", "answer": 3}], "'answer' must be a text"),
    (
        "msrvtt_qa",
        [{"id": 1, "video_id": 7, "question": "q", "answer": "a"}] * 2,
        "entry 2: the id '1' is used already, in entry 1",
    ),
    ("msrvtt_qa", b"\xff[", "is not UTF-8"),
    ("msrvtt_qa", "[{", "not JSON"),
]


@pytest.mark.parametrize(("name", "content", "message"), FAULTS)
def test_a_faulty_file_is_one_line(name, content, message, tmp_path):
    path = tmp_path / "file"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        written(path, content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        read_files(BENCHMARKS[name], {"questions": path}, partial=True)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_faults_inside_a_question_of_egomcq(tmp_path):
    good = json.loads((question_miniatures.egomcq(tmp_path) / "egomcq.json").read_text())
    for change, message in (
        ({"answer": 5}, "question 0: 'answer' must be a whole number from 0 to 4"),
        ({"query": "text"}, "question 0, query: must be an object"),
        ({"choices": good["0"]["choices"] | {"5": {}}}, "keys 0 to 4"),
        ({"choices": good["0"]["choices"] | {"2": good["0"]["query"] | {"clip_end": -1}}}, "choice 2: 'clip_end'"),
        ({"choices": good["0"]["choices"] | {"2": good["0"]["query"] | {"clip_start": 1.5}}}, "not after its start"),
    ):
        path = written(tmp_path / "bad.json", json.dumps({"0": good["0"] | change}))
        with pytest.raises(DataError, match=message):
            BENCHMARKS["egomcq"].read({"questions": path})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a_1_2 vid1\nb_1_2 vid1\n", "line 2: vid1 is there twice"),
        ("vid1 a_1_2\n", "must be a clip's name and vidN"),
        ("a_1_2\n", "must be a clip's name and vidN"),
        ("a_1_2 vid1\n", "vid1301 is not in"),
    ],
)
def test_names_of_msvds_clips_must_be_pairs_and_complete(line, message, tmp_path):
    folder = question_miniatures.msvd_qa(tmp_path)
    written(folder / "youtube_mapping.txt", line)
    with pytest.raises(DataError, match=message):
        rows_of("msvd_qa", folder)
