"""Moments as files of their own, without encoding anything again; and the first of them in a player."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
from av.packet import Packet
from av.stream import Stream

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.still import is_still
from data_pipeline.decode.video_file import OpenVideo, exact_fraction, open_video
from data_pipeline.media_paths import VideoRejected, open_regular
from harvest_jax.files import atomic_file
from harvest_jax.search.find import Moment

_KEPT = ("video", "audio")
_PLAYERS = (("mpv", "--start={start:.3f}", "--"), ("vlc", "--start-time={start:.3f}"), ("ffplay", "-ss", "{start:.3f}"))


def cut(source: Path, moment: Moment, folder: Path) -> Path:
    """Copy a moment of a video to a file in a folder: its pictures and sound, as they are encoded.

    It begins with the key picture before the moment, so that it can be played, and ends with the moment. The container
    stays if it is MP4, MOV or WebM, and is Matroska otherwise, or where another refuses the codecs. A picture is copied.

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
            with open_regular(source, spec.max_bytes) as file, open_video(file, spec) as video:
                with atomic_file(target, durable=False) as aside:
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
        begun: float | None = None  # the key picture's time, on the clock of the file
        for packet, kept in _between(video, streams, start, end):
            seconds = float((packet.pts or 0) * exact_fraction(packet.time_base))
            if begun is None:
                if packet.stream_index != video.stream.index or not packet.is_keyframe:
                    continue
                begun = seconds
            shift = round(begun / float(exact_fraction(packet.time_base)))
            if packet.stream_index != video.stream.index and seconds < begun:
                continue
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = kept
            output.mux(packet)


def _between(video: OpenVideo, streams: dict[int, Stream], start: float, end: float) -> Iterator[tuple[Packet, Stream]]:
    """The packets from the key picture before a time to another time."""
    video.container.seek(video.ticks(start), stream=video.stream)
    for packet in video.container.demux([video.container.streams[index] for index in streams]):
        if not packet.size or packet.dts is None:
            continue
        seconds = float(packet.dts * exact_fraction(packet.time_base) - video.origin)
        if seconds >= end and packet.stream_index == video.stream.index:
            return
        if seconds < end:
            yield packet, streams[packet.stream_index]


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
