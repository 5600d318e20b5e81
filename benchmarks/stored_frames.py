"""Ways of storing a clip's frames, compared by size, by time to decode and encode, and by fidelity.

    python benchmarks/stored_frames.py --videos FOLDER [FOLDER ...] --out benchmarks/results/stored_frames_cpu.json

From one base point (16 frames, 256 px, JPEG 90 with 4:2:0 colour) one thing at a time is changed: the JPEG, the number
of frames, their shorter side, the codec, the decoder's shortcuts. Clips are the videos in the folders whose shorter
side has at least 256 pixels and that have 32 different frames; the table of sizes uses those with at least 288 pixels.

Times are CPU seconds of one thread, the minimum of `--repeats` for decoding. Pictures begin and end as RGB arrays.
H.264 is stored as packets without a container, the minimum to open and to store; of a group of pictures all up to the
last wanted one have to be decoded; RGB is made by FFmpeg's default scaler or by the exact one of `harvest shards`. PSNR
is in dB, of a picture against the scaled picture before encoding, the mean over a clip's pictures and then over clips;
"as the model sees it" is the same after both are resized to the 224 x 224 pixels of a model.
"""

import argparse
import dataclasses
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import simplejpeg
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from PIL import AvifImagePlugin, Image

from benchmarks.vs_torch_arm import cpu_name
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from data_pipeline.shards.shard_format import encode_jpeg
from harvest_jax.pixels.square import fit

CLIPS = 10_700_000  # WebVid-10M
CLIPS_PER_SECOND = 4000
USED = 8  # frames of a clip in a step
LARGEST = 32  # frames tried
MODEL_SIDE = 224
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

Encode = Callable[[Sequence[np.ndarray]], list[bytes]]
Decode = Callable[[Sequence[bytes], Sequence[int]], list[np.ndarray]]  # blobs and which of them are wanted


@dataclasses.dataclass(frozen=True)
class Stored:
    """A way of storing a clip."""

    name: str
    encode: Encode
    decode: Decode
    frames: int = 16
    side: int = 256


def decode_jpegs(**shortcuts: bool) -> Decode:
    return lambda blobs, wanted: [simplejpeg.decode_jpeg(blobs[index], "RGB", **shortcuts) for index in wanted]


def pillow(kind: str, **options: Any) -> Encode:
    def encode(frames: Sequence[np.ndarray]) -> list[bytes]:
        blobs = []
        for frame in frames:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, kind, **options)
            blobs.append(file.getvalue())
        return blobs

    return encode


def jpeg(quality: int, colour: str = "4:2:0", tiles: int = 1) -> Encode:
    """A restart marker after every `tiles` units of coding, none for 0."""
    markers = {"restart_marker_blocks": tiles} if tiles else {}
    return pillow("JPEG", quality=quality, subsampling=colour, **markers)


def decode_pillow(blobs: Sequence[bytes], wanted: Sequence[int]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(blobs[index])).convert("RGB")) for index in wanted]


def encode_h264(crf: int, group: int) -> Encode:
    """x264 with its usual settings, a key picture every `group` pictures, none predicted from a later one."""

    def encode(frames: Sequence[np.ndarray]) -> list[bytes]:
        context = av.CodecContext.create("libx264", "w")
        context.height, context.width = frames[0].shape[:2]
        context.pix_fmt, context.time_base, context.thread_count = "yuv420p", Fraction(1, 25), 1
        settings = f"keyint={group}:min-keyint={group}:scenecut=0:bframes=0"
        context.options = {"crf": str(crf), "x264-params": settings}
        packets = []
        for index, frame in enumerate([*frames, None]):
            picture = None if frame is None else VideoFrame.from_ndarray(frame, format="rgb24")
            if picture is not None:
                picture.pts = index
            packets += context.encode(picture)
        return [bytes(packet) for packet in packets]

    return encode


