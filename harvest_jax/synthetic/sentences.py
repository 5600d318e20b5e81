"""Captions of scenes, from a grammar with several wordings.

A `Wording` fixes every choice of words, so that two scenes under one wording differ in the words that say what is
different, and in no others.
"""

import dataclasses

from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.scene import EPISODES, STANDS, TOGETHER, Event, Scene, Thing

TIMES = ("once", "twice", "three times")
_VERBS: dict[str, tuple[str, ...]] = {
    "moves left": ("moves left", "goes to the left", "slides left"),
    "moves right": ("moves right", "goes to the right", "slides right"),
    "moves up": ("moves up", "goes up", "rises"),
    "moves down": ("moves down", "goes down", "sinks"),
    "grows": ("grows", "gets bigger", "becomes larger"),
    "shrinks": ("shrinks", "gets smaller", "becomes tinier"),
    "turns clockwise": ("turns clockwise", "rotates clockwise", "spins clockwise"),
    "turns counterclockwise": ("turns counterclockwise", "rotates counterclockwise", "spins counterclockwise"),
    "appears": ("appears", "shows up", "comes into view"),
    "vanishes": ("vanishes", "disappears", "goes out of view"),
    "jumps": ("jumps", "hops", "leaps"),
    "dips": ("dips", "ducks", "bobs down"),
    "swells": ("swells", "puffs up", "inflates"),
    "blinks": ("blinks", "flickers", "goes off and on"),
    "tilts": ("tilts", "leans over", "tips over"),
    STANDS: ("stands still", "stays where it is", "does not move"),
}
_PAIRS: dict[str, tuple[str, ...]] = {  # a: the actor, b: the other
    "chases": ("{a} chases {b}", "{a} runs after {b}", "{b} is chased by {a}"),
    "hits": ("{a} hits {b}", "{a} bumps into {b}", "{b} is hit by {a}"),
    "swaps with": ("{a} swaps places with {b}", "{a} and {b} trade places", "{a} and {b} change places"),
    "meets": ("{a} meets {b}", "{a} and {b} come together", "{a} and {b} approach each other"),
    "parts from": ("{a} parts from {b}", "{a} and {b} move apart", "{a} and {b} separate"),
}
_WHILE = ("{a} while {b}", "{a} and {b}", "as {b}, {a}")
_THEN = ("{a}, then {b}", "first {a}, then {b}", "{b} after {a}", "{a} before {b}")
_CAMERA = ("the camera pans {way}", "the view moves {way}", "the camera turns {way}")


@dataclasses.dataclass(frozen=True)
class Wording:
    """One way to say things.

    Attributes:
      verb, pair, joint, camera: numbers of the phrases to take.
      sizes, textures, ground: whether these are told.
    """

    verb: int = 0
    pair: int = 0
    joint: int = 0
    camera: int = 0
    sizes: bool = False
    textures: bool = False
    ground: bool = False


def wording_of(dice: Dice) -> Wording:
    """A random wording."""
    verb, pair, joint, camera = dice.number(3), dice.number(3), dice.number(12), dice.number(3)
    return Wording(verb, pair, joint, camera, dice.chance(0.4), dice.chance(0.4), dice.chance(0.3))


def caption(scene: Scene, wording: Wording) -> str:
    """A sentence about a scene; the things that stand around have no part in it."""
    text = _events(scene, wording)
    if scene.camera:
        way = "left" if scene.camera < 0 else "right"
        text += " while " + _CAMERA[wording.camera % len(_CAMERA)].format(way=way)
    if wording.ground:
        text += f" on a {scene.ground} ground"
    return text


def looks(scene: Scene, wording: Wording) -> str:
    """What a single picture of a scene shows: the named things, and the ground if the wording tells it."""
    text = " and ".join(name_of(thing, wording) for thing in scene.things[: scene.named])
    return text + (f" on a {scene.ground} ground" if wording.ground else "")


def name_of(thing: Thing, wording: Wording, article: str = "a") -> str:
    """A thing by its look, and its size and texture if the wording tells them."""
    words = [article, thing.size if wording.sizes else "", thing.texture if wording.textures else ""]
    return " ".join(word for word in (*words, *thing.look) if word)


def verb_of(action: str, wording: Wording) -> str:
    """What one thing does, in the third person."""
    return _VERBS[action][wording.verb % len(_VERBS[action])]


def _events(scene: Scene, wording: Wording) -> str:
    event = scene.events[0]
    if event.action in TOGETHER and event.other is not None:
        a, b = (name_of(scene.things[number], wording) for number in (event.actor, event.other))
        forms = _PAIRS[event.action]
        return forms[wording.pair % len(forms)].format(a=a, b=b)
    if len(scene.events) == 1:
        return _clause(scene, event, wording, set())
    if all(event.begin == 0.0 for event in scene.events):
        form = _WHILE[wording.joint % len(_WHILE)]
        return form.format(a=_clause(scene, event, wording, set()), b=_clause(scene, scene.events[1], wording, set()))
    return _turns(scene, wording)


def _turns(scene: Scene, wording: Wording) -> str:
    """Events one after the other; a thing that was named before is "it", or "the ..." if there are two."""
    form = _THEN[wording.joint % len(_THEN)] if len(scene.events) == 2 else "{a}, then {b}"
    told: set[int] = set()
    first_told = 0 if form.index("{a}") < form.index("{b}") else 1
    clauses: dict[int, str] = {}
    for number in sorted(range(len(scene.events)), key=lambda number: (number != first_told, number)):
        clauses[number] = _clause(scene, scene.events[number], wording, told)
        told.add(scene.events[number].actor)
    text = form.format(a=clauses[0], b=clauses[1])
    return text + "".join(f", then {clauses[number]}" for number in range(2, len(scene.events)))


def _clause(scene: Scene, event: Event, wording: Wording, told: set[int]) -> str:
    thing = scene.things[event.actor]
    if event.actor not in told:
        who = name_of(thing, wording)
    else:
        who = (
            "it" if scene.named == 1 else f"the {thing.shape}" if _shape_tells(scene) else f"the {' '.join(thing.look)}"
        )
    times = f" {TIMES[event.times - 1]}" if event.times > 1 or scene_counts(scene) else ""
    return f"{who} {verb_of(event.action, wording)}{times}"


def _shape_tells(scene: Scene) -> bool:
    shapes = [thing.shape for thing in scene.things[: scene.named]]
    return len(set(shapes)) == len(shapes)


def scene_counts(scene: Scene) -> bool:
    """Whether a scene is about how often something happens: a single episode over the whole clip."""
    return len(scene.events) == 1 and scene.events[0].action in EPISODES
