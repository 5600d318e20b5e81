"""The look "real": other pictures and other words of the same scenes."""

import re

import numpy as np
import pytest
from PIL import Image

from harvest_jax.synthetic import real
from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.draw import render_clip
from harvest_jax.synthetic.rows import TEST_SPLITS, World, columns, frames_of, numbers_of, scene_of
from harvest_jax.synthetic.sample import KINDS, dice_of
from harvest_jax.synthetic.scene import SHAPES

DRAWN = re.compile(rf"\b({'|'.join(SHAPES)}|checkered|speckled|shape)\b")
DIGITS = ("0", "1", "2", "3", "4", "5")


def texts(found):
    """All that the columns of a clip say; the kind of a question keeps its name."""
    told = [value for name, value in found.items() if name != "type"]
    return [text for value in told for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


@pytest.mark.parametrize("split", ["train", "stills", *TEST_SPLITS])
def test_the_words_are_those_of_the_look_and_tell_the_same_apart(split):
    count = 90
    drawn, found = ([*numbers_of(World(0, {split: count}, look=look), split)] for look in ("drawn", "real"))
    assert [number for number, _ in drawn] == [number for number, _ in found]
    names = {}
    for (_, before), (_, after) in zip(drawn, found, strict=True):
        assert before.keys() == after.keys()
        assert {name: before[name] for name in ("type", "label") if name in before}.items() <= after.items()
        names |= dict(zip(texts(before), texts(after), strict=True))
    assert len(set(names.values())) == len(names)
    assert not any(DRAWN.search(text) for text in names.values())
    if split != "actions":
        assert any(DRAWN.search(text) for text in names)


def test_every_shape_is_a_digit_and_two_grounds_are_photographs():
    told = real.in_words({"captions": ["a red circle on a checkered ground", "a bar on a speckled ground"]})
    assert told == {"captions": ["a red 0 on a photo of a tower", "a 5 on a photo of a flower"]}
    assert [real.in_words({"answer": shape})["answer"] for shape in SHAPES] == list(DIGITS)
    assert real.in_words({"answer": 2, "options": ["it jumps three times"]}) == {
        "answer": 2,
        "options": ["it jumps three times"],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_has_the_same_pictures_backwards(kind):
    scene = KINDS[kind][0](dice_of(1, "train", 0, kind), False)
    clip = render_clip(scene, 8, real="training")
    assert np.array_equal(render_clip(scene.twin, 8, real="training")[::-1], clip)
    assert (len({frame.tobytes() for frame in clip}) > 1) == (kind != "stands")


def test_training_and_tests_show_different_samples():
    from sklearn.datasets import load_digits

    digits = load_digits().target
    for digit in range(len(SHAPES)):
        training, test = (real._numbers(digit, part) for part in ("training", "test"))
        assert not set(training) & set(test)
        assert min(len(training), len(test)) > 50
        assert {int(digits[number]) for number in (*training, *test)} == {digit}
    world = World(0, {"train": 1, "val": 1, "stills": 1, "unmarked": 1, **dict.fromkeys(TEST_SPLITS, 1)}, look="real")
    assert {split: world.part(split) for split in world.clips} == {
        **dict.fromkeys(("train", "val", "stills", "unmarked"), "training"),
        **dict.fromkeys(TEST_SPLITS, "test"),
    }
    scene = scene_of(0, "retrieval", 0)
    shown = frames_of(world, "retrieval", 0, 2)
    assert np.array_equal(shown, render_clip(scene, 2, real="test"))
    assert not np.array_equal(shown, render_clip(scene, 2, real="training"))


@pytest.mark.parametrize("ground", real.PHOTOGRAPHS)
def test_training_and_tests_show_different_parts_of_the_photographs(ground, monkeypatch):
    """With a photograph whose colour tells the column: no column is in both."""
    shown = real._photograph(real._PHOTOGRAPHS[ground][0])
    columns = np.broadcast_to(np.arange(shown.shape[1])[:, None] // np.array([1, 256, 1 << 16]) % 256, shown.shape)
    monkeypatch.setattr(real, "_photograph", lambda name: columns.astype(np.uint8))
    monkeypatch.setattr(Image.Image, "resize", lambda picture, size, resample: picture)
    seen = {"training": set(), "test": set()}
    for part, found in seen.items():
        for number in range(60):
            picture = np.asarray(real.photograph_of(ground, part, Dice(number), 40)).astype(int)
            assert picture.shape[0] == picture.shape[1]  # no edge of the photograph cuts it
            found.update(np.unique(picture[..., 0] + 256 * picture[..., 1]).tolist())
    assert min(map(len, seen.values())) > 150
    assert not seen["training"] & seen["test"]


def test_a_thing_keeps_its_digit_in_all_frames_and_clips_differ_in_theirs():
    bitmaps = [real.digit_of("circle", "training", Dice("digit", grain, 0))[0].tobytes() for grain in range(20)]
    assert len(set(bitmaps)) > 15
    again = real.digit_of("circle", "training", Dice("digit", 3, 0))[0].tobytes()
    assert again == bitmaps[3]


def test_columns_of_a_drawn_world_stay():
    ((_, found),) = numbers_of(World(0, {"train": 1}), "train")
    assert found == columns(0, "train", 0)