def decode_h264(group: int, exact: bool) -> Decode:
    def decode(blobs: Sequence[bytes], wanted: Sequence[int]) -> list[np.ndarray]:
        context = av.CodecContext.create("h264", "r")
        context.thread_count = 1
        needed = sorted({before for index in wanted for before in range(index - index % group, index + 1)})
        pictures = [frame for index in needed for frame in context.decode(av.Packet(blobs[index]))]
        pictures += context.decode(None)
        frames = [pictures[needed.index(index)] for index in wanted]
        if exact:
            frames = [frame.reformat(format="gbrp", interpolation=_EXACT, threads=1) for frame in frames]
        return [frame.to_ndarray() if exact else frame.to_ndarray(format="rgb24") for frame in frames]

    return decode


def h264(crf: int, group: int, exact: bool = False) -> Stored:
    name = "all key pictures" if group == 1 else f"groups of {group}"
    return Stored(
        f"H.264 crf {crf}, {name}{', exact colours' * exact}", encode_h264(crf, group), decode_h264(group, exact)
    )


BASE = Stored("JPEG 90, halved colour", lambda frames: [encode_jpeg(frame) for frame in frames], decode_jpegs())
AXES: dict[str, list[Stored]] = {
    "jpeg": [
        *(Stored(f"JPEG {quality}, halved colour", jpeg(quality), decode_jpegs()) for quality in (75, 85, 90, 95)),
        *(
            Stored(f"JPEG {quality}, full colour", jpeg(quality, "4:4:4"), decode_jpegs())
            for quality in (75, 85, 90, 95)
        ),
        Stored("JPEG 90, halved colour, no markers", jpeg(90, tiles=0), decode_jpegs()),
        Stored("JPEG 90, halved colour, every other marker", jpeg(90, tiles=2), decode_jpegs()),
        Stored(
            "JPEG 90, halved colour, no markers, best tables", pillow("JPEG", quality=90, optimize=True), decode_jpegs()
        ),
        Stored(
            "JPEG 90, halved colour, no markers, progressive",
            pillow("JPEG", quality=90, progressive=True),
            decode_jpegs(),
        ),
    ],
    "decoder": [
        BASE,
        dataclasses.replace(BASE, name="fastdct", decode=decode_jpegs(fastdct=True)),
        dataclasses.replace(BASE, name="fastupsample", decode=decode_jpegs(fastupsample=True)),
        dataclasses.replace(BASE, name="both", decode=decode_jpegs(fastdct=True, fastupsample=True)),
    ],
    "codec": [
        BASE,
        *(Stored(f"WebP {quality}", pillow("WEBP", quality=quality), decode_pillow) for quality in (80, 90)),
        *(
            Stored(f"AVIF {number}", pillow("AVIF", quality=number, max_threads=1), decode_pillow)
            for number in (75, 85)
        ),
        *(h264(crf, group) for group in (1, 4, 16) for crf in (16, 20)),
        h264(16, 16, exact=True),
    ],
    "frames": [dataclasses.replace(BASE, name=f"{frames} frames", frames=frames) for frames in (8, 16, LARGEST)],
    "side": [dataclasses.replace(BASE, name=f"{side} px", side=side) for side in (224, 256, 288)],
}


def even(frames: np.ndarray) -> np.ndarray:
    """H.264 with halved colour needs even sides; all formats get the same pictures."""
    return np.ascontiguousarray(frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2])


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = float(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-3))


def cpu_seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        result = function()
        best = min(best, time.process_time() - began)
    return best, result


