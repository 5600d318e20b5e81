"""Frames of an evaluation's clips: decoded from video files, or read from shards."""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from harvest_jax.evaluate.clips.jpeg_quality import jpeg_quality
from harvest_jax.evaluate.clips.known_clips import ClipContent, KnownClip, KnownClips
from harvest_jax.evaluate.clips.stored_parts import other_part
from harvest_jax.evaluate.clips.video_files import stem, stems
from harvest_jax.machine import available_cores
from harvest_jax.pixels.frame_sampling import Sampling

if TYPE_CHECKING:
    from data_pipeline.shards.shard_format import Record

_DEFAULT = Sampling()
Frames = UInt8[np.ndarray, "t s s 3"]


@dataclasses.dataclass(frozen=True)
class VideoSpan:
    """One video, or a part of it.

    Attributes:
      video: name of the file; for clips of shards alone the record's id.
      start, end: seconds in the file; None: its start, its end.
      name: what the file is called in its set, see `named`; "": its stem.
    """

    video: str
    start: float | None = None
    end: float | None = None
    name: str = dataclasses.field(default="", compare=False)

    @property
    def key(self) -> list[Any]:
        """What the clip is known by, wherever its file lies and in whatever format: name, start and end."""
        return [self.name or stem(self.video), self.start, self.end]

    @property
    def shard_ids(self) -> list[str]:
        """The ids that `harvest shards` gives the clip if the manifest has none."""
        span = "".join(f"_{time:.10g}" for time in (self.start, self.end) if time is not None)
        return [f"{name}{span}" for name in stems(self.video)]


def named(clips: Sequence[VideoSpan]) -> tuple[VideoSpan, ...]:
    """The clips with names that tell the set's files apart: the stem, with folders before it where stems repeat."""
    paths = {clip.video: (*PurePosixPath(clip.video).parent.parts, stem(clip.video)) for clip in clips}
    names = dict.fromkeys(paths, "")
    for depth in range(1, max(map(len, paths.values()), default=0) + 1):
        tails = {video: "/".join(parts[-depth:]) for video, parts in paths.items()}
        count = collections.Counter(tails.values())
        names |= {video: tail for video, tail in tails.items() if not names[video] and count[tail] == 1}
    # what is left differs in the suffix alone
    return tuple(dataclasses.replace(clip, name=names[clip.video] or clip.video) for clip in clips)


@dataclasses.dataclass(frozen=True)
class ClipFrames:
    """Frames of a clip as the model sees them.

    Attributes:
      views: uint8 RGB, of each view and crop; all have the same number of frames, except at a rate (`fps`).
      distinct: how many different frames of the source they show: a short clip has fewer than are asked for.
      converted: the video is HDR or has a wide gamut, and its colours were converted.
    """

    views: Sequence[Frames]
    distinct: int
    converted: bool = False


Clip = ClipFrames | KnownClip | str  # frames, no need of them, or the reason why there are none


@runtime_checkable
class FrameReader(Protocol):
    """The frames of all clips of a set."""

    def read(
        self, num_frames: int, image_size: int, resize: str, sampling: Sampling, known: KnownClips | None = None
    ) -> Iterator[tuple[int, Clip]]:
        """Pairs of a clip's number and its frames, or the reason why there are none; each clip once, in any order.

        Args:
          num_frames: frames of each view of a clip; at a rate, the most.
          image_size: side of the square in pixels.
          resize: how pictures become squares, as the model's `Preprocessing.resize`.
          sampling: which frames, views and crops.
          known: clips that it knows are not decoded; None: all are.
        """

    def preparation(self) -> dict[str, Any]:
        """What decides about the frames of a clip besides its content and the arguments of `read`, as JSON."""

    def absent(self) -> dict[int, str]:
        """Clips that are known to be missing before anything is read, with the reason."""

    def described(self) -> dict[str, Any]:
        """What decides about the frames besides their number, as JSON; call it after `read`."""

    def digest(self, number: int) -> str | None:
        """SHA-256 (hex) of the stored frames of a clip that was read; None if no frames are stored."""


