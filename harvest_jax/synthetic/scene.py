"""What a clip shows: things, what happens to them and when, the camera and the ground.

Motions come in pairs: each is the other one played backwards. Episodes return to where they began, so that two episodes
in the other order show the same pictures. What two things do together has roles: played backwards the roles change.
"""

import dataclasses
import functools
from typing import Any, Literal

COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle", "star", "heart", "bar")
TEXTURES = ("plain", "striped", "dotted")
SIZES = ("small", "big")
GROUNDS = ("dark", "light", "checkered", "speckled")
MOTION_PAIRS = (
    ("moves left", "moves right"),
    ("moves up", "moves down"),
    ("grows", "shrinks"),
    ("turns clockwise", "turns counterclockwise"),
    ("appears", "vanishes"),
)
MOTIONS = tuple(motion for pair in MOTION_PAIRS for motion in pair)
REVERSED = {a: b for pair in MOTION_PAIRS for a, b in (pair, pair[::-1])}
EPISODES = ("jumps", "dips", "swells", "blinks", "tilts")
TOGETHER = ("chases", "hits", "swaps with", "meets", "parts from")
ROLES = ("chases", "hits")  # who does it to whom is seen in the order of time alone
ACTIONS = (*MOTIONS, *EPISODES, *TOGETHER)
MOST_TIMES = 3  # repetitions that eight frames can show
STANDS = "stands still"


@dataclasses.dataclass(frozen=True)
class Thing:
    """One thing, at rest.

    Attributes:
      colour, shape, texture, size: words of the lists above.
      x, y: centre of its path in units of the picture's side.
      angle: degrees, clockwise as seen.
    """

    colour: str
    shape: str
    texture: str
    size: str
    x: float
    y: float
    angle: float = 0.0

    @property
    def look(self) -> tuple[str, str]:
        """What tells it from every other thing of its scene: colour and shape."""
        return self.colour, self.shape


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happens to a thing.

    Attributes:
      action: one of ACTIONS, or STANDS.
      actor: number of the thing.
      other: number of the second thing of what two do together; else None.
      begin, end: part of the clip, 0..1.
      times: repetitions of an episode.
      to_right: of two things, whether the actor goes to the right (chases, hits), or begins there (the others).
    """

    action: str
    actor: int = 0
    other: int | None = None
    begin: float = 0.0
    end: float = 1.0
    times: int = 1
    to_right: bool = True


@dataclasses.dataclass(frozen=True)
class Scene:
    """The content of one clip.

    Attributes:
      things: those that the caption names come first, in the order of `events`.
      events: in the order in which they begin.
      named: how many of the things the caption names; the others stand around.
      ground: one of GROUNDS.
      shade: 0..1, how bright the ground is within its kind.
      camera: -1 pans to the left, 1 to the right, 0 stands.
      grain: seed of the ground's speckles.
    """

    things: tuple[Thing, ...]
    events: tuple[Event, ...]
    named: int
    ground: str
    shade: float
    camera: Literal[-1, 0, 1] = 0
    grain: int = 0

    @property
    def twin(self) -> "Scene":
        """The scene with the same pictures in reverse order."""
        events = [_reversed(event) for event in self.events]
        camera: dict[int, Literal[-1, 0, 1]] = {-1: 1, 0: 0, 1: -1}
        ordered = tuple(sorted(events, key=lambda event: event.begin))
        return dataclasses.replace(self, events=ordered, camera=camera[self.camera])

    @property
    def action(self) -> str:
        """What happens first."""
        return self.events[0].action


def _reversed(event: Event) -> Event:
    times: dict[str, Any] = {"begin": round(1.0 - event.end, 9), "end": round(1.0 - event.begin, 9)}
    if event.action in ROLES and event.other is not None:
        return dataclasses.replace(event, actor=event.other, other=event.actor, to_right=not event.to_right, **times)
    if event.action == "swaps with":
        times["to_right"] = not event.to_right
    names = REVERSED | {"meets": "parts from", "parts from": "meets"}
    return dataclasses.replace(event, action=names.get(event.action, event.action), **times)


# Actions that are held out together: a motion with its reverse, what two things do with its reverse, all episodes.
_CLASSES = [*MOTION_PAIRS, EPISODES, ("chases",), ("hits",), ("swaps with",), ("meets", "parts from")]
_CLASS = {action: number for number, actions in enumerate(_CLASSES) for action in actions}


@functools.cache
def held_out(colour: str, shape: str, action: str) -> bool:
    """Whether a thing of this look never does this in training: a third of all combinations, twins alike.

    Training has every word and every pair of words of a combination.
    """
    return (COLOURS.index(colour) + SHAPES.index(shape) + _CLASS[action]) % 3 == 0
