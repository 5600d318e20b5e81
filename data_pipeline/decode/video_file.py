"""Open an untrusted video: no protocols, known formats and codecs only, limits checked before a picture is decoded.

Attacks that were tried without these options: a playlist renamed to .mp4 makes FFmpeg read other local files or fetch
http addresses, whether it is opened by path, as a Python file or as bytes. The list of formats alone prevents all of
them. The refusal of nested opens, the closed protocols and the list of codecs (those of common videos, out of FFmpeg's
hundreds of decoders) are further barriers.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import SEEK_CUR, BufferedIOBase
from numbers import Rational
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,asf,flv,ogg"  # no playlists, no image sequences
CODECS = (
    "h264,hevc,vp8,libvpx,vp9,libvpx-vp9,av1,libdav1d,mpeg4,mpeg1video,mpeg2video,h263,msmpeg4v1,msmpeg4v2,msmpeg4,"
    "wmv1,wmv2,wmv3,vc1,flv,mjpeg,gif,prores,theora,vp6,vp6f,dvvideo,ffv1,huffyuv,ffvhuff,rawvideo,png,cinepak,svq3"
)
# Titles that are not UTF-8 must not raise an error; PyAV from version 19 on handles them itself.
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_SIGNATURES = (
    (4, b"ftyp", "an MP4 or MOV file"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM file"),
    (0, b"RIFF", "an AVI file"),
    (0, b"GIF8", "a GIF file"),
    (0, b"\x00\x00\x01\xba", "an MPEG file"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMV file"),
    (0, b"FLV\x01", "an FLV file"),
    (0, b"OggS", "an Ogg file"),
)


@dataclasses.dataclass(frozen=True)
class OpenVideo:
    """An open container, its video stream, and its times. Times are seconds from the start of the file, as in players.

    Attributes:
      container: open for reading.
      stream: the video stream.
      again: opens the file a second time, at its start. Seeking back to the start ends at a later key picture in some
        formats (MPEG-TS).
      time_base: seconds per tick of the stream's clock.
      origin: the start of the file on the stream's clock, in seconds.
      end: seconds; None if the file does not have it.
      exact_end: the end is that of the video stream, not that of the longest stream.
      least_end: seconds that a complete file has at least, where the header's end is not `end`.
    """

    container: InputContainer
    stream: VideoStream
    again: Callable[[], InputContainer]
    time_base: Fraction
    origin: Fraction
    end: float | None
    exact_end: bool
    least_end: float = 0.0

    @property
    def times_by_order(self) -> bool:
        """Whether the file has no times of its own: AVI only counts pictures, in the order of decoding."""
        return self.container.format.name == "avi"

    def ticks(self, seconds: float) -> int:
        """The last tick of the stream's clock at or before a time."""
        return int((Fraction(seconds) + self.origin) / self.time_base + Fraction(1, 1000))

    def seconds(self, ticks: int) -> float:
        """The time of a tick."""
        return float(ticks * self.time_base - self.origin)


def _refuse(*_: Any) -> None:
    raise PermissionError("a video may not open other files")


class _Nameless:
    """A file without its name, so that FFmpeg cannot guess the format from it, at a position of its own.

    So a file can be open twice.
    """

    def __init__(self, file: BufferedIOBase):
        self._file, self._at = file, 0

    def read(self, size: int) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == SEEK_CUR:
            offset, whence = offset + self._at, 0
        self._at = self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at


@contextmanager
def open_video(file: BufferedIOBase, spec: DecodeSpec) -> Iterator[OpenVideo]:
    """Open a video for decoding in one thread; check its header against the limits.

    Raises:
      VideoRejected: not a video in a known format and codec, no video stream, too large, too long.
    """
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": "none",
        "codec_whitelist": CODECS,
        "max_pixels": str(spec.max_pixels),  # also applies while the header is probed
    }

    def opened() -> InputContainer:
        return av.open(_Nameless(file), "r", options=options, io_open=_refuse, **_METADATA)

    try:
        container = opened()
    except (MemoryError, av.MemoryError) as error:
        raise VideoRejected("too much memory: its header asks for more than a decoder may use") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoRejected(_why_not_opened(file)) from error
    with container:
        yield _checked(container, opened, spec)


def _why_not_opened(file: BufferedIOBase) -> str:
    file.seek(0)
    head = file.read(16)
    for offset, signature, name in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return f"damaged: begins like {name}, but its header is cut off or damaged"
    kinds = "an MP4, MOV, MKV, WebM, AVI, MPEG, WMV, FLV, Ogg or GIF file"
    return f"not a video: not {kinds}, nor a JPEG, PNG, WebP or AVIF picture"


