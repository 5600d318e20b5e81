"""Decode a video as overlapping windows of time, in one sequential pass: no seek, and no picture decoded twice.

Each window's pictures are those that a player shows at the middles of `num_frames` equal parts of it, as `decode_clip`
takes them of a clip. A file that is not longer than a window is one window, decoded by `decode_clip`.
"""

import bisect
import collections
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame

from data_pipeline.decode.clip import MAX_DAMAGED, SKIPPING, decode_clip, scan_end
from data_pipeline.decode.picture import PictureReader, display_geometry
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.still import is_still
from data_pipeline.decode.stretch import end_of
from data_pipeline.decode.video_file import OpenVideo, check_size, exact_fraction, open_video, time_by_order
from data_pipeline.decode.window import Window
from data_pipeline.decode.window_rule import WindowRule
from data_pipeline.media_paths import VideoRejected, open_regular
from harvest_jax.pixels.frame_sampling import Sampling, sampled_times, segment_indices

_AHEAD = 32  # packets that are read before one is decoded; decoders reorder 16 pictures at most


def decode_windows(path: Path, spec: DecodeSpec, rule: WindowRule, skip: int = 0) -> Iterator[Window]:
    """The windows of a video; a JPEG, PNG or WebP is one window.

    What is damaged within a long video costs the windows that need it, and not the file.

    Args:
      path: the file.
      spec: number of frames of a window, size, limits.
      rule: the windows.
      skip: windows that are left out, from the first.

    Raises:
      VideoRejected: nothing (more) of the file can be used; `reason` says why. The windows before it can be used.
    """
    end = _end(path, spec)
    if len(rule.spans(end)) == 1:
        if not skip:
            clip = decode_clip(path, spec)
            yield Window(0.0, end, clip.frames[segment_indices(len(clip.frames), spec.num_frames, None)])
        return
    try:
        with open_regular(path, spec.max_bytes) as file, open_video(file, spec) as video:
            yield from _windows(video, spec, rule.spans(end)[skip:])
    except (MemoryError, av.MemoryError) as error:
        raise VideoRejected("too much memory: its pictures need more than a decoder may use") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoRejected(f"damaged: it cannot be read through ({error.strerror})") from error


def _end(path: Path, spec: DecodeSpec) -> float:
    """When the video ends, in seconds; without decoding. 0 of a picture."""
    with open_regular(path, spec.max_bytes) as file:
        if is_still(file.read(12)):
            return 0.0
        try:
            with open_video(file, spec) as video:
                return scan_end(video) if video.end is None else video.end
        except (av.FFmpegError, OSError) as error:
            raise VideoRejected(f"damaged: it cannot be read through ({error.strerror})") from error


def _windows(video: OpenVideo, spec: DecodeSpec, spans: Sequence[tuple[float, float]]) -> Iterator[Window]:
    offsets = [sampled_times(end - start, spec.num_frames, Sampling())[0] + start for start, end in spans]
    wanted = [[video.ticks(seconds) for seconds in times.tolist()] for times in offsets]
    pass_ = _Pass(video, sorted({tick for ticks in wanted for tick in ticks}))
    left_out = 0
    for due, pictures in _by_window(pass_, wanted, _Squares(video, spec)):
        start, end = spans[due]
        if pass_.found is not None:  # all was read: the end of the file may be nearer than its header says
            if due and start >= pass_.found - (end - start) / 2:
                continue
            end = max(min(end, pass_.found), start)
        if sum(damaged for _, damaged in pictures) > MAX_DAMAGED * spec.num_frames:
            left_out += 1
        else:
            yield Window(start, end, np.stack([picture for picture, _ in pictures]))
    pass_.check()
    if left_out:
        raise VideoRejected(f"damaged: {left_out} of its {len(spans)} windows are left out")


def _by_window(
    pass_: "_Pass", wanted: Sequence[Sequence[int]], squares: "_Squares"
) -> Iterator[tuple[int, list[tuple[np.ndarray, bool]]]]:
    """The number of each window and its pictures, as soon as it has them."""
    due = 0
    held: dict[int, tuple[np.ndarray, bool]] = {}  # by time; those that a later window needs stay
    for tick, frame, damaged in pass_.shown():
        held[tick] = squares.of(frame), damaged
        while due < len(wanted) and wanted[due][-1] <= tick:
            yield due, [held[time] for time in wanted[due]]
            due += 1
            least = wanted[due][0] if due < len(wanted) else tick
            held = {time: picture for time, picture in held.items() if time >= least}


class _Squares:
    """The pictures of a video as `spec.fit` asks for them; one that is asked for again is not made again."""

    def __init__(self, video: OpenVideo, spec: DecodeSpec) -> None:
        self._video, self._spec = video, spec
        self._reader: PictureReader | None = None
        self._last: tuple[VideoFrame, np.ndarray] | None = None

    def of(self, frame: VideoFrame) -> np.ndarray:
        """The square of a picture.

        Raises:
          VideoRejected: beyond the limits, or colours that cannot be converted.
        """
        if self._last is None or frame is not self._last[0]:
            check_size(frame.width, frame.height, self._spec)
            if self._reader is None:
                aspect = exact_fraction(self._video.stream.codec_context.sample_aspect_ratio)
                self._reader = PictureReader(display_geometry(frame, aspect, self._spec), self._spec)
            self._last = frame, self._reader.read(frame)
        return self._last[1]


