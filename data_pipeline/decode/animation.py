"""Decode an animated WebP as a clip, with Pillow: FFmpeg does not read them. (An animated AVIF is a video to it.)

Its pictures depend on those before, and their times are known only after all are decoded. So it is decoded twice: for
the times, and for the wanted pictures. One that is said to last 10 ms or less lasts 100 ms, as in browsers.
"""

from collections.abc import Sequence
from io import BufferedIOBase
from itertools import accumulate

import numpy as np
from PIL import Image

from data_pipeline.decode.decoded_clip import DecodedClip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.still import finished, open_pictures
from data_pipeline.decode.wanted_pictures import numbers_shown, shown_between, span_of
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.frame_sampling import Sampling, inclusive_indices, sampled_times

_TOO_SHORT, _INSTEAD = 10, 100  # ms


def read_animation(
    file: BufferedIOBase, spec: DecodeSpec, start: float | None, end: float | None, sampling: Sampling
) -> DecodedClip:
    """The pictures of an animation that is played once; arguments and errors as of `decode_clip`."""
    with open_pictures(file, spec) as image:
        starts = [0, *accumulate(_durations(image, spec))]  # ms; the last is the end
        first, last = span_of(starts[-1] / 1000, start, end)
        if sampling.policy == "linspace_inclusive":
            shown = shown_between(starts[:-1], first * 1000, last * 1000)
            ticks = [[shown[index] for index in inclusive_indices(len(shown), spec.num_frames).tolist()]]
        else:
            times = sampled_times(last - first, spec.num_frames, sampling)
            ticks = [[int((first + seconds) * 1000 + 1e-3) for seconds in view.tolist()] for view in times]
        views = numbers_shown(starts[:-1], ticks)
        wanted = np.unique(np.concatenate(views))
        if len(wanted) < spec.min_frames:
            raise VideoRejected(f"too few frames: {len(wanted)} different ones, {spec.min_frames} are needed")
        width, height = image.size
    with open_pictures(file, spec) as image:
        pictures = []
        for number in range(wanted[-1] + 1):
            image.seek(number)
            if number in wanted:
                pictures.append(finished(image, spec))
    seconds = np.array([starts[number] / 1000 for number in wanted])
    return DecodedClip(
        np.stack(pictures), seconds, width, height, tuple(np.searchsorted(wanted, view) for view in views)
    )


def _durations(image: Image.Image, spec: DecodeSpec) -> Sequence[int]:
    """How long each picture is shown, in ms."""
    count = getattr(image, "n_frames", 1)
    if count > spec.max_packets:
        raise VideoRejected(f"too large: more than {spec.max_packets:,} pictures at once")
    durations = []
    for number in range(count):
        image.seek(number)
        image.load()
        said = round(image.info.get("duration", 0))
        durations.append(said if said > _TOO_SHORT else _INSTEAD)
    if sum(durations) > 1000 * spec.max_seconds:
        raise VideoRejected(f"too long: {sum(durations) / 1000:,.0f} s, more than {spec.max_seconds:,.0f} s")
    return durations
