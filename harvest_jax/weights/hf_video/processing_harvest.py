# Copyright 2026 The harvest_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Videos and texts as a harvest_jax model sees them: `AutoProcessor.from_pretrained(FOLDER, trust_remote_code=True)`.

The same numbers as harvest_jax's own: PyAV decodes, FFmpeg converts to RGB with the same flags, Pillow resizes the
whole picture. Needs av, ftfy, numpy, pillow, torch and transformers.
"""

import contextlib
import html
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import ftfy
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

# A playlist that is named .mp4 would make FFmpeg open other files and addresses: known formats only.
OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,asf,flv",
    "protocol_whitelist": "none",
}
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Titles that are not UTF-8 must not raise an error; PyAV from version 19 on handles them itself.
ERRORS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
HDR = (16, 18)  # transfer functions PQ and HLG, as FFmpeg numbers them
WIDE = (9, 12)  # primaries BT.2020 and Display P3
SEEK_GAP = 10.0  # seconds: to wanted pictures further apart it seeks
SEEK_BACK = (Fraction(1), Fraction(10))  # seconds before a picture where its key picture is looked for
WHITESPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")


class HarvestVideoTokenizer(PreTrainedTokenizerFast):
    """CLIP's tokenizer on text that is cleaned first, as OpenAI's does: repaired, unescaped, lower case."""

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of any tokenizer; `text` is a string or a list of strings."""
        return super().__call__(clean(text) if isinstance(text, str) else [clean(one) for one in text], *args, **kwargs)


class HarvestVideoProcessor(ProcessorMixin):
    """Texts to token ids, videos to normalised pixels.

    Args:
      tokenizer: of the model.
      num_frames: frames taken of a clip: the middles of as many equal parts.
      image_size: side of the square that the model sees, in pixels.
      resize: "crop": the shorter side is resized to `image_size`, then the centre is cut; "squash": both sides.
      image_mean, image_std: of RGB in 0..1.
    """

    attributes = ["tokenizer"]  # noqa: RUF012 (read by transformers as it is)
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        num_frames: int = 8,
        image_size: int = 224,
        resize: str = "crop",
        image_mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        image_std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        **kwargs: Any,
    ) -> None:
        self.num_frames, self.image_size, self.resize = num_frames, image_size, resize
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        super().__init__(tokenizer, **kwargs)

    def __call__(self, text: Any = None, videos: Any = None, **kwargs: Any) -> BatchFeature:
        """Prepare texts, videos, or both.

        Args:
          text: a string or a list of strings; what exceeds the model's context is cut.
          videos: one video or a list of them. A video is a path, or its frames: uint8 RGB [T, H, W, 3] or [T, 3, H, W]
            as an array or a tensor, or a list of Pillow's pictures.
          kwargs: for the tokenizer.

        Returns:
          torch tensors: `input_ids` and `attention_mask` int64 [B, L], L the longest of the batch;
          `pixel_values_videos` float32 [B, num_frames, 3, image_size, image_size].
        """
        data: dict[str, Any] = {}
        if text is not None:
            settings = {"padding": True, "truncation": True, "return_tensors": "pt"} | kwargs
            data.update(self.tokenizer([text] if isinstance(text, str) else list(text), **settings))
        if videos is not None:
            data["pixel_values_videos"] = torch.stack([self.normalise(self.frames(video)) for video in several(videos)])
        return BatchFeature(data)

    def frames(self, video: Any) -> np.ndarray:
        """The frames that the model sees, before normalisation: uint8 RGB [num_frames, image_size, image_size, 3]."""
        if isinstance(video, str | os.PathLike):
            pictures: Any = read_pictures(os.fspath(video), self.num_frames)
        else:
            frames = list(video)
            if not frames:
                raise ValueError("a video without frames")
            pictures = (rgb(frames[i]) for i in sorted(set(middles(len(frames), self.num_frames))))
        squares = [square(picture, self.image_size, self.resize) for picture in pictures]
        return np.stack([squares[i] for i in middles(len(squares), self.num_frames)])

    def normalise(self, frames: np.ndarray) -> torch.Tensor:
        """uint8 [T, S, S, 3] to float32 [T, 3, S, S]."""
        mean, std = (torch.tensor(row, dtype=torch.float32) for row in (self.image_mean, self.image_std))
        return ((torch.from_numpy(frames).float() / 255.0 - mean) / std).permute(0, 3, 1, 2)


