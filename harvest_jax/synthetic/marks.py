"""Marks that tell in a single picture what a clip shows in time, as comics draw them.

A thing that moves, grows or turns has lines around it. What comes back to its rest has a sign above it, as often as it
happens; where two things happen in turn, dots under the signs count which is first. The camera has arrow heads in the
corners.
"""

import math
from collections.abc import Callable

from PIL import Image, ImageDraw

from harvest_jax.synthetic.scene import EPISODES, Event, Scene
from harvest_jax.synthetic.trajectory import State, camera_at

_Draw = Callable[..., None]
_WIDTH = 0.022  # of a line, in units of the picture's side
_SIGN = 0.075  # radius of a sign


class _Pen:
    """Lines on a picture, in units of its side, white on dark grounds and black on light ones."""

    def __init__(self, image: Image.Image, scene: Scene, camera: float):
        self._draw, self._side, self._camera = ImageDraw.Draw(image), image.width, camera
        self._ink = (0, 0, 0) if scene.ground == "light" else (255, 255, 255)
        self._width = max(1, round(_WIDTH * image.width))

    def _placed(self, points: list[tuple[float, float]], fixed: bool) -> list[tuple[float, float]]:
        shift = 0.0 if fixed else self._camera
        return [((x - shift) * self._side, y * self._side) for x, y in points]

    def line(self, *points: tuple[float, float], fixed: bool = False) -> None:
        self._draw.line(self._placed(list(points), fixed), fill=self._ink, width=self._width)

    def filled(self, *points: tuple[float, float], fixed: bool = False) -> None:
        self._draw.polygon(self._placed(list(points), fixed), fill=self._ink)

    def arc(self, x: float, y: float, radius: float, start: float, end: float) -> None:
        corners = self._placed([(x - radius, y - radius), (x + radius, y + radius)], fixed=False)
        self._draw.arc([*corners[0], *corners[1]], start, end, fill=self._ink, width=self._width)

    def dot(self, x: float, y: float) -> None:
        ((x, y),) = self._placed([(x, y)], fixed=False)
        r = self._width * 0.8
        self._draw.ellipse([x - r, y - r, x + r, y + r], fill=self._ink)

    def arrow(self, x: float, y: float, dx: float, dy: float, fixed: bool = False) -> None:
        """An arrow head at (x, y) that points to (dx, dy)."""
        self.filled((x + dx, y + dy), (x - dy * 0.7, y + dx * 0.7), (x + dy * 0.7, y - dx * 0.7), fixed=fixed)


def draw_marks(image: Image.Image, scene: Scene, states: list[State], time: float) -> None:
    """Draw the marks of all events of a scene.

    Args:
      image: its picture at `time`, square, of any size.
      scene: what is shown.
      states: of its things at that time.
      time: 0..1.
    """
    pen = _Pen(image, scene, camera_at(scene, time))
    in_turn = len(scene.events) > 1 and scene.events[0].action in EPISODES
    signs: dict[int, list[tuple[str, int]]] = {}  # of each thing: episodes, and which in the order they are
    for number, event in enumerate(scene.events):
        if event.other is not None:
            _pair(pen, event, states[event.actor], states[event.other])
        elif event.action in EPISODES:
            signs.setdefault(event.actor, []).extend([(event.action, number + 1 if in_turn else 0)] * event.times)
        else:
            _motion(pen, event.action, states[event.actor])
    for actor, row in signs.items():
        _signs(pen, row, states[actor])
    if scene.camera:
        for x in (0.1, 0.9):
            pen.arrow(x, 0.08, scene.camera * 0.06, 0.0, fixed=True)
            pen.arrow(x, 0.92, scene.camera * 0.06, 0.0, fixed=True)


