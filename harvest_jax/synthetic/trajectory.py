"""Where the things of a scene are at a time, and what can be seen of them."""

import dataclasses
import math

from harvest_jax.synthetic.scene import Event, Scene, Thing

_RADIUS = {"small": 0.09, "big": 0.15}
_STEP = 0.12  # half of a way that a thing moves, and of the camera's: so that the way alone does not tell them apart
_BUMP = 0.16  # height of a jump
_TURN = 80.0  # degrees to both sides
_TILT = 70.0
_GROWTH = 1.55
_FAR = 0.32  # of two things that come or go, from the point between them
_HALF_WIDTH = {"circle": 1.0, "square": 0.85, "triangle": 0.8, "star": 0.95, "heart": 1.0, "bar": 0.4}  # of the radius
_BEHIND = 0.04  # gap between two of which one chases the other


@dataclasses.dataclass(frozen=True)
class State:
    """A thing at one time, relative to the ground; lengths in units of the picture's side, the angle in degrees."""

    x: float
    y: float
    radius: float
    angle: float
    visible: bool


def camera_at(scene: Scene, time: float) -> float:
    """How far the camera has gone to the right of its middle position, at a time in 0..1."""
    return scene.camera * _STEP * (2.0 * time - 1.0)


def states_at(scene: Scene, time: float) -> list[State]:
    """The state of each thing at a time in 0..1; at 1 - time the twin has the same."""
    states = [State(thing.x, thing.y, _RADIUS[thing.size], thing.angle, True) for thing in scene.things]
    for event in scene.events:
        if event.other is None:
            states[event.actor] = _alone(states[event.actor], event, time)
        else:
            pair = scene.things[event.actor], scene.things[event.other]
            for number, place in zip((event.actor, event.other), _together(*pair, event, time), strict=True):
                states[number] = dataclasses.replace(states[number], x=place[0], y=place[1])
    return states


def _alone(state: State, event: Event, time: float) -> State:
    """What a motion or an episode makes of a thing."""
    part = min(1.0, max(0.0, (time - event.begin) / (event.end - event.begin)))
    swing = 2.0 * part - 1.0  # -1..1, for motions
    bump = abs(math.sin(math.pi * event.times * part))  # 0 at both ends, 1 in the middle of each repetition
    changes = {
        "moves left": {"x": state.x - _STEP * swing},
        "moves right": {"x": state.x + _STEP * swing},
        "moves up": {"y": state.y - _STEP * swing},
        "moves down": {"y": state.y + _STEP * swing},
        "grows": {"radius": state.radius * _GROWTH**swing},
        "shrinks": {"radius": state.radius * _GROWTH**-swing},
        "turns clockwise": {"angle": state.angle + _TURN * swing},
        "turns counterclockwise": {"angle": state.angle - _TURN * swing},
        "appears": {"visible": swing > 0},
        "vanishes": {"visible": swing < 0},
        "jumps": {"y": state.y - _BUMP * bump},
        "dips": {"y": state.y + _BUMP * bump},
        "swells": {"radius": state.radius * (1.0 + 0.8 * bump)},
        "blinks": {"visible": bump < 0.7},
        "tilts": {"angle": state.angle + _TILT * bump},
    }
    return dataclasses.replace(state, **changes.get(event.action, {}))


def _together(actor: Thing, other: Thing, event: Event, time: float) -> tuple[tuple[float, float], ...]:
    """The places of two things; they move along the line through the middle between their places at rest."""
    x, y = (actor.x + other.x) / 2, (actor.y + other.y) / 2
    way = 1.0 if event.to_right else -1.0
    near = sum(_RADIUS[thing.size] * _HALF_WIDTH[thing.shape] for thing in (actor, other)) / 2  # they touch
    if event.action == "chases":
        gone, apart = 0.3 * (time - 0.5), near + _BEHIND / 2
        return (x + way * (gone - apart), y), (x + way * (gone + apart), y)
    if event.action == "hits":
        come, go = min(1.0, 2.0 * time), max(0.0, 2.0 * time - 1.0)
        return (x - way * (_FAR + (near - _FAR) * come), y), (x + way * (near + (_FAR - near) * go), y)
    if event.action == "swaps with":
        turn = math.pi * time
        dx, dy = way * 0.22 * math.cos(turn), 0.16 * math.sin(turn)
        return (x + dx, y - dy), (x - dx, y + dy)
    come = time if event.action == "meets" else 1.0 - time
    gap = way * (_FAR + (near - _FAR) * come)
    return (x + gap, y), (x - gap, y)
