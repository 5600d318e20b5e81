"""The scenes of a split, each from its number alone."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from harvest_jax.synthetic import WORLD_VERSION
from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.scene import (
    COLOURS,
    EPISODES,
    GROUNDS,
    MOST_TIMES,
    MOTIONS,
    SHAPES,
    SIZES,
    STANDS,
    TEXTURES,
    TOGETHER,
    Event,
    Scene,
    Thing,
    held_out,
)

_LOOKS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
_PANS: tuple[Literal[-1, 0, 1], ...] = (-1, 1)


def dice_of(seed: int, split: str, number: int, purpose: str = "scene") -> Dice:
    """The stream of choices for one clip of a split."""
    return Dice("harvest world", WORLD_VERSION, seed, split, number, purpose)


def one(dice: Dice, held: bool, actions: Sequence[str] = MOTIONS) -> Scene:
    """One thing with one motion."""
    return _scene(dice, held, [dice.pick(actions)])


def two(dice: Dice, held: bool) -> Scene:
    """Two things, each with its own motion, at the same time."""
    first = dice.pick(MOTIONS)
    return _scene(dice, held, [first, dice.pick([motion for motion in MOTIONS if motion != first])])


def turns(dice: Dice, held: bool, length: int = 2, things: int = 0) -> Scene:
    """Episodes one after the other, on one thing or on two (0: either)."""
    actions = dice.shuffled(EPISODES)[:length]
    things = things or dice.pick((1, 2))
    scene = _scene(dice, held, actions[:1] if things == 1 else actions[:2])
    events = tuple(
        Event(
            action,
            actor=0 if things == 1 else k % 2,
            begin=round(k / length, 9),  # so that the reverse of the reverse is the same scene
            end=round((k + 1) / length, 9),
        )
        for k, action in enumerate(actions)
    )
    return dataclasses.replace(scene, events=events)


def three_turns(dice: Dice, held: bool) -> Scene:
    """Three episodes of one thing."""
    return turns(dice, held, length=3, things=1)


def stands(dice: Dice, held: bool) -> Scene:
    """A thing that does nothing."""
    return one(dice, held, (STANDS,))


def repeated(dice: Dice, held: bool) -> Scene:
    """One episode, once or several times."""
    scene = _scene(dice, held, [dice.pick(EPISODES)])
    event = dataclasses.replace(scene.events[0], times=1 + dice.number(MOST_TIMES))
    return dataclasses.replace(scene, events=(event,))


def together(dice: Dice, held: bool, actions: Sequence[str] = TOGETHER) -> Scene:
    """What two things do with each other."""
    action = dice.pick(actions)
    scene = _scene(dice, held, [action, action])
    return dataclasses.replace(scene, events=(Event(action, 0, 1, to_right=dice.chance(0.5)),))


def panned(dice: Dice, held: bool) -> Scene:
    """A moving camera, over a ground that shows it; the thing stands, or moves with its own motion."""
    scene = _scene(dice, held, [dice.pick((STANDS, STANDS, *MOTIONS))])
    return dataclasses.replace(scene, camera=dice.pick(_PANS), ground=dice.pick(("checkered", "speckled")))


KINDS: dict[str, tuple[Callable[[Dice, bool], Scene], float]] = {  # with their shares of the training clips
    "one": (one, 0.25),
    "two": (two, 0.15),
    "turns": (turns, 0.15),
    "three turns": (three_turns, 0.05),
    "repeated": (repeated, 0.1),
    "together": (together, 0.15),
    "panned": (panned, 0.1),
    "stands": (stands, 0.05),
}


def any_scene(dice: Dice, held: bool) -> Scene:
    """A scene of a random kind."""
    point = dice.between(0.0, 1.0)
    for make, share in KINDS.values():
        point -= share
        if point < 0:
            return make(dice, held)
    return one(dice, held)


def _scene(dice: Dice, held: bool, actions: Sequence[str]) -> Scene:
    """A scene of as many named things as actions; all their combinations are held out, or none."""
    looks: list[tuple[str, str]] = []
    for action in actions:
        free = [look for look in _LOOKS if look not in looks and _fits(look, action, held)]
        looks.append(dice.pick(free))
    extra = dice.pick((0, 0, 1, 2))
    others: list[tuple[str, str]] = []
    for _ in range(extra):
        others.append(dice.pick([look for look in _LOOKS if look not in looks and look not in others]))
    centre = [(0.5, 0.5)] if len(actions) == 1 else dice.shuffled([(0.29, 0.5), (0.71, 0.5)])
    things = [_thing(dice, look, place, dice.pick(SIZES)) for look, place in zip(looks, centre, strict=True)]
    corners = dice.shuffled([(0.14, 0.14), (0.86, 0.14), (0.14, 0.86), (0.86, 0.86)])
    things += [_thing(dice, look, place, "small") for look, place in zip(others, corners, strict=False)]
    return Scene(
        things=tuple(things),
        events=tuple(Event(action, actor) for actor, action in enumerate(actions)),
        named=len(actions),
        ground=dice.pick(GROUNDS),
        shade=dice.between(0.0, 1.0),
        grain=dice.number(1 << 30),
    )


def _fits(look: tuple[str, str], action: str, held: bool) -> bool:
    return action == STANDS or held_out(*look, action) == held


def _thing(dice: Dice, look: tuple[str, str], place: tuple[float, float], size: str) -> Thing:
    x, y = (centre + dice.between(-0.05, 0.05) for centre in place)
    return Thing(*look, dice.pick(TEXTURES), size, x, y, dice.between(-12.0, 12.0))
