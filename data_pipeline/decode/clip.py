"""Decode one clip of one video file: evenly spaced frames, upright, scaled. Runs inside a worker process (pool.py).

Frames are taken at the middles of `num_frames` equal parts of the clip, or as another `Sampling` says: the picture that
a player shows at that time. A picture that is shown at several of these times (a clip with fewer pictures than
`num_frames`) is kept once.
"""

import bisect
import collections
import dataclasses
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
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
from data_pipeline.decode.video_file import OpenVideo, check_size, exact_fraction, open_video, rewind, seek
from data_pipeline.decode.wanted_pictures import SEEK_BACK, numbers_shown, pictures_shown, wanted_ticks
from data_pipeline.media_paths import VideoRejected, open_regular
from harvest_jax.pixels.frame_sampling import Sampling

_SEEK_GAP = 10.0  # seconds: if the wanted pictures are further apart, seeking to each one is faster than decoding all
_SKIPPING = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4")  # decoders that support skip_frame packet by packet
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
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    seconds: Float64[np.ndarray, " T"]
    width: int
    height: int
    views: tuple[Int[np.ndarray, " _"], ...] = ()


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
                            raise _EndMeasured(_scan_end(video))
                        span = _span(known, start, end)
                        if shown is None and sampling.policy == "linspace_inclusive":
                            to_its_end = end is None or end >= known  # where the last picture's start may be, too
                            shown = pictures_shown(video, span[0], math.inf if to_its_end else span[1])
                            continue
                        ticks = wanted_ticks(video, spec, sampling, *span, shown)
                        return _decode(video, spec, ticks, span, trust_end=measured is not None)
                    except _EndMeasured as found:
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


class _EndMeasured(Exception):
    """The video ends at another time than the header says, and the file is complete."""

    def __init__(self, seconds: float):
        super().__init__(seconds)
        self.seconds = seconds


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


def _scan_end(video: OpenVideo) -> float:
    """The end of the last picture, from all packets, if the header does not have it."""
    end = max((_end_of(packet) for packet in video.container.demux(video.stream) if packet.size), default=None)
    if end is None:
        raise VideoRejected("damaged: it contains no picture")
    return float(end - video.origin)


def _end_of(packet: Packet) -> Fraction:
    ticks = (packet.pts if packet.pts is not None else packet.dts or 0) + (packet.duration or 0)
    return ticks * exact_fraction(packet.time_base)


