"""Decode one clip of one video file: evenly spaced frames, upright, scaled. Runs inside a worker process (pool.py).

Frames are taken at the middles of `num_frames` equal parts of the clip, or as another `Sampling` says: the picture that
a player shows at that time. A picture that is shown at several of these times (a clip with fewer pictures than
`num_frames`) is kept once.
"""

import collections
import dataclasses
import io
import itertools
import math
from collections.abc import Container, Iterable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from jaxtyping import Float64, Int, UInt8

from data_pipeline.decode.picture import DisplayGeometry, PictureReader, display_geometry
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.still import is_still, read_still
from data_pipeline.decode.stretch import EndMeasured, Mark, Stretch, end_of, needed, read_stretch, shown_at
from data_pipeline.decode.video_file import OpenVideo, check_size, exact_fraction, open_video, time_by_order
from data_pipeline.decode.wanted_pictures import numbers_shown, pictures_shown, wanted_ticks
from data_pipeline.media_paths import VideoRejected, open_regular
from harvest_jax.pixels.frame_sampling import Sampling

_SEEK_GAP = 10.0  # seconds: if the wanted pictures are further apart, seeking to each one is faster than decoding all
SKIPPING = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4")  # decoders that support skip_frame packet by packet
MAX_DAMAGED = 0.1  # share of the wanted pictures that may be damaged; our choice
_MIDDLES = Sampling()

av.logging.set_level(
    av.logging.PANIC
)  # FFmpeg's messages about damaged files are not shown; the reason of the reject is


