"""Real video files for tests, encoded with PyAV; frames that contain their number."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio import AudioStream
from av.container import OutputContainer


def numbered_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [count, height, width, 3]; the frame's number is written in its left half as ten bars, black or white.

    The right half is a smooth colour that changes with the number, so that there is something to predict.
    """
    frames = np.zeros((count, height, width, 3), np.uint8)
    ramp = np.linspace(0, 60, height)[:, None]
    for number in range(count):
        bits = [(number >> bit) & 1 for bit in range(10)]
        bars = np.repeat(np.array(bits, np.uint8) * 255, -(-height // 10))[:height]
        frames[number, :, : width // 2] = bars[:, None, None]
        phase = number / 7
        colour = [90 + 60 * np.sin(phase), 90 + 60 * np.sin(phase + 2), 90 + 60 * np.sin(phase + 4)]
        frames[number, :, width // 2 :] = (np.array(colour) + ramp[:, :, None]).astype(np.uint8)
    return frames


def read_number(frame: np.ndarray) -> int:
    """The number in a frame of `numbered_frames`, of whatever size it has become."""
    height, width = frame.shape[:2]
    column = frame[:, width // 8 : width * 3 // 8].mean(axis=(1, 2))
    bar = -(-48 // 10) * height / 48
    return sum(int(column[min(height - 1, int((bit + 0.5) * bar))] > 128) << bit for bit in range(10))


def write_video(
    path: Path,
    frames: np.ndarray,
    rate: int = 10,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    times: list[int] | None = None,
    sound_seconds: float = 0.0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames; `times` are frame times in ticks of 1/rate, `sound_seconds` adds a sound track."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        sound = container.add_stream("aac", rate=16000) if sound_seconds else None
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _encode_silence(container, sound, sound_seconds)
    return path


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file with a sound track and nothing else."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        _encode_silence(container, sound, seconds)
    return path


def _encode_silence(container: OutputContainer, sound: AudioStream, seconds: float) -> None:
    for index in range(int(seconds * 16000 / 1024)):
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 16000, index * 1024, Fraction(1, 16000)
        container.mux(sound.encode(samples))
    container.mux(sound.encode())


def write_numbered_videos(folder: Path, count: int, name: str = "v{}.mp4") -> Path:
    """Videos v0.mp4, v1.mp4, ... in a folder, of ten frames each; the first of each is numbered video times ten."""
    frames = numbered_frames(10 * count)
    for number in range(count):
        write_video(folder / name.format(number), frames[10 * number : 10 * number + 10])
    return folder


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the matrix by which a phone says how it was held into an MP4's track header (a..d: -1, 0 or 1)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 24 bytes of times and ids, 8 reserved, 8 of layer and volume
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def gif_header(width: int, height: int) -> bytes:
    """A GIF of one pixel's worth of data that claims to be width x height."""
    screen = struct.pack("<HH", width, height)
    image = b"\x2c" + struct.pack("<HHHH", 0, 0, width, height) + b"\x00"
    return b"GIF89a" + screen + b"\x80\x00\x00\x00\x00\x00\xff\xff\xff" + image + b"\x02\x02\x44\x01\x00\x3b"
