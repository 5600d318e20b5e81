"""The scenes of a long video, from one pass over all its pictures, and what can be seen of them. Runs inside a worker.

PySceneDetect (extra `clips`) finds the cuts in small pictures. Four times a second a thumbnail is kept, from which the
measures are computed, so memory grows by 12 kB a second of video.
"""

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Float32, UInt8

from data_pipeline.decode.picture import PictureReader, display_geometry
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.video_file import OpenVideo, check_size, exact_fraction, open_video, time_by_order
from data_pipeline.media_paths import VideoRejected, open_regular

SHORT_SIDE = 96  # pixels of the pictures in which cuts are looked for
MOMENTS = 3  # pictures of a clip that are compared with those of others
_THUMBNAIL = 32  # pixels a side
_SIGNATURE = 8  # the same, of what is compared
_EVERY = 0.25  # seconds between thumbnails


def scan(path: str | Path, shortest: float, longest: float) -> dict[str, Any]:
    """Cut a video at its scenes, and long scenes into equal pieces.

    Args:
      path: the video.
      shortest: seconds; what is shorter is left out.
      longest: seconds of a piece.

    Returns:
      JSON values: `scenes` (how many), `seconds` (of the video), `short` (how many were left out), and `clips`, each
      with the number of its `scene`, `start` and `end` in seconds, `brightness` (0 to 255, the mean of its pictures),
      `change` (0 to 255, the mean difference of two thumbnails 0.25 s apart) and `signature` (uint8 [MOMENTS, 8, 8, 3]
      in hexadecimal digits).

    Raises:
      VideoRejected: it cannot be used.
    """
    spec = DecodeSpec(short_side=SHORT_SIDE)
    times: list[float] = []
    cuts: list[int] = []
    kept: list[float] = []
    thumbnails: list[UInt8[np.ndarray, "S S 3"]] = []
    detector = _Detector()
    try:
        with open_regular(path, spec.max_bytes) as file, open_video(file, spec) as video:
            for seconds, picture in _pictures(video, spec):
                times.append(seconds)
                cuts += detector.cuts(picture)
                if not kept or seconds >= kept[-1] + _EVERY:
                    kept.append(seconds)
                    thumbnails.append(_shrunk(picture, _THUMBNAIL))
            end = _end(times, video.end)
    except (MemoryError, av.MemoryError) as error:
        raise VideoRejected("too much memory: its pictures need more than a decoder may use") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoRejected(f"damaged: it cannot be read through ({error.strerror})") from error
    bounds = [times[0], *(times[cut] for cut in cuts), end]
    clips, short = [], 0
    for scene, (begin, stop) in enumerate(itertools.pairwise(bounds)):
        if stop - begin < shortest:
            short += 1
            continue
        number = math.ceil((stop - begin) / longest - 1e-6)
        edges = [round(begin + (stop - begin) * part / number, 6) for part in range(number + 1)]
        pieces = [_clip(start, after, kept, thumbnails) for start, after in itertools.pairwise(edges)]
        clips += [piece | {"scene": scene} for piece in pieces]
    return {"scenes": len(bounds) - 1, "seconds": end, "short": short, "clips": clips}


class _Detector:
    """PySceneDetect's adaptive detector: a cut is a picture that differs much more than those around it do."""

    def __init__(self) -> None:
        import cv2
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        cv2.setNumThreads(1)
        # Each cut counts, also soon after another: a clip must not hold one.
        self._detector = AdaptiveDetector(min_scene_len=1)
        self._number, self._timecode = 0, FrameTimecode

    def cuts(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[int]:
        """The numbers of pictures that begin a scene, known once some pictures after them have come."""
        code = self._timecode(self._number, fps=25.0)  # it counts pictures; their times are ours
        self._number += 1
        bgr = np.ascontiguousarray(picture[..., ::-1])
        return [found.frame_num for found in self._detector.process_frame(code, bgr)]


def _pictures(video: OpenVideo, spec: DecodeSpec) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
    """All pictures in the order in which they are shown, small, with their times in seconds."""
    reader: PictureReader | None = None
    before: int | None = None
    for frame in video.container.decode(video.stream):
        check_size(frame.width, frame.height, spec)
        pts = time_by_order(frame, before) if video.times_by_order else frame.pts
        if pts is None or (before is not None and pts <= before):
            continue
        before = pts
        if reader is None:
            reader = _reader(video, frame, spec)
        yield video.seconds(pts), reader.read(frame)


def _reader(video: OpenVideo, frame: VideoFrame, spec: DecodeSpec) -> PictureReader:
    pixel_aspect = exact_fraction(video.stream.codec_context.sample_aspect_ratio)
    return PictureReader(display_geometry(frame, pixel_aspect, spec), spec)


def _end(times: Sequence[float], known: float | None) -> float:
    """When the last picture ends: as the header says, if that is near, else after an average picture."""
    if not times:
        raise VideoRejected("damaged: none of its pictures can be decoded")
    mean = (times[-1] - times[0]) / max(1, len(times) - 1)
    return known if known is not None and times[-1] < known < times[-1] + 2 else times[-1] + mean


def _clip(
    start: float, end: float, kept: Sequence[float], thumbnails: Sequence[UInt8[np.ndarray, "S S 3"]]
) -> dict[str, Any]:
    first, last = bisect.bisect_left(kept, start), bisect.bisect_left(kept, end)
    first = min(first, len(kept) - 1)
    mine = np.stack(thumbnails[first : max(last, first + 1)]).astype(np.float32)
    light = mine @ np.array([0.299, 0.587, 0.114], np.float32)
    at = ((np.arange(MOMENTS) + 0.5) * len(mine) / MOMENTS).astype(int)
    return {
        "start": start,
        "end": end,
        "brightness": round(float(light.mean()), 3),
        "change": round(_change(light), 3),
        "signature": b"".join(_shrunk(mine[one].astype(np.uint8), _SIGNATURE).tobytes() for one in at).hex(),
    }


def _change(light: Float32[np.ndarray, "T S S"]) -> float:
    return float(np.abs(np.diff(light, axis=0)).mean()) if len(light) > 1 else 0.0


def _shrunk(picture: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "S S 3"]:
    """The picture as a square, each pixel of it a mean."""
    import cv2

    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
