"""The packets of a stretch of a video: what has to be read and decoded for some wanted pictures.

A stretch is read through first, without decoding, because only the times of all its packets say which picture is shown
when. Its data are kept while they are little; of a long or a high-bitrate video they are read a second time, so that
memory is bounded by a few frames, not by the file.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.video_file import OpenVideo, exact_fraction, seek
from data_pipeline.decode.wanted_pictures import SEEK_BACK
from data_pipeline.media_paths import VideoRejected


class EndMeasured(Exception):
    """The video ends at another time than the header says, and the file is complete."""

    def __init__(self, seconds: float):
        super().__init__(seconds)
        self.seconds = seconds


class Mark(NamedTuple):
    """What a packet says of its picture.

    Attributes:
      pts: when it is shown, in ticks; None if the file does not say it.
      key: it can be decoded without others.
      hidden: it is decoded for others alone.
    """

    pts: int | None
    key: bool
    hidden: bool


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Packets of one video stream in decoding order.

    Attributes:
      video: which they are of.
      begin: where reading starts, a time in ticks; None: at the start of the file.
      marks: of each packet.
      held: the packets; None: they are too large to keep and are read again.
    """

    video: OpenVideo
    begin: int | None
    marks: list[Mark]
    held: list[Packet] | None

    def packets(self) -> Iterator[Packet]:
        """The packets, each as its mark says.

        Raises:
          VideoRejected: when they are read again, others come.
        """
        if self.held is not None:
            yield from self.held
            return
        with _at(self.video, self.begin) as container:
            packets = (packet for packet in container.demux(self.video.stream.index) if packet.size)
            for mark in self.marks:
                packet = next(packets, None)
                if packet is None or packet.pts != mark.pts:
                    raise VideoRejected("damaged: read a second time, it has other pictures")
                yield packet


@contextmanager
def _at(video: OpenVideo, begin: int | None) -> Iterator[InputContainer]:
    """The container at a time in ticks; None: opened again, at its start."""
    if begin is None:
        try:
            again = video.again()
        except av.FFmpegError as error:
            raise VideoRejected("damaged: it cannot be opened a second time") from error
        with again:
            yield again
        return
    if not seek(video, begin):
        raise VideoRejected("damaged: seeking to an earlier time fails")
    yield video.container


def read_stretch(video: OpenVideo, ticks: Sequence[int], spec: DecodeSpec, fresh: bool, trust_end: bool) -> Stretch:
    """Read what has to be decoded for the pictures at some times, from the last key picture before them.

    Args:
      video: open.
      ticks: the times, ascending.
      spec: limits.
      fresh: the file has just been opened: its position is its start.
      trust_end: the end of the video was measured; else it is compared with the packets.

    Raises:
      VideoRejected: too many packets, damaged, cut off.
      EndMeasured: the header's end is wrong, and the wanted pictures depend on it.
    """
    first = video.seconds(ticks[0])
    for back in SEEK_BACK:
        if fresh and first <= 2 * back:
            break
        begin = video.ticks(max(0.0, first - back))
        if not seek(video, begin):
            break
        fresh = False
        stretch = _read(video, video.container, begin, ticks[-1], spec, trust_end)
        if any(mark.key and mark.pts is not None and mark.pts <= ticks[0] for mark in stretch.marks):
            return stretch
    if fresh:
        return _read(video, video.container, None, ticks[-1], spec, trust_end)
    with _at(video, None) as container:
        return _read(video, container, None, ticks[-1], spec, trust_end)


def _read(
    video: OpenVideo, container: InputContainer, begin: int | None, last_tick: int, spec: DecodeSpec, trust_end: bool
) -> Stretch:
    marks: list[Mark] = []
    held: list[Packet] | None = []
    size = 0
    reach = found = video.origin  # the latest end of a packet: of any stream, including sound; of this one
    for packet in container.demux():
        if not packet.size:
            continue
        reach = max(reach, end_of(packet))
        if packet.stream_index != video.stream.index:
            continue
        if packet.dts is not None and packet.dts > last_tick and marks:
            return Stretch(video, begin, marks, held)
        if packet.is_corrupt:
            raise VideoRejected(f"damaged: a picture near {float(end_of(packet) - video.origin):.1f} s is incomplete")
        found = max(found, end_of(packet))
        marks.append(Mark(packet.pts, packet.is_keyframe, packet.is_discard))
        if len(marks) > spec.max_packets:
            raise VideoRejected(f"too large: more than {spec.max_packets:,} pictures at once")
        size += packet.size
        if held is not None:
            held.append(packet)
            if size > spec.max_held_bytes:
                held = None
    if not trust_end and video.end is not None:
        _check_end(video, float(found - video.origin), last_tick, float(reach - video.origin))
    return Stretch(video, begin, marks, held)


def _check_end(video: OpenVideo, found: float, last_tick: int, reach: float) -> None:
    """Compare the end of the file with its header. Refuse a file that was cut off, but not one with longer sound."""
    said = video.end or 0.0
    tolerance = max(0.5, 0.05 * said)
    if found >= said - tolerance:
        return
    if video.exact_end or reach < said - tolerance:
        raise VideoRejected(f"cut off: its pictures end at {found:.1f} s of {said:.1f} s")
    if video.seconds(last_tick) > found:
        raise EndMeasured(found)


def end_of(packet: Packet) -> Fraction:
    """When the picture or sound of a packet ends, in seconds on the stream's clock."""
    ticks = (packet.pts if packet.pts is not None else packet.dts or 0) + (packet.duration or 0)
    return ticks * exact_fraction(packet.time_base)


def shown_at(marks: Sequence[Mark], ticks: Sequence[int]) -> list[int] | None:
    """The times of the pictures that are shown at some times: each the last that starts before; None if unknown."""
    starts = sorted(mark.pts for mark in marks if mark.pts is not None and not mark.hidden)
    if not starts or any(mark.pts is None for mark in marks) or len({mark.pts for mark in marks}) < len(marks):
        return None
    return sorted({starts[max(0, bisect.bisect_right(starts, tick) - 1)] for tick in ticks})


def needed(marks: Sequence[Mark], wanted: Sequence[int]) -> list[range]:
    """Which packets have to be decoded for some pictures: numbers of `marks`, in ranges that begin at a key picture.

    A picture needs those from the last key picture before it. One that is shown before that key picture (an open group
    of pictures) may also need the group before.

    Args:
      marks: of packets in decoding order, with different times.
      wanted: times of pictures among them, in ticks.
    """
    numbers = {mark.pts: number for number, mark in enumerate(marks)}
    keys = [number for number, mark in enumerate(marks) if mark.key]
    pieces = []
    for pts in wanted:
        number = numbers[pts]
        group = bisect.bisect_right(keys, number) - 1
        if group >= 0 and pts < (marks[keys[group]].pts or 0):
            group -= 1
        pieces.append((keys[group] if group >= 0 else 0, number + 1))
    ranges: list[range] = []
    for start, stop in sorted(pieces):
        if ranges and start <= ranges[-1].stop:
            ranges[-1] = range(ranges[-1].start, max(stop, ranges[-1].stop))
        else:
            ranges.append(range(start, stop))
    return ranges