@dataclasses.dataclass(frozen=True)
class DecodedClip:
    """The decoded frames of a clip.

    Attributes:
      frames: RGB, in order.
      seconds: position of each frame in the file.
      width, height: of the video as a player shows it (upright, with square pixels), in pixels, before scaling.
      views: the frames of each view, as numbers of `frames`; a picture that is shown at several times occurs again.
      damaged: how many frames the decoder has marked as damaged, or that depend on a marked one.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    seconds: Float64[np.ndarray, " T"]
    width: int
    height: int
    views: tuple[Int[np.ndarray, " _"], ...] = ()
    damaged: int = 0


def decode_clip(
    source: bytes | Path | BufferedIOBase,
    spec: DecodeSpec,
    start: float | None = None,
    end: float | None = None,
    sampling: Sampling = _MIDDLES,
) -> DecodedClip:
    """Decode up to `spec.num_frames` pictures, evenly spaced over start..end; a JPEG, PNG or WebP has one.

    All views are decoded in one go through the file. Counting pictures ("linspace_inclusive") first reads the file's
    packets through without decoding them.

    Args:
      source: the file or its content; an open file is closed.
      spec: number of frames, size, limits.
      start: seconds in the file; None: its start.
      end: seconds in the file; None: its end.
      sampling: which pictures, in how many views of up to `spec.num_frames` each; `crops` are not made here.

    Raises:
      VideoRejected: the file cannot be used; `reason` says why.
    """
    if isinstance(source, Path):
        source = open_regular(source, spec.max_bytes)
    with io.BytesIO(source) if isinstance(source, bytes) else source as file:
        if is_still(file.read(12)):
            return _still(file, spec, start, end, sampling.views)
        try:
            measured: float | None = None
            shown: list[int] | None = None
            # With the end in the header; with the measured end; with the end of a video in a longer file. If pictures
            # are counted, each once more: what was read through is opened again, because GIF cannot go back.
            for _ in range(6 if sampling.policy == "linspace_inclusive" else 3):
                with open_video(file, spec) as video:
                    known = video.end if measured is None else measured
                    try:
                        if known is None:
                            raise EndMeasured(scan_end(video))
                        span = _span(known, start, end)
                        if shown is None and sampling.policy == "linspace_inclusive":
                            to_its_end = end is None or end >= known  # where the last picture's start may be, too
                            shown = pictures_shown(video, span[0], math.inf if to_its_end else span[1])
                            continue
                        ticks = wanted_ticks(video, spec, sampling, *span, shown)
                        return _decode(video, spec, ticks, span, trust_end=measured is not None)
                    except EndMeasured as found:
                        measured, shown = found.seconds, None
        except (MemoryError, av.MemoryError) as error:
            raise VideoRejected("too much memory: its pictures need more than a decoder may use") from error
        except (av.FFmpegError, OSError) as error:
            raise VideoRejected(f"damaged: it cannot be read through ({error.strerror})") from error
    raise VideoRejected("damaged: its length cannot be determined")


def _still(file: BufferedIOBase, spec: DecodeSpec, start: float | None, end: float | None, views: int) -> DecodedClip:
    """A picture as a clip of one frame."""
    if start or end is not None:
        raise VideoRejected("bad span: a picture has no duration; leave start and end empty")
    if spec.min_frames > 1:
        raise VideoRejected(f"too few frames: a single picture, {spec.min_frames} are needed")
    picture, width, height = read_still(file, spec)
    return DecodedClip(picture[None], np.zeros(1), width, height, (np.zeros(1, np.int64),) * views)


def _span(known_end: float, start: float | None, end: float | None) -> tuple[float, float]:
    """The clip's start and end within the file; in published manifests, ends are often a little after the video's."""
    first = 0.0 if start is None else start
    last = known_end if end is None else end
    if first >= known_end:
        raise VideoRejected(f"bad span: it starts at {first:g} s, but the video ends at {known_end:.1f} s")
    if known_end - first < 0.5 * (last - first):
        there, asked = known_end - first, last - first
        raise VideoRejected(f"bad span: only {there:.1f} s of its {asked:.1f} s are within the video")
    return first, min(last, known_end)


def scan_end(video: OpenVideo) -> float:
    """The end of the last picture, from all packets, if the header does not have it."""
    end = max((end_of(packet) for packet in video.container.demux(video.stream) if packet.size), default=None)
    if end is None:
        raise VideoRejected("damaged: it contains no picture")
    found = float(end - video.origin)
    if found < video.least_end - max(0.5, 0.05 * video.least_end):
        raise VideoRejected(f"cut off: its pictures end at {found:.1f} s of at least {video.least_end:.1f} s")
    return found


def _decode(
    video: OpenVideo, spec: DecodeSpec, views: Sequence[Sequence[int]], span: tuple[float, float], trust_end: bool
) -> DecodedClip:
    ticks = sorted(itertools.chain.from_iterable(views))
    reader: PictureReader | None = None
    geometry: DisplayGeometry | None = None
    pictures: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
    damages: dict[int, bool] = {}
    last: VideoFrame | None = None
    for run, wanted in enumerate(_runs(ticks, video)):
        stretch = read_stretch(video, wanted, spec, fresh=run == 0, trust_end=trust_end)
        for frame, damaged in _frames_at(video, stretch, wanted):
            check_size(frame.width, frame.height, spec)
            if reader is None or geometry is None:
                pixel_aspect = exact_fraction(video.stream.codec_context.sample_aspect_ratio)
                geometry = display_geometry(frame, pixel_aspect, spec)
                reader = PictureReader(geometry, spec)
            if frame.pts is not None and frame is not last:  # a later one of the same time is from decoding everything
                pictures[frame.pts], damages[frame.pts], last = reader.read(frame), damaged, frame
    if len(pictures) < spec.min_frames or geometry is None:
        raise VideoRejected(
            f"too few frames: {len(pictures)} different ones in {span[0]:.1f}-{span[1]:.1f} s, "
            f"{spec.min_frames} are needed"
        )
    marked = sum(damages.values())
    if marked > MAX_DAMAGED * len(pictures):
        raise VideoRejected(
            f"damaged: by the decoder's marks {marked} of its {len(pictures)} wanted pictures are not whole"
        )
    pictures = dict(sorted(pictures.items()))  # what groups of pictures did not give came last
    seconds = np.array([video.seconds(pts) for pts in pictures])
    return DecodedClip(
        np.stack(list(pictures.values())),
        seconds,
        geometry.shown_width,
        geometry.shown_height,
        numbers_shown(list(pictures), views),
        marked,
    )


def _runs(ticks: Sequence[int], video: OpenVideo) -> Iterator[list[int]]:
    """The wanted times in groups: between groups, seeking is faster than decoding (GIF cannot seek)."""
    gap = _SEEK_GAP / float(video.time_base)
    run = [ticks[0]]
    for tick in ticks[1:]:
        if tick - run[-1] > gap and "gif" not in video.container.format.name:
            yield run
            run = []
        run.append(tick)
    yield run


class _NotDecoded(Exception):
    """Some wanted pictures did not come out of the packets that should give them."""


def _frames_at(video: OpenVideo, stretch: Stretch, ticks: Sequence[int]) -> Iterator[tuple[VideoFrame, bool]]:
    """The picture shown at each tick, and whether it may be damaged; the last that starts before it, or the first.

    Only groups of pictures with a wanted one are decoded, each from its key picture to the last wanted one. Where that
    does not give all of them, or the times are not known before decoding, everything is decoded.
    """
    wanted = None if video.times_by_order else shown_at(stretch.marks, ticks)
    if wanted is not None:
        try:
            yield from _wanted_frames(video, stretch, wanted)
            return
        except _NotDecoded:
            pass  # the pictures that have come are the same again
    yield from _all_frames(video, stretch, ticks)


def _wanted_frames(video: OpenVideo, stretch: Stretch, wanted: Sequence[int]) -> Iterator[tuple[VideoFrame, bool]]:
    """The pictures that start at some ticks.

    Raises:
      _NotDecoded: the decoder refused a packet, or a picture did not come.
    """
    left, position = set(wanted), 0
    packets = zip(stretch.marks, stretch.packets(), strict=True)
    for span in needed(stretch.marks, wanted):
        part: Iterator[tuple[Mark, Packet]] = itertools.islice(packets, span.start - position, span.stop - position)
        position = span.stop
        first = stretch.marks[span.start]
        begin, begun = first.pts or 0, first.hidden or not first.key
        if min(left) >= begin:  # what is shown before the first key picture needs the group before, which is left out
            part = ((mark, packet) for mark, packet in part if (mark.pts or 0) >= begin)
        try:
            for frame, damaged in _decoded(video, part, left.copy()):
                begun = begun or frame.pts == begin
                if frame.pts in left:
                    left.remove(frame.pts)
                    yield frame, damaged
        except VideoRejected as error:
            raise _NotDecoded from error
        if not begun:  # no key picture: H.264 may be said to refresh itself from here on, bit by bit
            raise _NotDecoded
    if left:
        raise _NotDecoded


def _all_frames(video: OpenVideo, stretch: Stretch, ticks: Sequence[int]) -> Iterator[tuple[VideoFrame, bool]]:
    """The picture shown at each tick, from decoding everything."""
    waiting = collections.deque(ticks)
    shown: tuple[VideoFrame, bool] | None = None
    for frame, damaged in _decoded(video, zip(stretch.marks, stretch.packets(), strict=True), None):
        if frame.pts is None:
            raise VideoRejected("damaged: its pictures carry no times")
        while waiting and shown is not None and frame.pts > waiting[0]:
            waiting.popleft()
            yield shown
        if not waiting:
            return
        shown = frame, damaged
    if shown is None:
        raise VideoRejected("damaged: none of its pictures can be decoded")
    for _ in waiting:
        yield shown


def _decoded(
    video: OpenVideo, packets: Iterable[tuple[Mark, Packet]], wanted: Container[int] | None
) -> Iterator[tuple[VideoFrame, bool]]:
    """Decode packets; the decoder starts anew after them.

    Args:
      video: which they are of.
      packets: in decoding order, each with what it says.
      wanted: of pictures that no other depends on only these are decoded, by their times; that saves a quarter of the
        time. None: all are.

    Yields:
      pictures in the order in which they are shown, and whether FFmpeg has marked one of the group as damaged up to it.

    Raises:
      VideoRejected: the decoder refuses a packet.
    """
    context = video.stream.codec_context
    may_skip = wanted is not None and context.codec.name in SKIPPING
    context.skip_frame = "DEFAULT"
    damaged, time = False, None
    try:
        for mark, packet in itertools.chain(packets, [(None, None)]):  # None: what is still in the decoder
            if may_skip and mark is not None:
                context.skip_frame = "DEFAULT" if mark.pts in (wanted or ()) else "NONREF"
            try:
                frames = context.decode(packet)
            except (MemoryError, av.MemoryError):
                raise
            except av.FFmpegError as error:
                where = "its end" if packet is None else f"{float(end_of(packet) - video.origin):.1f} s"
                raise VideoRejected(f"damaged: the pictures near {where} cannot be decoded") from error
            for frame in frames:
                if video.times_by_order:
                    frame.pts = time = time_by_order(frame, time)
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                yield frame, damaged
    finally:
        context.flush_buffers()
