"""Files of class names, and labels among them."""

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.class_names import class_text, label_numbers, read_classes
from tests.helpers.annotations import ANNOTATIONS

CLASS_NAMES = ANNOTATIONS / "classnames"


def test_class_names_are_words():
    assert class_text(" brush_hair  now ") == "brush hair now"


def test_class_files(tmp_path):
    (tmp_path / "names.txt").write_text("brush_hair\n\n  cart wheel\n", encoding="utf-8")
    assert read_classes(tmp_path / "names.txt") == ["brush hair", "cart wheel"]
    (tmp_path / "names.csv").write_text('id,name\n0,"a, b"\n1,c\n', encoding="utf-8")
    assert read_classes(tmp_path / "names.csv") == ["a, b", "c"]
    for name, content, message in (
        ("none.txt", " \n", "names no class"),
        ("twice.txt", "a_b\na b\n", "'a b' appears more than once"),
        ("wrong.csv", "id,label\n0,x\n", "no column `name`"),
        ("bytes.txt", b"\xff\xfe\xfa", "utf-8"),
    ):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=message):
            read_classes(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.txt"):
        read_classes(tmp_path / "gone.txt")


def test_labels_are_found_among_the_classes_as_words():
    assert label_numbers(["b_c", "a"], ["x", "y"], ["a", "b c"]).tolist() == [1, 0]
    with pytest.raises(DataError, match="2 labels are not a class, the first: 'z' of r2"):
        label_numbers(["a", "z", "q"], ["r1", "r2", "r3"], ["a"])


@pytest.mark.skipif(not CLASS_NAMES.is_dir(), reason="no annotation files here")
@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("xclip_kinetics_400_labels.csv", 400),
        ("xclip_kinetics_600_labels.csv", 600),
        ("mmaction_kinetics_label_map_k400.txt", 400),
        ("mmaction_kinetics_label_map_k700.txt", 700),
        ("mmaction_ucf101_label_map.txt", 101),
        ("mmaction_hmdb51_label_map.txt", 51),
    ],
)
def test_class_lists_in_use_are_read(file, count):
    assert len(read_classes(CLASS_NAMES / file)) == count