def _decode(
    video: OpenVideo, spec: DecodeSpec, views: Sequence[Sequence[int]], span: tuple[float, float], trust_end: bool
) -> DecodedClip:
    ticks = sorted(itertools.chain.from_iterable(views))
    reader: PictureReader | None = None
    geometry: DisplayGeometry | None = None
    pictures: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
    for run, wanted in enumerate(_runs(ticks, video)):
        packets = _collect(video, wanted, spec, fresh=run == 0, trust_end=trust_end)
        for frame in _frames_at(video, packets, wanted):
            check_size(frame.width, frame.height, spec)
            if reader is None or geometry is None:
                pixel_aspect = exact_fraction(video.stream.codec_context.sample_aspect_ratio)
                geometry = display_geometry(frame, pixel_aspect, spec)
                reader = PictureReader(geometry, spec)
            if frame.pts is not None and frame.pts not in pictures:
                pictures[frame.pts] = reader.read(frame)
    if len(pictures) < spec.min_frames or geometry is None:
        raise VideoRejected(
            f"too few frames: {len(pictures)} different ones in {span[0]:.1f}-{span[1]:.1f} s, "
            f"{spec.min_frames} are needed"
        )
    seconds = np.array([video.seconds(pts) for pts in pictures])
    return DecodedClip(
        np.stack(list(pictures.values())),
        seconds,
        geometry.shown_width,
        geometry.shown_height,
        numbers_shown(list(pictures), views),
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


def _collect(video: OpenVideo, ticks: Sequence[int], spec: DecodeSpec, fresh: bool, trust_end: bool) -> list[Packet]:
    """The packets that have to be decoded for the pictures at `ticks`, in decoding order."""
    first = video.seconds(ticks[0])
    for back in SEEK_BACK:
        if fresh and first <= 2 * back:
            break  # the file has just been opened: the position is its start
        if not seek(video, video.ticks(max(0.0, first - back))):
            break
        fresh = False
        packets = _demux(video, ticks[-1], spec, trust_end)
        if any(packet.pts is not None and packet.pts <= ticks[0] and packet.is_keyframe for packet in packets):
            return packets
    if not fresh:
        rewind(video)
    return _demux(video, ticks[-1], spec, trust_end)


def _demux(video: OpenVideo, last_tick: int, spec: DecodeSpec, trust_end: bool) -> list[Packet]:
    packets: list[Packet] = []
    size = 0
    reach = Fraction(0)  # the latest end of a packet of any stream, including sound
    for packet in video.container.demux():
        if not packet.size:
            continue
        reach = max(reach, _end_of(packet))
        if packet.stream is not video.stream:
            continue
        if packet.dts is not None and packet.dts > last_tick and packets:
            return packets
        if packet.is_corrupt:
            raise VideoRejected(f"damaged: a picture near {float(_end_of(packet) - video.origin):.1f} s is incomplete")
        packets.append(packet)
        size += packet.size
        if len(packets) > spec.max_packets or size > spec.max_packet_bytes:
            raise VideoRejected(
                f"too large: more than {spec.max_packets:,} pictures or {spec.max_packet_bytes:,} bytes at once"
            )
    if not trust_end and video.end is not None:
        _check_end(video, packets, last_tick, float(reach - video.origin))
    return packets


def _check_end(video: OpenVideo, packets: Sequence[Packet], last_tick: int, reach: float) -> None:
    """Compare the end of the file with its header. Refuse a file that was cut off, but not one with longer sound."""
    said = video.end or 0.0
    found = float(max(map(_end_of, packets), default=video.origin) - video.origin)
    tolerance = max(0.5, 0.05 * said)
    if found >= said - tolerance:
        return
    if video.exact_end or reach < said - tolerance:
        raise VideoRejected(f"cut off: its pictures end at {found:.1f} s of {said:.1f} s")
    if video.seconds(last_tick) > found:
        raise _EndMeasured(found)


def _frames_at(video: OpenVideo, packets: Sequence[Packet], ticks: Sequence[int]) -> Iterator[VideoFrame]:
    """For each tick the picture shown then: the last one that starts at or before it, or the first of all.

    Pictures that no other picture depends on are decoded only if they are wanted; that saves a quarter of the time.
    """
    context = video.stream.codec_context
    starts = sorted(packet.pts for packet in packets if packet.pts is not None)
    wanted = {starts[max(0, bisect.bisect_right(starts, tick) - 1)] for tick in ticks} if starts else set()
    known = len(starts) == len(packets)
    may_skip = known and context.codec.name in _SKIPPING
    waiting = collections.deque(ticks)
    shown: VideoFrame | None = None
    for packet in itertools.chain(packets, [None]):  # None: flush the decoder
        if may_skip and packet is not None:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        try:
            frames = context.decode(packet)
        except (MemoryError, av.MemoryError):
            raise
        except av.FFmpegError as error:
            where = "its end" if packet is None else f"{float(_end_of(packet) - video.origin):.1f} s"
            raise VideoRejected(f"damaged: the pictures near {where} cannot be decoded") from error
        for frame in frames:
            if frame.pts is None:
                raise VideoRejected("damaged: its pictures carry no times")
            while waiting and shown is not None and frame.pts > waiting[0]:
                waiting.popleft()
                yield shown
            shown = frame
            if known and frame.pts >= max(wanted):
                yield shown
                return
    if shown is None:
        raise VideoRejected("damaged: none of its pictures can be decoded")
    for _ in waiting:
        yield shown
