"""Files of class names, and labels among them."""

import json

import pytest

from harvest_jax.errors import DataError
from harvest_jax.input.class_names import class_text, label_numbers, read_classes
from tests.helpers.annotations import ANNOTATIONS

CLASS_NAMES = ANNOTATIONS / "classnames"


def test_class_names_are_words():
    assert class_text(" brush_hair  now ") == "brush hair now"
    assert class_text(" ''\"air drumming\"'' ") == "air drumming"
    assert class_text("adult+male+singing") == "adult male singing"
    assert class_text('"') == '"'


def written(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "content", "classes"),
    [
        ("names.txt", "brush_hair\n\n  cart wheel\n", ["brush hair", "cart wheel"]),
        ("names.txt", '"air drumming"\r\nZumba\r\n', ["air drumming", "Zumba"]),
        ("classInd.txt", "2 BrewTea\n1 ZipCoat\n", ["ZipCoat", "BrewTea"]),
        ("moments_categories.txt", "brewing,1\nzipping,0\n", ["zipping", "brewing"]),
        ("names.txt", "3 on 3 football\n400 m race\n", ["3 on 3 football", "400 m race"]),
        ("names.csv", 'id,name\n0,"a, b"\n1,c\n', ["a, b", "c"]),
        ("names.csv", "Label\n'shaking a rug'\nabseiling\n", ["shaking a rug", "abseiling"]),
        ("names.csv", "zipping\nbrewing\n", ["zipping", "brewing"]),
        (
            "train.csv",
            'label,youtube_id,time_start,time_end,split\n"zip lining",a,0,10,train\nbrewing,b,0,10,train\n'
            '"zip lining",c,0,10,train\n',
            ["brewing", "zip lining"],
        ),
        ("names.json", '["zip coat", "brew tea"]', ["zip coat", "brew tea"]),
        (
            "labels.json",
            '{"Brewing something": "1", "Zipping [something]": "0"}',
            ["Zipping [something]", "Brewing something"],
        ),
        ("classids.json", json.dumps({'"zip lining"': 0, "brewing": 1}), ["zip lining", "brewing"]),
        ("names.json", '{"1": "zipping", "0": "brewing"}', ["brewing", "zipping"]),
    ],
)
def test_class_files(tmp_path, name, content, classes):
    assert read_classes(written(tmp_path, name, content)) == classes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", " \n", "names no class"),
        ("none.csv", "", "names no class"),
        ("twice.txt", "a_b\na b\n", "'a b' appears more than once"),
        ("wrong.csv", "id,title\n0,x\n", "no column `name`, `label`, `class`, `class_name`"),
        ("bytes.txt", b"\xff\xfe\xfa", "is not UTF-8"),
        ("broken.json", "{", "broken.json"),
        ("numbers.json", "[1, 2]", "a list of names"),
        ("numbers.json", '{"a": 0, "b": 7}', "0.. or 1.., each once"),
        ("same.json", '{"a": 1, "b": 1}', "0.. or 1.., each once"),
        ("prose.md", "word " * 60 + "\nmore\n", "not a list of class names"),
    ],
)
def test_a_file_that_is_no_class_list_is_one_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as error:
        read_classes(written(tmp_path, name, content))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_class_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt"):
        read_classes(tmp_path / "gone.txt")


def test_labels_are_found_among_the_classes_as_words():
    assert label_numbers(["b_c", "a"], ["x", "y"], ["a", "b c"]).tolist() == [1, 0]
    assert label_numbers(["B C"], ["x"], ["B C", "b_c"]).tolist() == [0]
    with pytest.raises(DataError, match="2 labels are not a class, the first: 'z' of r2"):
        label_numbers(["a", "z", "q"], ["r1", "r2", "r3"], ["a"])


def test_labels_are_compared_without_capitals_and_punctuation_where_that_is_clear():
    classes = ["Yo Yo", "throwing ball (not baseball)", "throwing ball (baseball)", "hurling (sport)"]
    labels = ["YoYo", "Throwing_ball_(not_baseball)", "throwing ball(baseball)", "hurling sport"]
    assert label_numbers(labels, list("abcd"), classes).tolist() == [0, 1, 2, 3]
    with pytest.raises(
        DataError, match="1 labels are not a class, the first: 'yoyo' of b, it could be several of them"
    ):
        label_numbers(["Yo Yo", "yoyo"], ["a", "b"], ["Yo Yo", "yo-yo"])


@pytest.mark.skipif(not CLASS_NAMES.is_dir(), reason="no annotation files here")
@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("mmaction_activitynet_label_map.txt", 200),
        ("mmaction_hmdb51_label_map.txt", 51),
        ("mmaction_jester_label_map.txt", 27),
        ("mmaction_kinetics710_label_map_k710.txt", 710),
        ("mmaction_kinetics_label_map_k400.txt", 400),
        ("mmaction_kinetics_label_map_k600.txt", 600),
        ("mmaction_kinetics_label_map_k700.txt", 700),
        ("mmaction_mit_label_map.txt", 339),
        ("mmaction_sthv2_label_map.txt", 174),
        ("mmaction_ucf101_label_map.txt", 101),
        ("xclip_hmdb_51_labels.csv", 51),
        ("xclip_kinetics_400_labels.csv", 400),
        ("xclip_kinetics_600_labels.csv", 600),
        ("xclip_ucf_101_labels.csv", 101),
    ],
)
def test_class_lists_in_use_are_read(file, count):
    assert len(read_classes(CLASS_NAMES / file)) == count


@pytest.mark.skipif(not CLASS_NAMES.is_dir(), reason="no annotation files here")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("xclip_kinetics_400_labels.csv", "mmaction_kinetics_label_map_k400.txt"),
        ("xclip_kinetics_600_labels.csv", "mmaction_kinetics_label_map_k600.txt"),
        ("xclip_hmdb_51_labels.csv", "mmaction_hmdb51_label_map.txt"),
        ("xclip_ucf_101_labels.csv", "mmaction_ucf101_label_map.txt"),
    ],
)
def test_two_lists_of_the_same_classes_find_each_other(one, other):
    labels, classes = read_classes(CLASS_NAMES / one), read_classes(CLASS_NAMES / other)
    assert sorted(label_numbers(labels, labels, classes).tolist()) == list(range(len(classes)))


@pytest.mark.skipif(not CLASS_NAMES.is_dir(), reason="no annotation files here")
def test_clips_page_of_prompts_is_no_class_list():
    with pytest.raises(DataError, match="not a list of class names"):
        read_classes(CLASS_NAMES / "clip_prompts.md")


@pytest.mark.parametrize("numbers", [(2, 0, 1), (3, 1, 2)])
def test_the_numbers_of_a_table_give_the_order(tmp_path, numbers):
    rows = "".join(f"{number},{name}\n" for number, name in zip(numbers, ("swim", "run", "jump"), strict=True))
    (tmp_path / "classes.csv").write_text("id,name\n" + rows)
    assert read_classes(tmp_path / "classes.csv") == ["run", "jump", "swim"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,name\n0,run\n0,jump\n"),
        ("a.csv", "id,name\n5,run\n6,jump\n"),
        ("a.csv", "id,name\n0,run\n,jump\n"),
        ("a.txt", "id name\n0 run\n1 jump\n2 swim\n"),
        ("a.txt", "0 run\n1 jump\n1 swim\n"),
    ],
)
def test_numbers_that_give_no_order_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"0\.\. or 1\.\., each once"):
        read_classes(tmp_path / name)
