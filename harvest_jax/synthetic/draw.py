"""Pictures of a scene, and the marks that show in a single picture what a clip shows in time."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageDraw, ImageEnhance

from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.marks import draw_marks
from harvest_jax.synthetic.real import EXTENT, PHOTOGRAPHS, Part, digit_of, photograph_of
from harvest_jax.synthetic.scene import Scene, Thing
from harvest_jax.synthetic.trajectory import State, camera_at, states_at

SIZE = 64  # pixels, square, unless another is asked for
_SUPERSAMPLING = 3
_MARGIN = 0.25  # of the ground beyond each side of the picture, for the camera
_COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (160, 60, 190),
}
_FOOT = 0.35  # below it a thing is pale, in units of its radius, y down: a single patch shows which way it is turned
_FOOT_OF_DIGIT = [(-2.0, 0.55), (2.0, 0.55), (2.0, 2.0), (-2.0, 2.0)]
_REACH = 1.32  # of an outline and of the patterns that it cuts, from the middle
_ROUND = [2 * math.pi * k / 40 for k in range(40)]
_OUTLINES: dict[str, list[tuple[float, float]]] = {  # around the origin, radius about 1, y down
    "circle": [(math.sin(t), math.cos(t)) for t in _ROUND],
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -1.1), (0.95, 0.8), (-0.95, 0.8)],
    "star": [
        (
            (1.15 if k % 2 == 0 else 0.48) * math.sin(math.pi * k / 5),
            -(1.15 if k % 2 == 0 else 0.48) * math.cos(math.pi * k / 5),
        )
        for k in range(10)
    ],
    "heart": [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15)
        for t in _ROUND
    ],
    "bar": [(-0.4, -1.1), (0.4, -1.1), (0.4, 1.1), (-0.4, 1.1)],
}
_STRIPES = [[(x - 0.13, -1.3), (x + 0.13, -1.3), (x + 0.13, 1.3), (x - 0.13, 1.3)] for x in (-0.7, -0.1, 0.5)]


def _dots(*places: tuple[float, float]) -> list[list[tuple[float, float]]]:
    return [[(x + 0.17 * px, y + 0.17 * py) for px, py in _OUTLINES["circle"][::4]] for x, y in places]


_DOTS = _dots((-0.45, -0.4), (0.1, -0.65), (0.45, -0.1), (-0.15, 0.05), (-0.5, 0.5), (0.3, 0.5))
_PATTERNS = {"plain": [], "striped": _STRIPES, "dotted": _DOTS}
# A digit's lines are thin and mostly upright: stripes across them, and as many dots as hit all of them.
_PATTERNS_OF_DIGITS = {
    "striped": [
        [(-2.0, y - 0.11), (2.0, y - 0.11), (2.0, y + 0.11), (-2.0, y + 0.11)] for y in (-1.1, -0.6, -0.1, 0.4)
    ],
    "dotted": _dots(
        *((x + 0.25 * (row % 2), 0.45 * row - 1.1) for row in range(4) for x in (-1.0, -0.5, 0.0, 0.5, 1.0))
    ),
}


def render_clip(
    scene: Scene, num_frames: int, size: int = SIZE, real: Part | None = None
) -> UInt8[np.ndarray, "t s s 3"]:
    """The frames of a clip at the middles of equal parts of it: uint8 RGB; the twin has the same ones backwards.

    Args:
      scene: what they show.
      num_frames: how many.
      size: of their sides, pixels.
      real: None: shapes on drawn grounds; else handwritten digits on photographs, those of this part.
    """
    ground = _ground(scene, size, real)
    return np.stack([_draw(scene, (t + 0.5) / num_frames, ground, size, real) for t in range(num_frames)])


def render_still(
    scene: Scene, time: float, marks: bool, size: int = SIZE, real: Part | None = None
) -> UInt8[np.ndarray, "s s 3"]:
    """One picture at a time in 0..1: uint8 RGB. With marks, what happens can be told from it, and nothing is hidden."""
    return _draw(scene, time, _ground(scene, size, real), size, real, marks)


def _draw(
    scene: Scene, time: float, ground: Image.Image, size: int, real: Part | None, marks: bool = False
) -> UInt8[np.ndarray, "s s 3"]:
    camera, scale = camera_at(scene, time), size * _SUPERSAMPLING
    left = round((_MARGIN + camera) * scale)
    top = round(_MARGIN * scale)
    image = ground.crop((left, top, left + scale, top + scale))
    states = states_at(scene, time)
    for number, state in reversed(list(enumerate(states))):  # what is named lies on top
        if state.visible or marks:
            thing = scene.things[number]
            digit = digit_of(thing.shape, real, Dice("digit", scene.grain, number)) if real else None
            _draw_thing(image, thing, state, camera, digit)
    if marks:
        draw_marks(image, scene, states, time)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def _draw_thing(
    image: Image.Image, thing: Thing, state: State, camera: float, digit: tuple[Image.Image, Image.Image] | None
) -> None:
    """Draw a thing as its shape, or as the ink and the rim of a digit; in masks as large as it needs."""
    radius, turn = state.radius * image.width, math.radians(state.angle)
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    reach = math.ceil(radius * (_REACH if digit is None else EXTENT * math.sqrt(2))) + 1
    x, y = (state.x - camera) * image.width, state.y * image.width
    left, top = int(x) - reach, int(y) - reach
    around = (left, top, left + 2 * reach + 1, top + 2 * reach + 1)

    def filled(*outlines: Sequence[tuple[float, float]]) -> Image.Image:
        mask = Image.new("L", image.size)
        for outline in outlines:
            points = [(x + cos * px - sin * py, y + sin * px + cos * py) for px, py in outline]
            ImageDraw.Draw(mask).polygon(points, fill=255)
        return mask.crop(around)

    def placed(bitmap: Image.Image) -> Image.Image:
        half = bitmap.width / 2
        a, b = (half / EXTENT * part / radius**2 for part in (cos, sin))
        dx, dy = x - left, y - top
        inverse = (a, b, half - a * dx - b * dy, -b, a, half + b * dx - a * dy)
        size = (around[2] - left, around[3] - top)
        return bitmap.transform(size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)

    colour = _COLOURS[thing.colour]
    dark, pale = tuple(c // 4 for c in colour), tuple((c + 3 * 255) // 4 for c in colour)
    pattern = dark
    if digit is None:
        body, foot, patterns = filled(_OUTLINES[thing.shape]), filled(_foot(thing.shape)), _PATTERNS
    else:
        image.paste((0, 0, 0), around, placed(digit[1]))
        body, patterns = placed(digit[0]), _PATTERNS_OF_DIGITS
        foot = ImageChops.darker(body, filled(_FOOT_OF_DIGIT))
        pattern = pale if thing.texture == "dotted" else dark
    image.paste(colour, around, body)
    if thing.texture != "plain":
        image.paste(pattern, around, ImageChops.darker(body, filled(*patterns[thing.texture])))
    image.paste(pale, around, foot)


def part_below(outline: list[tuple[float, float]], line: float) -> list[tuple[float, float]]:
    """The part of a polygon whose y is `line` or more; y points down."""
    part = []
    for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
        if y0 >= line:
            part.append((x0, y0))
        if (y0 >= line) != (y1 >= line):
            part.append((x0 + (x1 - x0) * (line - y0) / (y1 - y0), line))
    return part


@functools.cache
def _foot(shape: str) -> list[tuple[float, float]]:
    """The part of an outline below _FOOT."""
    return part_below(_OUTLINES[shape], _FOOT)


def _ground(scene: Scene, size: int, real: Part | None) -> Image.Image:
    """The ground, larger than the picture by _MARGIN on each side."""
    scale = size * _SUPERSAMPLING
    side = round(scale * (1 + 2 * _MARGIN))
    if real and scene.ground in PHOTOGRAPHS:
        photograph = photograph_of(scene.ground, real, Dice("photograph", scene.grain), side)
        return ImageEnhance.Brightness(photograph).enhance(0.45 + 0.25 * scene.shade)
    grey = round({"dark": 25, "light": 185, "checkered": 95, "speckled": 85}[scene.ground] + 45 * scene.shade)
    if scene.ground == "checkered":
        cells = np.arange(side) * 6 // scale
        values = np.where(np.add.outer(cells, cells) % 2, grey, grey + 50)
    elif scene.ground == "speckled":
        dice = Dice("grain", scene.grain)
        across = round(32 * (1 + 2 * _MARGIN))
        noise = np.array([dice.number(90) for _ in range(across * across)]).reshape(across, across)
        cells = np.arange(side) * 32 // scale
        values = grey + noise[np.ix_(cells, cells)]
    else:
        values = np.full((side, side), grey)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