def _motion(pen: _Pen, action: str, state: State) -> None:
    x, y, r = state.x, state.y, max(state.radius, 0.08)
    if action.startswith("moves"):
        dx, dy = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}[action.split()[1]]
        for side in (-0.6, 0.0, 0.6):  # speed lines behind it
            start = (x + r * (side * dy - 1.25 * dx), y + r * (side * dx - 1.25 * dy))
            pen.line(start, (start[0] - 0.8 * r * dx, start[1] - 0.8 * r * dy))
    elif action == "grows":
        for k in range(8):
            c, s = math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)
            pen.line((x + 1.3 * r * c, y + 1.3 * r * s), (x + 1.75 * r * c, y + 1.75 * r * s))
    elif action == "shrinks":
        pen.arc(x, y, 1.5 * r, 0.0, 360.0)
    elif action.startswith("turns"):
        side = 1 if action == "turns clockwise" else -1
        pen.arc(x, y, 1.35 * r, *((-90.0, 0.0) if side > 0 else (-180.0, -90.0)))
        pen.arrow(x + side * 1.35 * r, y, 0.0, 0.45 * r)
    elif action == "appears":
        for k in (-1, 0, 1):
            pen.line((x + 0.5 * k * r, y - 1.3 * r), (x + 0.9 * k * r, y - 1.9 * r))
    elif action == "vanishes":
        pen.line((x - 1.1 * r, y - 1.1 * r), (x + 1.1 * r, y + 1.1 * r))
        pen.line((x - 1.1 * r, y + 1.1 * r), (x + 1.1 * r, y - 1.1 * r))


def _signs(pen: _Pen, row: list[tuple[str, int]], state: State) -> None:
    """The signs of episodes side by side above a thing, or below it where there is no room."""
    above = state.y - state.radius - 2.2 * _SIGN
    y = above if above > 1.5 * _SIGN else state.y + state.radius + 1.6 * _SIGN
    for number, (episode, turn) in enumerate(row):
        x = min(0.9, max(0.1, state.x)) + (number - (len(row) - 1) / 2) * 2.5 * _SIGN
        _sign(pen, episode, x, y)
        for dot in range(turn):
            pen.dot(x + (dot - (turn - 1) / 2) * 0.05, y + 1.45 * _SIGN)


def _sign(pen: _Pen, episode: str, x: float, y: float) -> None:
    r = _SIGN
    if episode == "jumps":  # up and back: a hill
        pen.line((x - r, y + r), (x, y - r), (x + r, y + r))
    elif episode == "dips":
        pen.line((x - r, y - r), (x, y + r), (x + r, y - r))
    elif episode == "swells":
        pen.arc(x, y, r, 0.0, 360.0)
        pen.dot(x, y)
    elif episode == "blinks":
        pen.line((x - r, y), (x + r, y))
        pen.line((x, y - r), (x, y + r))
    else:  # tilts
        pen.line((x - r, y + r), (x + r, y - r))
        pen.line((x - r, y + r), (x + r, y + r))


def _pair(pen: _Pen, event: Event, actor: State, other: State) -> None:
    """The marks of what two things do together."""
    way = 1.0 if event.to_right else -1.0
    if event.action == "chases":
        _motion(pen, "moves right" if event.to_right else "moves left", actor)
        _motion(pen, "moves right" if event.to_right else "moves left", other)
    elif event.action == "hits":  # speed lines behind who comes, a burst where they touch
        _motion(pen, "moves right" if event.to_right else "moves left", actor)
        x, y = other.x - way * (other.radius + 0.04), other.y
        for k in range(6):
            c, s = math.cos(k * math.pi / 3), math.sin(k * math.pi / 3)
            pen.line((x + 0.03 * c, y + 0.03 * s), (x + 0.08 * c, y + 0.08 * s))
    elif event.action == "swaps with":
        x, y = (actor.x + other.x) / 2, (actor.y + other.y) / 2
        for side in (-1.0, 1.0):
            pen.line((x - 0.12, y + side * 0.3), (x + 0.12, y + side * 0.3))
            pen.arrow(x + side * 0.12, y + side * 0.3, side * 0.06, 0.0)
    else:
        inward = 1.0 if event.action == "meets" else -1.0
        left, right = sorted((actor, other), key=lambda state: state.x)
        for state, side in ((left, 1.0), (right, -1.0)):
            y = state.y - state.radius - 0.09
            pen.line((state.x - 0.06, y), (state.x + 0.06, y))
            pen.arrow(state.x + inward * side * 0.06, y, inward * side * 0.06, 0.0)