class ShardReader:
    """Frames from shards: some of the stored frames of each record."""

    def __init__(self, shards: str, split: str, ids: dict[str, int], clips: Sequence[VideoSpan], whole: bool = False):
        """A reader.

        Args:
          shards, split: where the records are.
          ids: clip number by row id; a clip's frames may be stored under the id of any of its rows.
          clips: their spans. A record of another part of the video is not the clip's.
          whole: the clips are those of the shards, so that none is absent.
        """
        self._whole = whole
        self._shards, self._split, self._ids, self._clips = shards, split, ids, clips
        self._frames: collections.Counter[int] = collections.Counter()  # of the records read
        self._short_sides: collections.Counter[int] = collections.Counter()
        self._qualities: set[int | None] = set()
        self._digests: dict[int, str] = {}
        self._sampling = _DEFAULT

    def read(
        self,
        num_frames: int,
        image_size: int,
        resize: str,
        sampling: Sampling = _DEFAULT,
        known: KnownClips | None = None,
    ) -> Iterator[tuple[int, Clip]]:
        """See `FrameReader`."""
        self._sampling = sampling
        from data_pipeline.shards.shard_format import frame_size
        from harvest_jax.input.pipeline import evaluation_views

        seen: set[int] = set()
        others: dict[int, str] = {}
        skipped: collections.deque[tuple[int, Clip]] = collections.deque()

        def wanted(record: "Record") -> bool:
            """Whether the record is decoded: it is the first of one of the set's clips, and not known."""
            number = self._clip_of(record.id, record.seconds, others)
            if number is None or number in seen:
                return False
            seen.add(number)
            self._frames[len(record.jpegs)] += 1
            with contextlib.suppress(ValueError):  # decoding it says which record it is
                self._short_sides[min(frame_size(record.jpegs[0]))] += 1
                self._qualities.add(jpeg_quality(record.jpegs[0]))
            self._digests[number] = hashlib.sha256(b"".join(map(_digest, record.jpegs))).hexdigest()
            times = repr([float(time) for time in record.seconds])  # at a rate they choose the frames
            content = ClipContent(hashlib.sha256(f"{self._digests[number]} {times}".encode()).hexdigest())
            found = known.look_up(number, content) if known else None
            if found is not None:
                skipped.append((number, found))
            return found is None

        clips = evaluation_views(self._shards, self._split, num_frames, image_size, resize, sampling, wanted)
        for record, views, distinct in clips:
            while skipped:
                yield skipped.popleft()
            yield self._ids[record.id], ClipFrames(views, distinct)
        yield from skipped
        yield from self._reasons(seen, others).items()

    def absent(self) -> dict[int, str]:
        """See `FrameReader`; every record is read, and its pictures are passed over."""
        if self._whole:
            return {}
        from data_pipeline.shards.shard_format import open_shards, parse_record

        source = open_shards(self._shards, self._split)
        others: dict[int, str] = {}
        records = (parse_record(source[number], frames=False) for number in range(len(source)))
        stored = {self._clip_of(record.id, record.seconds, others) for record in records}
        return self._reasons(stored, others)

    def described(self) -> dict[str, Any]:
        """See `FrameReader`. Short videos have fewer frames and small ones are not enlarged, so the most count."""
        return {
            "from": "shards",
            **self._sampling.described(),
            "sampling": f"{self._sampling.policy} of the stored frames, which are segment_middle of the clip",
            "stored_frames": max(self._frames, default=0),
            "stored_short_side": max(self._short_sides, default=0),
            "jpeg_quality": sorted(self._qualities, key=str),
            "decoder": "libjpeg-turbo",
            "frames_sha256": hashlib.sha256("".join(sorted(self._digests.values())).encode()).hexdigest(),
        }

    def preparation(self) -> dict[str, Any]:
        """See `FrameReader`."""
        versions = {name: version(name) for name in ("simplejpeg", "pillow")}
        return {"from": "shards", "decoder": "libjpeg-turbo", **versions}

    def digest(self, number: int) -> str | None:
        """See `FrameReader`."""
        return self._digests.get(number)

    def _clip_of(self, record_id: str, seconds: Sequence[float], others: dict[int, str]) -> int | None:
        """The number of the clip that a record is of; None if it is of none.

        Where it is of another part of the video, the reason is added to `others`.
        """
        number = self._ids.get(record_id)
        if number is None or self._whole:
            return number
        clip = self._clips[number]
        fault = other_part(clip.start, clip.end, seconds)
        if fault:
            others[number] = fault
        return None if fault else number

    def _reasons(self, found: set[int] | set[int | None], others: dict[int, str]) -> dict[int, str]:
        """Why there is no record of the clips that were not found."""
        reasons = self._rejected() | others
        missing = f"not in split {self._split} of the shards"
        return {number: reasons.get(number, missing) for number in range(len(self._clips)) if number not in found}

    def _rejected(self) -> dict[int, str]:
        from data_pipeline.shards.rejects import read_rejects

        rejects = read_rejects(Path(self._shards), self._split)
        return {self._ids[row_id]: reason for row_id, _, reason in rejects if row_id in self._ids}


