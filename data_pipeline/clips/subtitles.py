"""Subtitles beside a video, `NAME.srt` or `NAME.vtt`, as captions of its clips."""

import dataclasses
import html
import re
from collections.abc import Iterable, Iterator, Sequence

from data_pipeline.media_paths import VideoRejected, local_name, open_regular, resolve_below

SUFFIXES = (".srt", ".vtt")
_MAX_BYTES = 16 << 20
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_SPAN = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_MARKS = re.compile(r"<[^<>]*>|\{[^{}]*\}")  # <i>, <00:00:01.000>, {\an8}


@dataclasses.dataclass(frozen=True)
class Cue:
    """A text that is shown from `start` to `end`, in seconds; its lines."""

    start: float
    end: float
    lines: tuple[str, ...]


def beside(stem: str, names: Iterable[str]) -> str | None:
    """Which of the files in a folder has the subtitles of a video; None: none has.

    `NAME.srt` comes before `NAME.vtt`, and both before one with a language, `NAME.en.srt`, of which the first by name.
    """
    mine = [name for name in names if name.startswith(f"{stem}.") and name.lower().endswith(SUFFIXES)]
    return min(mine, key=lambda name: (name.count(".", len(stem)), name[-3:].lower(), name), default=None)


def read_subtitles(root: str, name: str) -> list[Cue]:
    """The cues of a file below a root, in order of time; lines that are not understood are passed over.

    Raises:
      VideoRejected: the file cannot be read.
    """
    try:
        with open_regular(resolve_below(root, local_name(name)), _MAX_BYTES) as file:
            raw = file.read(_MAX_BYTES)
    except VideoRejected as error:
        if error.reason.startswith("empty file"):
            return []
        raise
    return sorted(_cues(raw.decode("utf-8-sig", "replace").splitlines()), key=lambda cue: cue.start)


def _cues(lines: Sequence[str]) -> Iterator[Cue]:
    number = 0
    while number < len(lines):
        found = _SPAN.match(lines[number])
        number += 1
        if not found:
            continue
        texts = []
        while number < len(lines) and lines[number].strip():
            texts.append(" ".join(html.unescape(_MARKS.sub("", lines[number])).split()))
            number += 1
        yield Cue(_seconds(*found.groups()[:4]), _seconds(*found.groups()[4:]), tuple(filter(None, texts)))


def _seconds(hours: str | None, minutes: str, seconds: str, parts: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + int(parts.ljust(3, "0")) / 1000


def caption_of(cues: Iterable[Cue], start: float, end: float) -> str:
    """What is said in a span: each cue belongs to the span that holds its middle.

    A line that repeats the one before it is left out: automatic subtitles scroll.
    """
    said: list[str] = []
    for cue in cues:
        if start <= (cue.start + cue.end) / 2 < end:
            for line in cue.lines:
                if line not in said[-2:]:
                    said.append(line)
    return " ".join(said)