class _Pass:
    """One pass over a video that gives the picture shown at some times.

    Args:
      video: freshly opened.
      ticks: the times, ascending and different.
    """

    def __init__(self, video: OpenVideo, ticks: Sequence[int]) -> None:
        self._video, self._ticks = video, ticks
        self._reach = self._last = video.origin
        self._pictures = 0
        self.found: float | None = None  # seconds, where the last picture ends, when all was read

    def shown(self) -> Iterator[tuple[int, VideoFrame, bool]]:
        """For each time, ascending: the time, the picture, and whether it may be damaged.

        Raises:
          VideoRejected: pictures without times, or no picture at all.
        """
        shown: tuple[VideoFrame, bool] | None = None
        following = 0
        for frame, damaged in self._decoded():
            if frame.pts is None:
                raise VideoRejected("damaged: its pictures carry no times")
            while shown is not None and following < len(self._ticks) and frame.pts > self._ticks[following]:
                yield self._ticks[following], *shown
                following += 1
            if following == len(self._ticks):
                return
            shown = frame, damaged
        self.found = float(self._last - self._video.origin)
        if shown is None:
            raise VideoRejected("damaged: none of its pictures can be decoded")
        for tick in self._ticks[following:]:
            yield tick, *shown

    def check(self) -> None:
        """Refuse a file that ends before its header says, but not one with longer sound; its windows are good.

        Raises:
          VideoRejected: it was cut off.
        """
        said = self._video.end
        if self.found is None or said is None:
            return
        tolerance = max(0.5, 0.05 * said)
        reach = float(self._reach - self._video.origin)
        if self.found < said - tolerance and (self._video.exact_end or reach < said - tolerance):
            raise VideoRejected(f"cut off: its pictures end at {self.found:.1f} s of {said:.1f} s")

    def _decoded(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Pictures in the order in which they are shown, and whether one of the group up to it is damaged."""
        context = self._video.stream.codec_context
        by_order = self._video.times_by_order
        damaged, time = False, None
        incomplete: set[int | None] = set()
        for packet, needed in self._packets():
            if packet is not None and packet.is_corrupt:
                incomplete.add(packet.pts)
            if packet is not None and context.codec.name in SKIPPING:
                context.skip_frame = "DEFAULT" if needed else "NONREF"
            try:
                frames = context.decode(packet)
            except (MemoryError, av.MemoryError):
                raise
            except av.FFmpegError:  # what depends on it is damaged; the next key picture does not
                damaged = True
                continue
            for frame in frames:
                if by_order:
                    frame.pts = time = time_by_order(frame, time)
                damaged = frame.is_corrupt or frame.pts in incomplete or (damaged and not frame.key_frame)
                yield frame, damaged

    def _packets(self) -> Iterator[tuple[Packet | None, bool]]:
        """The packets to decode, each with whether its own picture is wanted; the last is None."""
        ahead: collections.deque[Packet] = collections.deque()
        near: collections.deque[int] = collections.deque()  # times of the packets around the next one, in their order
        starts: list[int] = []  # the same, ascending
        first = True

        def one() -> tuple[Packet, bool] | None:
            nonlocal first
            packet = ahead.popleft()
            wanted = first or self._wanted(packet, starts)
            first = False
            alone = packet.is_keyframe and bool(ahead) and ahead[0].is_keyframe  # no other picture needs it
            return None if alone and not wanted else (packet, wanted)

        for packet in self._all():
            ahead.append(packet)
            if packet.pts is not None and not packet.is_discard:
                near.append(packet.pts)
                bisect.insort(starts, packet.pts)
                if len(near) > 3 * _AHEAD:
                    starts.remove(near.popleft())
            if len(ahead) > _AHEAD and (found := one()) is not None:
                yield found
        while ahead:
            if (found := one()) is not None:
                yield found
        yield None, True

    def _wanted(self, packet: Packet, starts: Sequence[int]) -> bool:
        """Whether its picture is shown at one of the times; true where that cannot be known."""
        if packet.pts is None or self._video.times_by_order:
            return True
        after = bisect.bisect_right(starts, packet.pts)
        number = bisect.bisect_left(self._ticks, packet.pts)
        return after == len(starts) or (number < len(self._ticks) and self._ticks[number] < starts[after])

    def _all(self) -> Iterator[Packet]:
        for packet in self._video.container.demux():
            if not packet.size:
                continue
            self._reach = max(self._reach, end_of(packet))
            if packet.stream_index != self._video.stream.index:
                continue
            self._last = max(self._last, end_of(packet))
            yield packet