def clean(text: str) -> str:
    """Text with broken encodings repaired, entities unescaped, spaces single and letters in lower case."""
    return WHITESPACE.sub(" ", html.unescape(html.unescape(ftfy.fix_text(text))).strip()).strip().lower()


def rgb(frame: Any) -> np.ndarray:
    """One frame as uint8 [H, W, 3], from a picture of Pillow or an array or tensor [H, W, 3] or [3, H, W]."""
    pixels = np.asarray(frame.convert("RGB") if isinstance(frame, Image.Image) else frame)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 3 not in (pixels.shape[0], pixels.shape[2]):
        raise ValueError(f"a frame must be uint8 [H, W, 3] or [3, H, W], not {pixels.dtype} {list(pixels.shape)}")
    return pixels if pixels.shape[2] == 3 else pixels.transpose(1, 2, 0)


def several(videos: Any) -> list[Any]:
    """A list of videos, from one or several."""
    if isinstance(videos, str | os.PathLike) or getattr(videos, "ndim", 5) == 4:
        return [videos]
    videos = list(videos)
    return [videos] if videos and isinstance(videos[0], Image.Image) else videos


def middles(stored: int, wanted: int) -> list[int]:
    """The middle frame of each of `wanted` equal parts of `stored` frames."""
    lows = [i * stored // wanted for i in range(wanted)]
    highs = [max((i + 1) * stored // wanted, low + 1) for i, low in enumerate(lows)]
    return [low + (high - low) // 2 for low, high in zip(lows, highs, strict=True)]


def square(picture: np.ndarray, size: int, resize: str) -> np.ndarray:
    """A whole picture uint8 [H, W, 3] as the square [size, size, 3] that the model sees; bicubic, antialiased."""
    height, width, _ = picture.shape
    shorter = min(height, width)
    rows, columns = (size, size) if resize == "squash" else (size * height // shorter, size * width // shorter)
    if (rows, columns) != (height, width):
        image = Image.fromarray(np.ascontiguousarray(picture))
        picture = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    return np.ascontiguousarray(picture[top : top + size, left : left + size])


def read_pictures(path: str, wanted: int) -> Iterator[np.ndarray]:
    """The pictures that a player shows at the middles of `wanted` equal parts of a video, each once: RGB [H, W, 3].

    Raises:
      ValueError: no video in a known format, or it is damaged or cut off.
    """
    with open_video(path) as video:
        end = video.end(wanted)
    with open_video(path) as video:  # once more: reading it through may have been necessary, and GIF cannot go back
        yield from video.pictures([video.tick((i + 0.5) * (end / wanted)) for i in range(wanted)])


@contextlib.contextmanager
def open_video(path: str) -> Iterator["Video"]:
    """A video, closed at the end."""
    with open(path, "rb") as file:
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)  # FFmpeg shall not guess by the name
        try:
            with av.open(nameless, "r", options=OPTIONS, **ERRORS) as container:
                yield Video(path, container)
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"{path} is not a video that can be read: {error.strerror}") from error


class Video:
    """An open video. Times are seconds from the start of the file, as in players; ticks are the stream's clock."""

    def __init__(self, path: str, container: Any) -> None:
        streams = [one for one in container.streams.video if not one.disposition & one.disposition.attached_pic]
        if not streams:
            raise ValueError(f"{path} has no video stream")
        self.path, self.container, self.stream = path, container, streams[0]
        self.base = fraction(self.stream.time_base)
        if self.base <= 0:
            raise ValueError(f"{path}: its pictures carry no times")
        starts = [] if container.start_time is None else [Fraction(container.start_time, av.time_base)]
        starts += [] if self.stream.start_time is None else [self.stream.start_time * self.base]
        self.origin = min(starts, default=Fraction(0))
        self.can_seek = "gif" not in container.format.name
        self.stream.codec_context.thread_count = 1
        self.reformatter = VideoReformatter()

    def tick(self, seconds: float) -> int:
        """The last tick at or before a time."""
        return int((Fraction(seconds) + self.origin) / self.base + Fraction(1, 1000))

    def known_end(self) -> float | None:
        """When the last picture ends, if the header says it of this stream. (MPEG's is an estimate.)"""
        stream = self.stream
        if self.container.format.name == "mpeg" or stream.duration is None or stream.duration <= 0:
            return None
        return float(((stream.start_time or 0) + stream.duration) * self.base - self.origin)

    def end(self, wanted: int) -> float:
        """When the last picture ends. If the header knows the longest stream's end alone, all packets are read."""
        known = self.known_end()
        if known is not None:
            return known
        ends, starts, reach = [], [], Fraction(0)
        for packet in self.container.demux():
            if not packet.size:
                continue
            start = packet.pts if packet.pts is not None else packet.dts or 0
            end = (start + (packet.duration or 0)) * fraction(packet.time_base)
            reach = max(reach, end)  # of any stream, including sound
            if packet.stream is self.stream:
                ends.append(end)
                starts += [] if packet.dts is None else [packet.dts]
        if not ends:
            raise ValueError(f"{self.path} contains no picture")
        found, said = float(max(ends) - self.origin), self.container.duration
        if self.container.format.name == "mpeg" or said is None or said <= 0:
            return found
        seconds = float(Fraction(said, av.time_base))
        last = (wanted - 0.5) * (seconds / wanted)  # the last picture that would be taken
        if found >= seconds - tolerance(seconds) or max(starts, default=0) > self.tick(last):
            return seconds
        if float(reach - self.origin) < seconds - tolerance(seconds):
            raise ValueError(f"{self.path} is cut off: its pictures end at {found:.1f} s of {seconds:.1f} s")
        return found if last > found else seconds

    def pictures(self, ticks: Sequence[int]) -> Iterator[np.ndarray]:
        """The pictures shown at these ticks, each once: uint8 RGB [H, W, 3]."""
        before = None
        for frame in self.shown(ticks):
            if frame.pts != before:
                yield self.rgb(frame)
            before = frame.pts

    def shown(self, ticks: Sequence[int]) -> Iterator[Any]:
        """For each tick the last picture that starts at or before it, or the first of all."""
        frames: Iterator[Any] = self.container.decode(self.stream)
        now, after = next(frames, None), next(frames, None)
        for tick in ticks:
            if self.can_seek and after is not None and (tick - after.pts) * self.base > SEEK_GAP:
                frames = self.from_before(tick)
                now, after = next(frames, None), next(frames, None)
            while after is not None and after.pts <= tick:
                now, after = after, next(frames, None)
            if now is None or now.pts is None:
                raise ValueError(f"{self.path} is damaged: a picture cannot be decoded, or has no time")
            if after is None:
                self.check_end(now)
            yield now

    def from_before(self, tick: int) -> Iterator[Any]:
        """Pictures from one at or before a tick on."""
        for back in SEEK_BACK:
            self.container.seek(int(tick - back / self.base), stream=self.stream)
            frames = self.container.decode(self.stream)
            first = next(frames, None)
            if first is not None and first.pts <= tick:
                return itertools.chain([first], frames)
        self.container.seek(min(self.tick(0.0), self.stream.start_time or 0), stream=self.stream)
        return self.container.decode(self.stream)

    def check_end(self, last: Any) -> None:
        """Refuse a file that ends before its header says."""
        said, found = self.known_end(), float((last.pts + (last.duration or 0)) * self.base - self.origin)
        if said is not None and found < said - tolerance(said):
            raise ValueError(f"{self.path} is cut off: its pictures end at {found:.1f} s of {said:.1f} s")

    def rgb(self, frame: Any) -> np.ndarray:
        """A decoded picture upright, with square pixels. HDR and wide gamuts are refused; harvest_jax converts them."""
        if frame.color_trc in HDR or frame.color_primaries in WIDE:
            raise ValueError(f"{self.path} is HDR or has a wide gamut: convert it to BT.709, or use harvest_jax")
        width, height = float(frame.width), float(frame.height)
        aspect = fraction(self.stream.sample_aspect_ratio)
        if Fraction(1, 4) <= aspect <= 4:
            width *= float(aspect)
        size = max(1, round(width)), max(1, round(height))
        picture = self.reformatter.reformat(frame, *size, "gbrp", interpolation=SCALING, threads=1).to_ndarray()
        matrix = frame.side_data.get("DISPLAYMATRIX")  # of phones: x' = a x + c y, y' = b x + d y
        if matrix is not None:
            a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
            turned = abs(a) + abs(d) < abs(b) + abs(c)
            picture = picture.swapaxes(0, 1) if turned else picture
            picture = picture[:, ::-1] if (c if turned else a) < 0 else picture
            picture = picture[::-1] if (b if turned else d) < 0 else picture
        return picture


def tolerance(seconds: float) -> float:
    """How far a file of this length may end before its header says, in seconds."""
    return max(0.5, 0.05 * seconds)


def fraction(value: Any) -> Fraction:
    """A time base or a pixel's aspect; 0 if there is none."""
    if value is None or not value.denominator:
        return Fraction(0)
    return Fraction(int(value.numerator), int(value.denominator))
