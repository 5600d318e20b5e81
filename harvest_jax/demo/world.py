"""The generated clips and pictures: one coloured shape that moves, grows, turns or blinks, on a plain ground.

Motions come in pairs: each is the other played backwards. Every clip has a twin: the same frames played backwards, with
the caption of the other motion. A model that averages single frames gets the same frames of both and can only guess.

A *posed* picture has marks as in a comic (speed lines, ticks, arcs, rays) that show the motion. The image model is
trained on such pictures; the clips have no marks. Each shape has a pale foot, so that a single patch shows its
orientation: without it, turning was not learned in 4,000 steps (docs/decisions.md).
"""

import dataclasses
import itertools
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from harvest_jax.synthetic.draw import part_below

SIZE = 64  # pixels, square
FRAMES = 16  # of a clip

_FOOT = 0.15  # y below which a shape is pale, in units of its radius, y down
_TURNING_SIZE = 1.4  # size of turning shapes relative to the others, so that the foot is larger than two patches

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
}
SHAPES = ("triangle", "bar", "heart")
GROUNDS = ((35, 35, 40), (120, 120, 120), (210, 210, 205))  # dark, middle, light; captions do not name them
MOTION_PAIRS = (
    ("moves left", "moves right"),
    ("moves up", "moves down"),
    ("grows", "shrinks"),
    ("turns clockwise", "turns counterclockwise"),
    ("blinks on", "blinks off"),
)
MOTIONS = tuple(motion for pair in MOTION_PAIRS for motion in pair)
REVERSED = {a: b for pair in MOTION_PAIRS for a, b in (pair, pair[::-1])}