def measure(stored: Stored, frames: np.ndarray, repeats: int) -> dict[str, float]:
    """One clip stored one way; `frames` uint8 [T, H, W, 3]."""
    encoding, blobs = cpu_seconds(lambda: stored.encode(list(frames)), 1)
    wanted = [(2 * index + 1) * len(frames) // (2 * USED) for index in range(USED)]
    decoding, _ = cpu_seconds(lambda: stored.decode(blobs, wanted), repeats)
    pictures = stored.decode(blobs, range(len(frames)))
    return {
        "bytes": sum(map(len, blobs)),
        "encode_ms": 1e3 * encoding / len(frames),
        "decode_ms": 1e3 * decoding / USED,
        "psnr": statistics.mean(map(psnr, pictures, frames)),
        "model_psnr": statistics.mean(map(psnr, map(model_picture, pictures), map(model_picture, frames))),
    }


def model_picture(picture: np.ndarray) -> np.ndarray:
    return fit(picture, MODEL_SIDE, "crop")


def measure_video(path: Path, axes: Sequence[str], repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """The axes of one video, none where it is too small or too short."""
    try:
        clip = decode_clip(path, DecodeSpec(num_frames=LARGEST, min_frames=LARGEST))
    except VideoRejected:
        return {}
    scaled: dict[tuple[int, int], np.ndarray] = {}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for axis in axes:
        points = AXES[axis]
        if min(clip.width, clip.height) < max(point.side for point in points):
            continue
        for point in points:
            shape = (point.frames, point.side)
            if shape not in scaled:
                scaled[shape] = even(decode_clip(path, DecodeSpec(*shape)).frames)
            found.setdefault(axis, {})[point.name] = measure(point, scaled[shape], repeats)
    return found


def summary(clips: Sequence[dict[str, float]]) -> dict[str, float]:
    mean = {name: statistics.mean(clip[name] for clip in clips) for name in clips[0]}
    return {
        "clips": len(clips),
        "bytes_per_clip": round(mean["bytes"]),
        "terabytes": round(mean["bytes"] * CLIPS / 1e12, 2),
        "encode_ms_per_frame": round(mean["encode_ms"], 3),
        "decode_ms_per_frame": round(mean["decode_ms"], 3),
        "frames_per_second_per_core": round(1e3 / mean["decode_ms"]),
        "cores": round(mean["decode_ms"] / 1e3 * USED * CLIPS_PER_SECOND, 1),
        "psnr": round(mean["psnr"], 2),
        "model_psnr": round(mean["model_psnr"], 2),
    }


def table(axes: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = []
    for axis, points in axes.items():
        lines += [
            f"\n{axis}: {next(iter(points.values()))['clips']} clips\n",
            "| | kB a clip | TB | decode, ms a frame | cores | encode, ms a frame | PSNR, dB | as the model sees it |",
            "|---" * 8 + "|",
        ]
        for name, point in points.items():
            lines.append(
                f"| {name} | {point['bytes_per_clip'] / 1e3:,.0f} | {point['terabytes']:.1f} | "
                f"{point['decode_ms_per_frame']:.2f} | {point['cores']:.0f} | {point['encode_ms_per_frame']:.1f} | "
                f"{point['psnr']:.1f} | {point['model_psnr']:.1f} |"
            )
    return "\n".join(lines)


def spread(folder: Path, count: int) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [files[index * len(files) // count] for index in range(count)] if len(files) > count else files


def main() -> None:
    """Print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="folders of videos")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES), help="what is changed (all)")
    parser.add_argument("--clips", type=int, default=12, help="files of each folder, evenly spread (%(default)s)")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    paths = [path for folder in args.videos for path in spread(folder, args.clips)]
    found: dict[str, dict[str, list[dict[str, float]]]] = {axis: {} for axis in AXES}
    for number, path in enumerate(paths):
        for axis, points in measure_video(path, args.axes, args.repeats).items():
            for name, result in points.items():
                found[axis].setdefault(name, []).append(result)
        print(f"\r{number + 1} of {len(paths)} videos", end="", flush=True)
    axes = {axis: {name: summary(clips) for name, clips in points.items()} for axis, points in found.items() if points}
    if not axes:
        parser.error("no video there is large and long enough")
    print(table(axes))
    if args.out:
        versions = {"av": av.__version__, "simplejpeg": simplejpeg.__version__, "pillow": PIL.__version__}
        what = {"clips": CLIPS, "clips_per_second": CLIPS_PER_SECOND, "frames_used": USED, "cpu": cpu_name()}
        args.out.write_text(json.dumps(what | {"versions": versions, "axes": axes}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
