"""Questions about scenes, whose answers are words of the captions: what, who, where, how many times, what first."""

import dataclasses
from collections.abc import Callable

from harvest_jax.synthetic import sample
from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.scene import ACTIONS, COLOURS, EPISODES, ROLES, SHAPES, Scene
from harvest_jax.synthetic.sentences import TIMES, Wording, name_of, verb_of, wording_of


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a clip.

    Attributes:
      kind: one of QUESTIONS.
      scene: what the clip shows.
      text: the question.
      answer: one word, or "three times".
    """

    kind: str
    scene: Scene
    text: str
    answer: str


def _colour(dice: Dice, wording: Wording) -> tuple[Scene, str, str]:
    scene = sample.one(dice, held=True)
    return scene, f"what colour is the thing that {verb_of(scene.action, wording)}?", scene.things[0].colour


def _shape(dice: Dice, wording: Wording) -> tuple[Scene, str, str]:
    while True:  # of two things, so that the motion tells which one is meant
        scene = sample.two(dice, held=True)
        if scene.things[0].shape != scene.things[1].shape:
            return scene, f"which shape {verb_of(scene.action, wording)}?", scene.things[0].shape


def _where(dice: Dice, wording: Wording) -> tuple[Scene, str, str]:
    scene = sample.one(dice, held=True, actions=("moves left", "moves right", "moves up", "moves down"))
    return scene, f"where does {name_of(scene.things[0], wording, 'the')} go?", scene.action.split()[1]


def _count(dice: Dice, wording: Wording) -> tuple[Scene, str, str]:
    scene = sample.repeated(dice, held=True)
    event = scene.events[0]
    who = name_of(scene.things[0], wording, "the")
    return scene, f"{who} {verb_of(event.action, wording)} how many times?", TIMES[event.times - 1]


def _first(dice: Dice, wording: Wording) -> tuple[Scene, str, str]:
    scene = sample.turns(dice, held=True, things=1)
    return scene, f"what does {name_of(scene.things[0], wording, 'the')} do first?", scene.action


def _who_first(dice: Dice, wording: Wording) -> tuple[Scene, str, str]:
    while True:
        scene = sample.turns(dice, held=True, things=2)
        first, second = scene.things[:2]
        if first.shape != second.shape:
            names = [name_of(thing, wording, "the") for thing in dice.shuffled([first, second])]
            return scene, f"which one begins, {names[0]} or {names[1]}?", first.shape


def _role(dice: Dice, wording: Wording) -> tuple[Scene, str, str]:
    while True:
        scene = sample.together(dice, held=True, actions=ROLES)
        actor, other = scene.things[:2]
        if actor.shape != other.shape:
            return scene, f"what {scene.action} {name_of(other, wording, 'the')}?", actor.shape


QUESTIONS: dict[str, Callable[[Dice, Wording], tuple[Scene, str, str]]] = {
    "colour of what moves": _colour,
    "shape of what moves": _shape,
    "where it goes": _where,
    "how many times": _count,
    "what first": _first,
    "which one first": _who_first,
    "who does it": _role,
}
ANSWERS = (*COLOURS, *SHAPES, "left", "right", "up", "down", *TIMES, *EPISODES)


def question_of(dice: Dice, kind: str) -> Question:
    """A question of a kind, on a combination of look and action that no training clip has."""
    return Question(kind, *QUESTIONS[kind](dice, wording_of(dice)))


def action_scene(dice: Dice, action: str, held: bool = True) -> Scene:
    """A scene in which one thing, or two things together, show this action and no other."""
    if action in EPISODES:
        scene = sample.repeated(dice, held)
        while scene.action != action:
            scene = sample.repeated(dice, held)
        return scene
    if ACTIONS.index(action) >= ACTIONS.index("chases"):
        return sample.together(dice, held, actions=(action,))
    return sample.one(dice, held, actions=(action,))