class VideoReader:
    """Frames from video files, decoded by worker processes; a damaged file can cost one clip but not the evaluation."""

    def __init__(self, root: Path, paths: Sequence[str | None], clips: Sequence[VideoSpan], workers: int):
        """A reader.

        Args:
          root: folder that the paths start from, a real path.
          paths: the file of each clip; None if there is none.
          clips: their spans.
          workers: processes; 0: one for each CPU core.
        """
        self._root, self._paths, self._clips, self._workers = root, paths, clips, workers
        self._sampling = _DEFAULT
        self._converted = False  # the colours of a clip that was read

    def read(
        self,
        num_frames: int,
        image_size: int,
        resize: str,
        sampling: Sampling = _DEFAULT,
        known: KnownClips | None = None,
    ) -> Iterator[tuple[int, Clip]]:
        """See `FrameReader`."""
        self._sampling, self._converted = sampling, False
        from data_pipeline.decode.pool import Span, VideoDecoder
        from data_pipeline.media_paths import VideoRejected
        from harvest_jax.pixels.frame_sampling import segment_indices
        from harvest_jax.pixels.square import view_clips

        paths: dict[int, str] = {}
        for number in range(len(self._clips)):
            path, reason = self._resolved(number)
            if reason:
                yield number, reason
            else:
                paths[number] = path
        waiting: collections.deque[int] = collections.deque()  # clips whose frames are being decoded
        skipped: collections.deque[tuple[int, Clip]] = collections.deque()

        def spans() -> Iterator[Span]:
            """Of the clips to decode. Taken as the decoder needs them, so that a file is hashed and decoded in turn."""
            digests = known.file_digests(paths.values()) if known else itertools.repeat(None, len(paths))
            for (number, path), sha256 in zip(paths.items(), digests, strict=True):
                clip = self._clips[number]
                content = ClipContent(sha256, clip.start, clip.end, path) if sha256 else None
                found = known.look_up(number, content) if known and content else None
                if found is not None:
                    self._converted |= found.converted
                    skipped.append((number, found))
                else:
                    waiting.append(number)
                    yield path, clip.start, clip.end

        fit = resize if sampling.crops == 1 else "shorter"
        workers = self._workers or available_cores()
        with VideoDecoder(num_frames, image_size, workers, fit=fit, sampling=sampling) as decoder:
            for decoded in decoder.decode_views(spans()):
                while skipped:
                    yield skipped.popleft()
                number = waiting.popleft()
                if isinstance(decoded, VideoRejected):
                    yield number, decoded.reason
                    continue
                views: Sequence[Int[np.ndarray, " _"]] = decoded.views
                if sampling.policy == "segment_middle" and sampling.views == 1:  # as in training, search and shards
                    views = [segment_indices(len(decoded.frames), num_frames, None)]
                prepared = view_clips(decoded.frames, views, image_size, resize, sampling.crops)
                self._converted |= decoded.converted
                yield number, ClipFrames(prepared, len(decoded.frames), decoded.converted)
        yield from skipped

    def absent(self) -> dict[int, str]:
        """See `FrameReader`; the files are looked for and not opened."""
        found = {}
        for number in range(len(self._clips)):
            path, reason = self._resolved(number)
            if reason or not os.path.exists(path):
                found[number] = reason or "not found: No such file or directory"
        return found

    def described(self) -> dict[str, Any]:
        """See `FrameReader`; how colours are converted, if any were."""
        from data_pipeline.decode.colours import CONVERSION

        colours = {"colours": CONVERSION} if self._converted else {}
        return {"from": "video files", **self._sampling.described(), "decoder": "FFmpeg", **colours}

    def preparation(self) -> dict[str, Any]:
        """See `FrameReader`; with the versions of PyAV and of the FFmpeg that it was built with."""
        import av

        ffmpeg = {name: ".".join(map(str, numbers)) for name, numbers in sorted(av.library_versions.items())}
        versions = {name: version(name) for name in ("av", "pillow")}
        return {"from": "video files", "decoder": "FFmpeg", "ffmpeg": ffmpeg, **versions}

    def digest(self, number: int) -> str | None:
        """See `FrameReader`."""
        return None

    def _resolved(self, number: int) -> tuple[str, str]:
        """The path of a clip's file, and the reason if there is none or its name cannot be used."""
        from data_pipeline.media_paths import VideoRejected, resolve_below

        path = self._paths[number]
        if path is None:
            return "", f"not found: no video of this name below {self._root}"
        try:
            return resolve_below(str(self._root), path), ""
        except VideoRejected as fault:
            return "", fault.reason


def _digest(jpeg: bytes) -> bytes:
    return hashlib.sha256(jpeg).digest()
