"""Questions of one clip with several sentences of which one is right; the wrong ones differ in one factor.

What a factor needs: its still look ("still"), the order of time ("order"), two things bound to what each does
("binding"), or several of these. A reader of single pictures without their order cannot tell a scene from its twin.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from harvest_jax.synthetic import sample
from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.scene import (
    COLOURS,
    GROUNDS,
    MOST_TIMES,
    MOTION_PAIRS,
    MOTIONS,
    REVERSED,
    ROLES,
    SHAPES,
    SIZES,
    STANDS,
    TEXTURES,
    TOGETHER,
    Event,
    Scene,
)
from harvest_jax.synthetic.sentences import Wording, caption, wording_of

_OPTIONS = 5
_SAME_SIZE = tuple(motion for motion in MOTIONS if motion not in ("grows", "shrinks"))


@dataclasses.dataclass(frozen=True)
class Choice:
    """A clip and sentences about it.

    Attributes:
      factor: what the wrong ones differ in.
      scene: what the clip shows.
      options: what the sentences say, the right one among them.
      answer: number of the right one.
      wording: of all of them.
    """

    factor: str
    scene: Scene
    options: tuple[Scene, ...]
    answer: int
    wording: Wording

    @property
    def sentences(self) -> list[str]:
        """The options in words."""
        return [caption(option, self.wording) for option in self.options]


def _replaced(scene: Scene, number: int, **changes: Any) -> Scene:
    """The scene with another look of one of its things."""
    things = list(scene.things)
    things[number] = dataclasses.replace(things[number], **changes)
    return dataclasses.replace(scene, things=tuple(things))


def _with_events(scene: Scene, *events: Event) -> Scene:
    return dataclasses.replace(scene, events=events)


def _looks(
    name: str, values: Sequence[str], actions: Sequence[str] = MOTIONS
) -> Callable[[Dice], tuple[Scene, list[Scene]]]:
    """One thing alone, with a motion; the wrong options have another colour, shape, size or texture."""

    def make(dice: Dice) -> tuple[Scene, list[Scene]]:
        scene = sample.one(dice, True, actions)
        scene = dataclasses.replace(scene, things=scene.things[: scene.named])  # another one may look as a wrong option
        now = getattr(scene.things[0], name)
        return scene, [_replaced(scene, 0, **{name: value}) for value in dice.shuffled(values) if value != now]

    return make


def _ground(dice: Dice) -> tuple[Scene, list[Scene]]:
    scene = sample.one(dice, held=True)
    others = [kind for kind in dice.shuffled(GROUNDS) if kind != scene.ground]
    return scene, [dataclasses.replace(scene, ground=kind) for kind in others]


def _direction(dice: Dice) -> tuple[Scene, list[Scene]]:
    scene = sample.one(dice, held=True)
    return scene, [scene.twin]


def _motion(dice: Dice) -> tuple[Scene, list[Scene]]:
    """Two pairs of a motion and its reverse, and one motion more: the right one is any of the five as often."""
    scene = sample.one(dice, held=True)
    event = scene.events[0]
    one, other, *_ = [pair for pair in dice.shuffled(MOTION_PAIRS) if event.action not in pair]
    wrong = [REVERSED[event.action], *one, dice.pick(other)] if dice.chance(0.8) else [*one, *other]
    return scene, [_with_events(scene, dataclasses.replace(event, action=motion)) for motion in wrong]


def _order(dice: Dice) -> tuple[Scene, list[Scene]]:
    scene = sample.turns(dice, held=True)
    return scene, [scene.twin]


def _order_of_three(dice: Dice) -> tuple[Scene, list[Scene]]:
    scene = sample.turns(dice, held=True, length=3, things=1)
    actions = [event.action for event in scene.events]
    wrong = []
    for order in dice.shuffled(list(itertools.permutations(actions))):
        if list(order) != actions:
            events = [dataclasses.replace(e, action=action) for e, action in zip(scene.events, order, strict=True)]
            wrong.append(_with_events(scene, *events))
    return scene, wrong


def _count(dice: Dice) -> tuple[Scene, list[Scene]]:
    scene = sample.repeated(dice, held=True)
    event = scene.events[0]
    wrong = [times for times in range(1, MOST_TIMES + 1) if times != event.times]
    return scene, [_with_events(scene, dataclasses.replace(event, times=times)) for times in wrong]


def _role(dice: Dice) -> tuple[Scene, list[Scene]]:
    scene = sample.together(dice, held=True, actions=ROLES)
    event = scene.events[0]
    return scene, [_with_events(scene, dataclasses.replace(event, actor=1, other=0))]


def _together(dice: Dice) -> tuple[Scene, list[Scene]]:
    scene = sample.together(dice, held=True)
    event = scene.events[0]
    wrong = [action for action in dice.shuffled(TOGETHER) if action != event.action]
    return scene, [_with_events(scene, dataclasses.replace(event, action=action)) for action in wrong]


def _binding(dice: Dice) -> tuple[Scene, list[Scene]]:
    """Which of two things does what: the motions change places, or the colours, or the shapes.

    Either thing may come first in a wrong sentence: else the right one would differ least from the others.
    """
    while True:
        scene = sample.two(dice, held=True)
        first, second = scene.things[:2]
        if first.colour != second.colour and first.shape != second.shape:
            break
    one, two = scene.events
    swapped = _with_events(
        scene, dataclasses.replace(one, action=two.action), dataclasses.replace(two, action=one.action)
    )
    colours = _replaced(_replaced(scene, 0, colour=second.colour), 1, colour=first.colour)
    shapes = _replaced(_replaced(scene, 0, shape=second.shape), 1, shape=first.shape)
    return scene, [_exchanged(wrong) if dice.chance(0.5) else wrong for wrong in (swapped, colours, shapes)]


def _exchanged(scene: Scene) -> Scene:
    """The same scene, the other one of its two things first."""
    first, second, *others = scene.things
    one, two = scene.events
    events = dataclasses.replace(two, actor=0), dataclasses.replace(one, actor=1)
    return dataclasses.replace(scene, things=(second, first, *others), events=events)


def _who(dice: Dice) -> tuple[Scene, list[Scene]]:
    """Which of two things has which of two episodes; their order stays."""
    scene = sample.turns(dice, held=True, things=2)
    one, two = scene.events
    return scene, [_with_events(scene, dataclasses.replace(one, actor=1), dataclasses.replace(two, actor=0))]


def _camera(dice: Dice) -> tuple[Scene, list[Scene]]:
    """Whether the thing moves or the camera does; in the picture the thing goes the same way."""
    still = dataclasses.replace(sample.one(dice, held=True, actions=("moves left", "moves right")), camera=0)
    still = dataclasses.replace(still, ground=dice.pick(("checkered", "speckled")))
    stands = _with_events(still, dataclasses.replace(still.events[0], action=STANDS))
    moves = [
        _with_events(still, dataclasses.replace(still.events[0], action=way)) for way in ("moves left", "moves right")
    ]
    pans = [dataclasses.replace(stands, camera=-1), dataclasses.replace(stands, camera=1)]
    options = dice.shuffled([stands, *moves, *pans])
    return options[0], options[1:]


@dataclasses.dataclass(frozen=True)
class Factor:
    """What the wrong sentences of a question differ in.

    Attributes:
      make: gives a scene and the wrong options.
      needs: "still", "order", "binding", or several of them, joined by "+".
      told: of size, texture and ground, what the sentences have to tell.
    """

    make: Callable[[Dice], tuple[Scene, list[Scene]]]
    needs: str
    told: str = ""


FACTORS = {
    "colour": Factor(_looks("colour", COLOURS), "still"),
    "shape": Factor(_looks("shape", SHAPES), "still"),
    "size": Factor(_looks("size", SIZES, _SAME_SIZE), "still", "sizes"),
    "texture": Factor(_looks("texture", TEXTURES), "still", "textures"),
    "ground": Factor(_ground, "still", "ground"),
    "direction": Factor(_direction, "order"),
    "motion": Factor(_motion, "order"),
    "order of two": Factor(_order, "order"),
    "order of three": Factor(_order_of_three, "order"),
    "count": Factor(_count, "order"),
    "camera": Factor(_camera, "order"),
    "binding": Factor(_binding, "binding"),
    "who of two": Factor(_who, "binding"),
    "role": Factor(_role, "order+binding"),
    "together": Factor(_together, "order+binding"),
}


def choice_of(dice: Dice, factor: str) -> Choice:
    """A question about a factor, on a combination of look and action that no training clip has.

    At most five options; fewer where the factor has fewer values.
    """
    about = FACTORS[factor]
    scene, wrong = about.make(dice)
    options = dice.shuffled([scene, *wrong[: _OPTIONS - 1]])
    wording = wording_of(dice)
    if about.told:
        wording = dataclasses.replace(wording, **{about.told: True})
    return Choice(factor, scene, tuple(options), options.index(scene), wording)
