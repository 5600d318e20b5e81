"""Whether a sentence about a clip is true, judged from where the things are in its frames.

This reads the positions, sizes, angles and visibility that the generator drew, at the times of the frames and at no
other: what an observer with perfect eyes could know from the frames. It does not read the events that made them. Its
score is the ceiling of a benchmark; with the frames in unknown order it is the ceiling of a reader without time.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float64

from harvest_jax.synthetic.scene import EPISODES, STANDS, Event, Scene, Thing
from harvest_jax.synthetic.trajectory import camera_at, states_at

_MOVED = 0.04  # of the picture's side; smaller differences are none
_TURNED = 6.0  # degrees
_GROWN = 0.05  # of the logarithm of the radius


@dataclasses.dataclass(frozen=True)
class Track:
    """One thing over the frames, relative to the ground and to its place at rest."""

    x: Float64[np.ndarray, " t"]
    y: Float64[np.ndarray, " t"]
    growth: Float64[np.ndarray, " t"]
    angle: Float64[np.ndarray, " t"]
    hidden: Float64[np.ndarray, " t"]
    at: Float64[np.ndarray, " t"]  # x in the picture's own units, for what two things do


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the frames of a clip show."""

    things: tuple[Thing, ...]
    tracks: tuple[Track, ...]
    camera: Float64[np.ndarray, " t"]
    ground: str


def seen(scene: Scene, num_frames: int) -> Seen:
    """The frames of a scene as `draw.render_clip` draws them, in numbers."""
    times = [(t + 0.5) / num_frames for t in range(num_frames)]
    frames = [states_at(scene, time) for time in times]
    tracks = []
    for number, thing in enumerate(scene.things):
        states = [frame[number] for frame in frames]
        radii = np.array([state.radius for state in states])
        rest = {"small": 0.09, "big": 0.15}[thing.size]
        tracks.append(
            Track(
                x=np.array([state.x - thing.x for state in states]),
                y=np.array([state.y - thing.y for state in states]),
                growth=np.log(radii / rest),
                angle=np.array([state.angle - thing.angle for state in states]),
                hidden=np.array([not state.visible for state in states], float),
                at=np.array([state.x for state in states]),
            )
        )
    return Seen(scene.things, tuple(tracks), np.array([camera_at(scene, time) for time in times]), scene.ground)


def is_true(claim: Scene, clip: Seen) -> bool:
    """Whether all that a claim's sentence may tell is so in the clip; the things that stand around are not told."""
    if claim.ground != clip.ground or claim.camera != np.sign(round(clip.camera[-1] - clip.camera[0], 6)):
        return False
    where = []
    for thing in claim.things[: claim.named]:
        alike = [
            number
            for number, other in enumerate(clip.things)
            if (other.look, other.texture, other.size) == (thing.look, thing.texture, thing.size)
        ]
        if not alike or alike[0] in where:
            return False
        where.append(alike[0])
    if claim.events[0].action in EPISODES:
        return _told_episodes(claim, where) == _episodes(clip, where)
    return all(_happens(event, clip, where) for event in claim.events)


def _happens(event: Event, clip: Seen, where: list[int]) -> bool:
    actor = clip.tracks[where[event.actor]]
    if event.other is not None:
        return _pair(actor, clip.tracks[where[event.other]]) == event.action
    return _motion(actor) == event.action


def _motion(track: Track) -> str:
    """The motion of a thing from its first to its last frame; "" if it is none of MOTIONS, or more than one."""
    found = []
    if abs(dx := track.x[-1] - track.x[0]) > _MOVED:
        found.append("moves right" if dx > 0 else "moves left")
    if abs(dy := track.y[-1] - track.y[0]) > _MOVED:
        found.append("moves down" if dy > 0 else "moves up")
    if abs(grown := track.growth[-1] - track.growth[0]) > _GROWN:
        found.append("grows" if grown > 0 else "shrinks")
    if abs(turned := track.angle[-1] - track.angle[0]) > _TURNED:
        found.append("turns clockwise" if turned > 0 else "turns counterclockwise")
    if track.hidden[0] != track.hidden[-1]:
        found.append("appears" if track.hidden[0] else "vanishes")
    changing = any(np.ptp(values) > 1e-6 for values in (track.x, track.y, track.growth, track.angle, track.hidden))
    if not found:
        return "" if changing else STANDS
    return found[0] if len(found) == 1 else ""


def _pair(actor: Track, other: Track) -> str:
    """What the first of two things does with the second; "" if it is nothing that has a name."""
    gap = other.at - actor.at
    gone, fled = actor.at[-1] - actor.at[0], other.at[-1] - other.at[0]
    if gap[0] * gap[-1] < 0:
        return "swaps with"
    if math.copysign(1, gone) != math.copysign(1, fled):
        return "meets" if abs(gap[-1]) < abs(gap[0]) else "parts from"
    if gone * gap[0] < 0:  # the actor is in front of the other
        return ""
    early, late = (np.ptp(other.at[: len(gap) // 2]), np.ptp(other.at[len(gap) // 2 :]))
    return "hits" if early < 1e-6 < late else "chases"


def _told_episodes(claim: Scene, where: list[int]) -> list[tuple[int, str]]:
    return [(where[event.actor], event.action) for event in claim.events for _ in range(event.times)]


def _episodes(clip: Seen, where: list[int]) -> list[tuple[int, str]]:
    """(thing, episode) in the order of time: one entry for each time that a thing leaves its rest and comes back."""
    found: list[tuple[float, int, str]] = []
    for number in where:
        track = clip.tracks[number]
        strengths = {
            "jumps": -track.y,
            "dips": track.y,
            "swells": track.growth,
            "blinks": track.hidden,
            "tilts": track.angle / 180.0,
        }
        for name, values in strengths.items():
            found += [(peak, number, name) for peak in _peaks(values)]
    return [(number, name) for _, number, name in sorted(found)]


def _peaks(values: Float64[np.ndarray, " t"]) -> list[float]:
    """Where a track is highest between two lows: the middles of its plateaus, as frame numbers."""
    padded = np.concatenate([[0.0], np.where(values > _MOVED, values, 0.0), [0.0]]).round(9)
    peaks = []
    begin = 1
    for t in range(1, len(padded)):
        if padded[t] == padded[t - 1]:
            continue
        if padded[t] < padded[t - 1] and padded[begin - 1] < padded[begin] and padded[begin] > 0:
            peaks.append((begin + t - 1) / 2 - 1)
        begin = t
    return peaks
