"""The generated world: scenes, their pictures, their sentences, and that every question has one right answer."""

import dataclasses
import itertools

import numpy as np
import pytest

from harvest_jax.synthetic import sample
from harvest_jax.synthetic.choices import FACTORS, choice_of
from harvest_jax.synthetic.draw import render_clip, render_still
from harvest_jax.synthetic.questions import ANSWERS, QUESTIONS, question_of
from harvest_jax.synthetic.rows import World, columns, frames_of, scene_of
from harvest_jax.synthetic.sample import KINDS, any_scene, dice_of
from harvest_jax.synthetic.scene import ACTIONS, COLOURS, SHAPES, STANDS, Event, held_out
from harvest_jax.synthetic.sentences import Wording, caption, wording_of
from harvest_jax.synthetic.truth import is_true, seen

FRAMES = 8


def scenes(count, held=False, split="train"):
    return [any_scene(dice_of(0, split, number), held) for number in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_has_the_same_pictures_backwards(kind):
    for number in range(2):
        scene = KINDS[kind][0](dice_of(1, "train", number, kind), False)
        clip = render_clip(scene, FRAMES)
        assert np.array_equal(render_clip(scene.twin, FRAMES)[::-1], clip)
        assert scene.twin.twin == scene
        assert (len({frame.tobytes() for frame in clip}) > 1) == (kind != "stands")


def test_a_clip_follows_from_its_names_alone():
    clips = {
        names: render_clip(any_scene(dice_of(*names), False), 2).tobytes()
        for names in itertools.product((0, 1), ("train", "val"), (0, 1))
    }
    assert len(set(clips.values())) == len(clips)
    names = (1, "val", 0)
    assert render_clip(any_scene(dice_of(*names), False), 2).tobytes() == clips[names]


def test_the_world_of_this_version_stays_as_it_is():
    """Else another WORLD_VERSION is due: shards made earlier would belong to another world under the same name."""
    texts = [caption(scene, wording_of(dice_of(0, "train", n, "words"))) for n, scene in enumerate(scenes(3))]
    assert texts == [
        "a small striped red triangle and a big dotted yellow bar change places",
        "a plain purple triangle goes out of view and a plain blue triangle slides right",
        "a dotted blue square flickers twice",
    ]


def test_training_and_test_never_show_the_same_combination():
    def combinations(found):
        return {
            (*s.things[who].look, e.action)
            for s in found
            for e in s.events
            for who in (e.actor, e.other)
            if e.action != STANDS and who is not None
        }

    training, test = combinations(scenes(500)), combinations(scenes(250, held=True, split="retrieval"))
    assert not training & test
    assert all(held_out(*one) for one in test)
    share = sum(held_out(*one) for one in itertools.product(COLOURS, SHAPES, ACTIONS)) / 30 / len(ACTIONS)
    assert 0.3 < share < 0.37
    words = {word for one in training for word in one}
    assert {word for one in test for word in one} <= words


def test_a_twin_is_held_out_with_its_scene():
    for scene in scenes(100, held=True):
        twin = scene.twin
        for event in (e for e in twin.events if e.action != STANDS):
            assert held_out(*twin.things[event.actor].look, event.action)


@pytest.mark.parametrize("factor", FACTORS)
def test_one_sentence_of_a_choice_is_true(factor):
    """Judged from positions in the frames, not from the events that made them."""
    for number in range(25):
        choice = choice_of(dice_of(0, "choice", number), factor)
        clip = seen(choice.scene, FRAMES)
        assert [is_true(option, clip) for option in choice.options] == [
            number == choice.answer for number in range(len(choice.options))
        ]
        assert len(set(choice.sentences)) == len(choice.options)


def differing(one, other):
    return sum(a != b for a, b in itertools.zip_longest(one.split(), other.split()))


def test_the_right_sentence_is_not_the_one_that_is_most_like_the_others():
    """Else a reader of the sentences alone would know it, as "who does what" once was."""
    share = []
    for number in range(1000):
        choice = choice_of(dice_of(0, "choice", number), "binding")
        apart = [sum(differing(one, other) for other in choice.sentences) for one in choice.sentences]
        share.append((apart[choice.answer] == min(apart)) / apart.count(min(apart)))
    assert abs(np.mean(share) - 0.25) < 0.05  # 3 standard deviations are 0.04


def test_a_motion_is_not_told_by_its_reverse_among_the_sentences():
    paired = []
    for number in range(1000):
        choice = choice_of(dice_of(0, "choice", number), "motion")
        with_reverse = [option.twin.action in [o.action for o in choice.options] for option in choice.options]
        assert sum(with_reverse) == 4
        paired.append(with_reverse[choice.answer])
    assert abs(np.mean(paired) - 0.8) < 0.04


def test_a_still_without_marks_tells_nothing_of_what_happens():
    """At rest: where a thing is and how big would tell which pair of motions it has."""
    number = next(n for n in range(100) if len(scene_of(0, "unmarked", n).events) == 2)
    scene = scene_of(0, "unmarked", number)
    rest = render_still(dataclasses.replace(scene, events=(), camera=0), 0.3, marks=False)
    world = World(0, {"stills": 100, "unmarked": 100})
    assert np.array_equal(frames_of(world, "unmarked", number, 1)[0], rest)
    assert not np.array_equal(frames_of(world, "stills", number, 1)[0], rest)
    assert columns(0, "unmarked", number) == columns(0, "stills", number)


@pytest.mark.parametrize("action", ["hits", "meets"])
def test_what_hits_or_meets_touches(action):
    for number in range(20):
        scene = sample.together(dice_of(0, "train", number), False, actions=(action,))
        scene = dataclasses.replace(scene, things=scene.things[:2], ground="dark", shade=0.0)
        clip = render_clip(scene, 33).astype(int)
        thing = (np.abs(clip - clip[:, :1, :1]).max(axis=3) > 25).any(axis=1)  # columns that show a thing
        gaps = []
        for columns_shown in thing:
            shown = np.flatnonzero(columns_shown)
            gaps.append(int(np.diff(shown).max(initial=1)) - 1)
        assert min(gaps) <= 2, number


@pytest.mark.parametrize(
    ("factor", "blind"), [("direction", 1.0), ("order of two", 1.0), ("role", 1.0), ("colour", 0.0)]
)
def test_who_cannot_tell_a_clip_from_its_reverse_can_only_guess(factor, blind):
    """The reverse makes the other sentence true where a factor is about the order of time, and only there."""
    other = []
    for number in range(40):
        choice = choice_of(dice_of(0, "choice", number), factor)
        backwards = seen(choice.scene.twin, FRAMES)
        wrong = [option for n, option in enumerate(choice.options) if n != choice.answer]
        other.append(any(is_true(option, backwards) for option in wrong))
    assert np.mean(other) == blind


def test_the_judge_sees_what_is_false():
    """Of one thing that moves to the left, no other action is true."""
    scene = sample.one(dice_of(0, "train", 0), False, actions=("moves left",))
    clip = seen(scene, FRAMES)
    assert is_true(scene, clip)
    for action in set(ACTIONS) - {"moves left", "chases", "hits", "swaps with", "meets", "parts from"} | {STANDS}:
        assert not is_true(dataclasses.replace(scene, events=(Event(action),)), clip), action


@pytest.mark.parametrize("kind", QUESTIONS)
def test_questions_have_a_known_answer(kind):
    found = [question_of(dice_of(0, "questions", number), kind) for number in range(25)]
    assert {question.answer for question in found} <= set(ANSWERS)
    assert len({question.answer for question in found}) > 1
    assert all(question.text.endswith("?") for question in found)
    told = " ".join(caption(scene, wording_of(dice_of(0, "train", n, "words"))) for n, scene in enumerate(scenes(400)))
    assert all(question.answer in told for question in found)  # so that a decoder of captions can know the word


def test_wordings_say_the_same_in_other_words():
    scene = sample.turns(dice_of(0, "train", 3), False, things=1)
    texts = {caption(scene, Wording(verb=verb, joint=joint)) for verb in range(3) for joint in range(4)}
    assert len(texts) == 12
    first, second = scene.events
    plain = caption(scene, Wording(joint=3))
    assert plain.index(first.action) < plain.index("before") < plain.index(second.action)
    turned = caption(scene, Wording(joint=2))
    assert turned.index(second.action) < turned.index("after") < turned.index(first.action)


def test_marks_tell_in_one_picture_what_the_frames_tell_in_time():
    """A motion and its reverse give the same picture in the middle of the clip; with marks they differ."""
    for action in ("moves left", "grows", "turns clockwise"):
        scene = sample.one(dice_of(0, "train", 5), False, actions=(action,))
        plain = [render_still(one, 0.5, marks=False) for one in (scene, scene.twin)]
        marked = [render_still(one, 0.5, marks=True) for one in (scene, scene.twin)]
        assert np.array_equal(*plain)
        assert not np.array_equal(*marked)
