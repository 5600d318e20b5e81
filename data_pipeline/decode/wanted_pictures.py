"""Which pictures of an open video are wanted: their times on the stream's clock, in ticks."""

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.video_file import OpenVideo, rewind, seek, time_by_order
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.frame_sampling import Sampling, inclusive_indices, sampled_times

SEEK_BACK = (1.0, 10.0)  # seconds before a picture where its key picture is looked for: first try, second try


def span_of(known_end: float, start: float | None, end: float | None) -> tuple[float, float]:
    """The clip's start and end within the file; in published manifests, ends are often a little after the video's."""
    first = 0.0 if start is None else start
    last = known_end if end is None else end
    if first >= known_end:
        raise VideoRejected(f"bad span: it starts at {first:g} s, but the video ends at {known_end:.1f} s")
    if known_end - first < 0.5 * (last - first):
        there, asked = known_end - first, last - first
        raise VideoRejected(f"bad span: only {there:.1f} s of its {asked:.1f} s are within the video")
    return first, min(last, known_end)


def pictures_shown(video: OpenVideo, first: float, last: float) -> list[int]:
    """When each picture that is shown between two times (seconds) begins, in ticks; at least one.

    The packets are read and not decoded, where they say their times. The video must be freshly opened, and is at
    another position afterwards.

    Raises:
      VideoRejected: no picture, or the file cannot be read a second time.
    """
    begin, back = video.ticks(first), SEEK_BACK[-1]
    near = first > 2 * back and seek(video, video.ticks(first - back))
    starts = _packet_times(video, last)
    if near and (None in starts or min(starts, default=begin + 1) > begin):
        rewind(video)
        starts = _packet_times(video, last)
    if None in starts or video.times_by_order:  # the decoder knows them
        rewind(video)
        starts = set(itertools.takewhile(lambda pts: pts is None or video.seconds(pts) < last, _decoded_times(video)))
    known = sorted(pts for pts in starts if pts is not None and video.seconds(pts) < last)
    if not known:
        raise VideoRejected("damaged: none of its pictures has a time")
    return shown_between(known, begin, math.inf)


def shown_between(starts: Sequence[int], first: int | float, last: int | float) -> list[int]:
    """When the pictures that are shown between two times begin, of all in their order."""
    before = [start for start in starts if start < last]
    return before[max(0, bisect.bisect_right(before, first) - 1) :]


def _decoded_times(video: OpenVideo) -> Iterator[int | None]:
    time = None
    for frame in video.container.decode(video.stream):
        time = time_by_order(frame, time) if video.times_by_order else frame.pts
        yield time


def _packet_times(video: OpenVideo, last: float) -> set[Any]:
    """When the pictures from here to a time in seconds begin, in ticks; None if a packet does not say it."""
    times: set[Any] = set()
    for packet in video.container.demux(video.stream):
        if packet.dts is not None and times and video.seconds(packet.dts) >= last:
            break
        if packet.size and not packet.is_discard:
            times.add(packet.pts)
    return times


def wanted_ticks(
    video: OpenVideo, spec: DecodeSpec, sampling: Sampling, first: float, last: float, shown: Sequence[int] | None
) -> list[list[int]]:
    """The times of the wanted pictures in ticks, of each view, ascending.

    Args:
      video: open.
      spec: `num_frames` of a view.
      sampling: the policy and the number of views.
      first, last: the clip in the file, in seconds.
      shown: of `pictures_shown`, for the policy that counts pictures.
    """
    if shown is not None:
        return [[shown[index] for index in inclusive_indices(len(shown), spec.num_frames).tolist()]]
    times = sampled_times(last - first, spec.num_frames, sampling)
    return [[video.ticks(first + seconds) for seconds in view.tolist()] for view in times]


def numbers_shown(starts: Sequence[int], views: Sequence[Sequence[int]]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Which of the decoded pictures is shown at each tick; all that are shown at one of them are decoded."""
    order = sorted(range(len(starts)), key=starts.__getitem__)
    ascending = sorted(starts)
    return tuple(
        np.array([order[max(0, bisect.bisect_right(ascending, tick) - 1)] for tick in ticks], np.int64)
        for ticks in views
    )