def _checked(container: InputContainer, again: Callable[[], InputContainer], spec: DecodeSpec) -> OpenVideo:
    streams = [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]
    if not streams:
        others = sorted({stream.type for stream in container.streams})
        raise VideoRejected(f"no video stream: only {' and '.join(others) or 'nothing'} in the file")
    best = container.streams.best("video")  # the default one, and a film rather than a cover
    stream = best if best in streams else streams[0]
    if stream.codec_context is None or stream.codec_context.codec.name not in CODECS.split(","):
        codec = "an unknown codec" if stream.codec_context is None else f"the codec {stream.codec_context.codec.name}"
        raise VideoRejected(f"unsupported codec: its pictures are in {codec}")
    if container.format.name == "asf" and stream.codec_context.codec.name in ("h264", "hevc"):
        raise VideoRejected(
            "unsupported codec: H.264 or HEVC in a WMV file, where FFmpeg mistakes its times; convert it"
        )
    time_base = exact_fraction(stream.time_base)
    if time_base <= 0:
        raise VideoRejected("damaged: its pictures carry no times")
    check_size(stream.codec_context.width, stream.codec_context.height, spec)
    stream.codec_context.thread_count = 1  # one clip per core: best throughput, and the same frames everywhere
    stream.codec_context.options = {"max_pixels": str(spec.max_pixels)}

    starts = [Fraction(container.start_time, av.time_base)] if container.start_time is not None else []
    if stream.start_time is not None:
        starts.append(stream.start_time * time_base)
    origin = min(starts, default=Fraction(0))
    end, exact = None, False
    if stream.duration is not None and stream.duration > 0:
        end, exact = ((stream.start_time or 0) + stream.duration) * time_base - origin, True
    elif container.duration is not None and container.duration > 0:
        end = Fraction(container.duration, av.time_base)
    least = Fraction(0)
    if container.format.name == "mpeg":  # FFmpeg estimates it from the bit rate, wrong by up to a quarter
        end, exact = None, False
    elif end is not None and not exact and origin > Fraction(1, 2) and "matroska" in container.format.name:
        # A piece of a longer file: some writers count its length from its start, some from that of the whole.
        least = max(Fraction(0), Fraction(end) - origin)
        end = None
    if max(end or 0, least) > spec.max_seconds:
        raise VideoRejected(f"too long: {float(max(end or 0, least)):,.0f} s, more than {spec.max_seconds:,.0f} s")
    known = None if end is None else float(end)
    return OpenVideo(container, stream, again, time_base, origin, known, exact, float(least))


def time_by_order(frame: VideoFrame, before: int | None) -> int:
    """When a picture of a file without times is shown, in ticks: as FFmpeg counts them, one after the other.

    Args:
      frame: as it came out of the decoder; its `pts` is that of another picture where there are B pictures.
      before: the time of the picture before it.
    """
    least = 0 if before is None else before + 1
    return least if frame.dts is None else max(frame.dts, least)


def seek(video: OpenVideo, ticks: int) -> bool:
    """Seek to the last key picture at or before a time; False if the file does not support it."""
    try:
        video.container.seek(ticks, stream=video.stream)
    except av.FFmpegError:
        return False
    return True


def rewind(video: OpenVideo) -> None:
    """Seek to the start.

    Raises:
      VideoRejected: the file does not support it.
    """
    if not seek(video, min(video.ticks(0.0), video.stream.start_time or 0)):
        raise VideoRejected("damaged: seeking to an earlier time fails")


def exact_fraction(rational: Rational | None) -> Fraction:
    """A time base or a pixel's aspect; 0 if there is none. PyAV's own Fraction (since 19) computes with 32 bits."""
    if rational is None or not rational.denominator:
        return Fraction(0)
    return Fraction(int(rational.numerator), int(rational.denominator))


def check_size(width: int, height: int, spec: DecodeSpec, size: str = "") -> None:
    """Refuse pictures beyond the limits; `size` is named if it is not the width and height.

    Raises:
      VideoRejected: no size, or too many pixels.
    """
    if width < 1 or height < 1:
        raise VideoRejected("bad picture size: its header has none, or one that is too large")
    if max(width, height) > spec.max_side or width * height > spec.max_pixels:
        raise VideoRejected(f"bad picture size: {size or f'{width} x {height}'} is more than can be decoded safely")