_SUPERSAMPLING = 3
_OUTLINES = {  # polygons around the origin, of radius about 1, y down
    "triangle": [(0.0, -1.0), (0.75, 0.75), (-0.75, 0.75)],
    "bar": [(-0.4, -1.0), (0.4, -1.0), (0.4, 1.0), (-0.4, 1.0)],
    "heart": [
        (
            0.95 * math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in np.linspace(0, 2 * math.pi, 40, endpoint=False)
    ],
}


@dataclasses.dataclass(frozen=True)
class Scene:
    """The content of one clip: the shape, its motion, and its place."""

    color: str
    shape: str
    motion: str
    ground: tuple[int, int, int]
    x: float  # centre of the path, in units of the picture's side
    y: float
    size: float  # radius at rest, same units
    angle: float  # degrees at rest

    @property
    def caption(self) -> str:
        """The caption, such as "a red heart grows"."""
        return f"a {self.color} {self.shape} {self.motion}"

    @property
    def twin(self) -> "Scene":
        """The scene with the same frames in reverse order: the opposite motion."""
        return dataclasses.replace(self, motion=REVERSED[self.motion])


def held_out(color: str, shape: str, motion: str) -> bool:
    """Whether a combination is in no training: a third of them. Training has every word and every pair of words."""
    pair = next(index for index, pair in enumerate(MOTION_PAIRS) if motion in pair)
    return (list(COLORS).index(color) + SHAPES.index(shape) + pair) % len(SHAPES) == 0


def combinations(held: bool) -> list[tuple[str, str, str]]:
    """(color, shape, motion) of the training clips (held=False) or of the test clips; twins are in the same set."""
    every = itertools.product(COLORS, SHAPES, MOTIONS)
    return [combination for combination in every if held_out(*combination) == held]


def random_scene(rng: np.random.Generator, color: str, shape: str, motion: str) -> Scene:
    """A scene of this caption; ground, place, size and angle are random."""
    return Scene(
        color=color,
        shape=shape,
        motion=motion,
        ground=GROUNDS[rng.integers(len(GROUNDS))],
        x=float(rng.uniform(0.42, 0.58)),
        y=float(rng.uniform(0.42, 0.58)),
        size=float(rng.uniform(0.17, 0.23)),
        angle=float(rng.uniform(-12, 12)),
    )


@dataclasses.dataclass(frozen=True)
class _State:
    """The shape in one frame; lengths in units of the picture's side, the angle in degrees."""

    x: float
    y: float
    size: float
    angle: float
    visible: bool


def _state(scene: Scene, time: float) -> _State:
    """The scene at `time` in 0..1; the opposite motion has the same state at 1 - time."""
    pair = next(pair for pair in MOTION_PAIRS if scene.motion in pair)
    if scene.motion == pair[0]:
        time = 1.0 - time  # the first motion of each pair is the second one backwards
    swing = 2.0 * time - 1.0  # -1..1
    x, y, size, angle, visible = scene.x, scene.y, scene.size, scene.angle, True
    if pair[1] == "moves right":
        x += 0.24 * swing
    elif pair[1] == "moves down":
        y += 0.24 * swing
    elif pair[1] == "shrinks":
        size *= 1.6 ** (-swing)
    elif pair[1] == "turns counterclockwise":
        angle -= 80.0 * swing
        size *= _TURNING_SIZE
    else:
        visible = time < 0.5
    return _State(x, y, size, angle, visible)


def _draw(scene: Scene, state: _State, marks: bool) -> UInt8[np.ndarray, "64 64 3"]:
    scale = SIZE * _SUPERSAMPLING
    image = Image.new("RGB", (scale, scale), scene.ground)
    draw = ImageDraw.Draw(image)
    if state.visible:
        turn = math.radians(state.angle)
        cos, sin = math.cos(turn) * state.size * scale, math.sin(turn) * state.size * scale

        def placed(outline: list[tuple[float, float]]) -> list[tuple[float, float]]:
            return [
                (state.x * scale + cos * px - sin * py, state.y * scale + sin * px + cos * py) for px, py in outline
            ]

        color = COLORS[scene.color]
        draw.polygon(placed(_OUTLINES[scene.shape]), fill=color)
        draw.polygon(placed(part_below(_OUTLINES[scene.shape], _FOOT)), fill=tuple((c + 2 * 255) // 3 for c in color))
    if marks:
        _draw_marks(draw, scene, state, scale)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def _draw_marks(draw: ImageDraw.ImageDraw, scene: Scene, state: _State, scale: int) -> None:
    """Draw the marks of the motion, white on dark grounds and black on light ones."""
    ink = (255, 255, 255) if sum(scene.ground) < 480 else (0, 0, 0)
    width = round(0.035 * scale)
    cx, cy, r = state.x * scale, state.y * scale, max(state.size, 0.12) * scale

    def line(x0: float, y0: float, x1: float, y1: float) -> None:
        draw.line([(cx + x0 * r, cy + y0 * r), (cx + x1 * r, cy + y1 * r)], fill=ink, width=width)

    motion = scene.motion
    if motion.startswith("moves"):
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[motion.split()[1]]
        for offset in (-0.6, 0.0, 0.6):  # speed lines behind the shape
            line(-1.2 * dx + offset * dy, -1.2 * dy + offset * dx, -1.9 * dx + offset * dy, -1.9 * dy + offset * dx)
    elif motion == "grows":
        for k in range(8):  # ticks that point away
            c, s = math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)
            line(1.3 * c, 1.3 * s, 1.75 * c, 1.75 * s)
    elif motion == "shrinks":
        draw.ellipse([cx - 1.5 * r, cy - 1.5 * r, cx + 1.5 * r, cy + 1.5 * r], outline=ink, width=width)
    elif motion.startswith("turns"):
        side = 1 if motion == "turns clockwise" else -1  # a quarter of a circle with an arrow head
        box = [cx - 1.2 * r, cy - 1.2 * r, cx + 1.2 * r, cy + 1.2 * r]
        draw.arc(box, -80 if side > 0 else -180, 0 if side > 0 else -100, fill=ink, width=width)
        tip = 1.2 * side
        draw.polygon([(cx + (tip + d) * r, cy + e * r) for d, e in ((-0.35, -0.1), (0.35, -0.1), (0.0, 0.4))], fill=ink)
    elif motion == "blinks on":
        for k in (-1, 0, 1):  # rays above
            line(0.5 * k, -1.3, 0.9 * k, -1.9)
    else:
        line(-1.2, -1.2, 1.2, 1.2)  # crossed out
        line(-1.2, 1.2, 1.2, -1.2)


def render_clip(scene: Scene, num_frames: int = FRAMES) -> UInt8[np.ndarray, "t 64 64 3"]:
    """The frames of a clip, without marks: uint8 RGB [num_frames, 64, 64, 3]."""
    return np.stack([_draw(scene, _state(scene, (t + 0.5) / num_frames), marks=False) for t in range(num_frames)])


def render_still(scene: Scene, time: float, posed: bool) -> UInt8[np.ndarray, "64 64 3"]:
    """One picture at `time` in 0..1, with the marks of motion if `posed`: uint8 RGB [64, 64, 3]."""
    state = _state(scene, time)
    return _draw(scene, dataclasses.replace(state, visible=state.visible or posed), marks=posed)
