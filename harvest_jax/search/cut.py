"""Moments as files of their own, without encoding anything again; and the first of them in a player."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
from av.packet import Packet

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.still import is_still
from data_pipeline.decode.video_file import OpenVideo, exact_fraction, open_video
from data_pipeline.decode.wanted_pictures import SEEK_BACK
from data_pipeline.media_paths import VideoRejected, open_regular
from harvest_jax.files import atomic_file
from harvest_jax.search.find import Moment

_KEPT = ("video", "audio")
_SAME = 0.002  # seconds within which two times are the same
_PLAYERS = (("mpv", "--start={start:.3f}", "--"), ("vlc", "--start-time={start:.3f}"), ("ffplay", "-ss", "{start:.3f}"))


def cut(source: Path, moment: Moment, folder: Path) -> Path:
    """Copy a moment of a video to a file in a folder: its pictures and sound, as they are encoded.

    It begins with the key picture before the moment, so that it can be played, and ends with the moment. The container
    stays if it is MP4, MOV or WebM; it is Matroska otherwise, or where another refuses the codecs. A picture is copied.

    Raises:
      VideoRejected: the source cannot be read, or no container takes its streams.
      OSError: the file cannot be written; nothing is left of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = DecodeSpec()
    with open_regular(source, spec.max_bytes) as file:
        if is_still(file.read(12)):
            target = folder / _name(source, moment, source.suffix)
            with atomic_file(target, durable=False) as aside:
                shutil.copyfile(source, aside)
            return target
    suffix = source.suffix.lower() if source.suffix.lower() in (".mp4", ".mov", ".webm") else ".mkv"
    for ending in dict.fromkeys([suffix, ".mkv"]):
        target = folder / _name(source, moment, ending)
        try:
            with (
                open_regular(source, spec.max_bytes) as file,
                open_video(file, spec) as video,
                atomic_file(target, durable=False) as aside,
            ):
                _copy(video, aside, {".mkv": "matroska"}.get(ending, ending[1:]), moment.start, moment.end)
            return target
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (28, 27, 122):  # no space, too large, quota
                raise
            refused = error
    raise VideoRejected(f"unsupported codec: no container takes its streams as they are ({refused})", source)


def _copy(video: OpenVideo, target: Path, kind: str, start: float, end: float) -> None:
    with av.open(str(target), "w", format=kind) as output:
        streams = {
            stream.index: output.add_stream_from_template(stream)
            for stream in video.container.streams
            if stream.type in _KEPT and (stream.type != "video" or stream.index == video.stream.index)
        }
        begun: float | None = None
        for packet in _between(video, list(streams), start, end):
            seconds = _seconds(video, packet)
            if begun is None:
                begun = seconds  # the first one is the key picture
            if packet.stream_index != video.stream.index and seconds < begun:
                continue
            shift = round((begun + float(video.origin)) / float(exact_fraction(packet.time_base)))
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = streams[packet.stream_index]
            output.mux(packet)


def _between(video: OpenVideo, streams: list[int], start: float, end: float) -> Iterator[Packet]:
    """The packets from the last key picture at or before a time, which comes first, to another time."""
    for back in (0.0, *SEEK_BACK, start):  # where some formats end up is after the time that was asked for
        video.container.seek(video.ticks(max(0.0, start - back)), stream=video.stream)
        held: list[Packet] | None = []  # from the last key picture on; None: they are given
        for packet in video.container.demux([video.container.streams[index] for index in streams]):
            if not packet.size or packet.dts is None:
                continue
            seconds, pictures = _seconds(video, packet), packet.stream_index == video.stream.index
            if held is None:
                if pictures and float(packet.dts * exact_fraction(packet.time_base) - video.origin) >= end:
                    return
                if seconds < end or pictures:
                    yield packet
            elif pictures and packet.is_keyframe and seconds <= start + _SAME:
                held = [packet]
            elif pictures and seconds > start + _SAME and held:
                yield from held
                yield packet
                held = None
            elif pictures and packet.is_keyframe:  # a later one
                break
            elif held:
                held.append(packet)
        if held is None or held:
            yield from held or []
            return
    raise VideoRejected("damaged: it has no key picture before the moment")


def _seconds(video: OpenVideo, packet: Packet) -> float:
    """When a packet is shown or heard, as a player counts."""
    ticks = packet.pts if packet.pts is not None else packet.dts or 0
    return float(ticks * exact_fraction(packet.time_base) - video.origin)


def _name(source: Path, moment: Moment, suffix: str) -> str:
    stem = re.sub(r"[^\w .+-]", "_", source.stem)[:80].lstrip("-. ") or "moment"
    return f"{moment.rank:02d} {stem} {moment.start:.1f}-{moment.end:.1f}s{suffix}"


def play(path: Path, start: float) -> str:
    """Open a file in a player, at a time where one is found that can; otherwise in the system's own program.

    Returns:
      the program; empty if there is none.
    """
    full = os.path.abspath(path)
    words: list[str] = []
    for program, *options in _PLAYERS:
        if shutil.which(program):
            words = [program, *(option.format(start=start) for option in options), full]
            break
    else:
        opener = shutil.which("xdg-open") or shutil.which("open")
        words = [opener, full] if opener else []
    if not words:
        return ""
    subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return os.path.basename(words[0])
