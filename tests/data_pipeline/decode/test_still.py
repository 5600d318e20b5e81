"""Pictures as clips of one frame: their pixels, and what is refused before it is decoded."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.frame_sampling import Sampling
from harvest_jax.pixels.square import fit
from tests.helpers.video_files import numbered_frames, read_number

SPEC = DecodeSpec()


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [height, width, 3]: red, green and blue corners and a black one, so that every turn is another picture."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = (250, 20, 20), (20, 250, 20)
    image[height // 2 :, : width // 2] = (20, 20, 250)
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reason(source: Path | bytes, spec: DecodeSpec = SPEC, **span: float) -> str:
    with pytest.raises(VideoRejected) as caught:
        decode_clip(source, spec, **span)
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 95})],
)
def test_a_picture_is_a_clip_of_one_frame_whatever_its_name(tmp_path, kind, options):
    path = tmp_path / "a.mp4"
    path.write_bytes(encoded(Image.fromarray(corners()), kind, **options))
    for source in (path, path.read_bytes()):
        clip = decode_clip(source, SPEC)
        assert clip.frames.shape == (1, 48, 64, 3)
        assert (clip.seconds.tolist(), clip.width, clip.height) == ([0.0], 64, 48)
        assert np.abs(clip.frames[0].astype(int) - corners()).mean() < 3


@pytest.mark.parametrize(
    ("size", "expected"),
    [((400, 800), (256, 512)), ((800, 400), (512, 256)), ((301, 555), (256, 472)), ((9, 9), (9, 9))],
)
def test_the_shorter_side_is_scaled_down_like_a_video_s_and_never_up(size, expected):
    clip = decode_clip(encoded(Image.fromarray(corners(*size)), "PNG"), SPEC)
    assert clip.frames.shape[1:3] == expected
    assert (clip.height, clip.width) == size


def test_what_a_model_is_shown_is_made_of_the_whole_picture():
    image = corners(90, 122)
    shown = decode_clip(encoded(Image.fromarray(image), "PNG"), DecodeSpec(short_side=48, fit="crop"))
    assert np.array_equal(shown.frames[0], fit(image, 48, "crop"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("tag", "turn"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: np.rot90(image, 2)),
        (4, lambda image: image[::-1]),
        (5, lambda image: image.swapaxes(0, 1)),
        (6, lambda image: np.rot90(image, -1)),  # a phone held upright
        (7, lambda image: np.rot90(image, 2).swapaxes(0, 1)),
        (8, lambda image: np.rot90(image, 1)),
    ],
)
def test_the_exif_orientation_is_obeyed(kind, tag, turn):
    exif = Image.Exif()
    exif[0x0112] = tag
    clip = decode_clip(encoded(Image.fromarray(corners()), kind, exif=exif), SPEC)
    expected = turn(corners())
    assert clip.frames.shape[1:] == expected.shape
    assert (clip.height, clip.width) == expected.shape[:2]
    assert np.abs(clip.frames[0].astype(int) - expected).mean() < 8


def test_damaged_exif_is_no_reason_to_lose_a_picture():
    data = encoded(Image.fromarray(corners()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_clip(data, SPEC).frames.shape == (1, 48, 64, 3)


def of_mode(mode: str) -> tuple[bytes, tuple[int, int, int]]:
    """A picture of one colour in an unusual mode, and how it is to be seen."""
    if mode == "I;16":
        return encoded(Image.fromarray(np.full((16, 16), 0x8040, np.uint16)), "PNG"), (128, 128, 128)
    if mode == "RGBA":  # half transparent red on a white page
        return encoded(Image.new("RGBA", (16, 16), (255, 0, 0, 128)), "PNG"), (255, 127, 127)
    if mode == "LA":
        return encoded(Image.new("LA", (16, 16), (0, 0)), "PNG"), (255, 255, 255)
    if mode == "P":
        return encoded(Image.new("RGB", (16, 16), (200, 60, 40)).quantize(4), "PNG"), (200, 60, 40)
    if mode == "P with transparency":
        data = encoded(Image.new("RGB", (16, 16), (200, 60, 40)).quantize(4), "PNG", transparency=0)
        return data, (255, 255, 255)
    if mode == "CMYK":
        return encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95), (255, 0, 0)
    if mode == "WebP with alpha":
        return encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "WEBP", lossless=True), (255, 255, 255)
    colour: object = 100 if mode == "L" else 1
    return encoded(Image.new(mode, (16, 16), colour), "PNG"), (100, 100, 100) if mode == "L" else (255, 255, 255)


@pytest.mark.parametrize(
    "mode", ["L", "1", "I;16", "RGBA", "LA", "P", "P with transparency", "CMYK", "WebP with alpha"]
)
def test_every_kind_of_colour_becomes_rgb(mode):
    data, colour = of_mode(mode)
    frame = decode_clip(data, SPEC).frames[0]
    assert frame.shape == (16, 16, 3)
    np.testing.assert_allclose(frame.mean(axis=(0, 1)), colour, atol=3)


def test_sixteen_bits_a_colour_become_eight():
    rows = np.full((4, 4, 3), (0x80FF, 0x1000, 0xFFFF), ">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    np.testing.assert_array_equal(decode_clip(data, SPEC).frames[0, 0, 0], (0x80, 0x10, 0xFF))


def test_of_an_animated_png_the_first_picture_is_taken():
    first, second = Image.fromarray(corners()), Image.new("RGB", (64, 48), (9, 9, 9))
    clip = decode_clip(encoded(first, "PNG", save_all=True, append_images=[second], duration=100), SPEC)
    assert clip.frames.shape == (1, 48, 64, 3)
    assert np.abs(clip.frames[0].astype(int) - corners()).mean() < 1


def animated(kind: str, count: int, durations: int | list[int], **options: object) -> bytes:
    pictures = [Image.fromarray(frame) for frame in numbered_frames(count)]
    return encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], duration=durations, **options)


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True}), ("WEBP", {"quality": 90}), ("AVIF", {})])
def test_an_animated_webp_or_avif_is_a_clip(kind, options):
    data = animated(kind, 20, 100, **options)
    clip = decode_clip(data, DecodeSpec(num_frames=4))
    assert [read_number(frame) for frame in clip.frames] == [2, 7, 12, 17]
    np.testing.assert_allclose(clip.seconds, [0.2, 0.7, 1.2, 1.7], atol=0.002)
    assert np.abs(clip.frames - numbered_frames(20)[[2, 7, 12, 17]].astype(float)).mean() < 6
    part = decode_clip(data, DecodeSpec(num_frames=2), start=1.0, end=2.0)
    assert [read_number(frame) for frame in part.frames] == [12, 17]
    square = decode_clip(data, DecodeSpec(num_frames=4, short_side=32, fit="crop"))
    assert square.frames.shape == (4, 32, 32, 3)


def test_a_heic_picture_is_refused_by_name():
    for brands in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic"):
        data = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(1000)
        assert reason(data).startswith("not a video: a HEIC picture; convert it to JPEG")


def test_pictures_of_an_animation_are_shown_as_long_as_they_say():
    data = animated("WEBP", 4, [100, 700, 0, 200])  # 0: a tenth of a second
    clip = decode_clip(data, DecodeSpec(num_frames=11))
    assert [read_number(frame) for frame in clip.frames] == [0, 1, 2, 3]
    assert clip.seconds.tolist() == [0.0, 0.1, 0.8, 0.9]
    assert [view.tolist() for view in clip.views] == [[0, *[1] * 7, 2, 3, 3]]
    counted = decode_clip(data, DecodeSpec(num_frames=3), sampling=Sampling("linspace_inclusive"))
    assert [read_number(frame) for frame in counted.frames] == [0, 1, 3]
    assert reason(data, start=2.0).startswith("bad span: it starts at 2 s, but the video ends at 1.1 s")
    assert reason(data, DecodeSpec(min_frames=5)).startswith("too few frames: 4 different ones")


def test_an_animation_that_is_damaged_or_endless_is_refused():
    data = animated("WEBP", 20, 100)
    assert reason(data[: len(data) // 2]).startswith("damaged: begins like a picture")
    assert reason(data, DecodeSpec(max_packets=10)).startswith("too large: more than 10 pictures")
    assert reason(data, DecodeSpec(max_seconds=1.0)).startswith("too long: 2 s")
    assert reason(data, DecodeSpec(max_side=32)).startswith("bad picture size: 64 x 48")


@pytest.mark.parametrize(
    ("height", "width", "limits", "short"),
    [(900, 9000, {}, 256), (907, 1210, {"max_pixels": 100_000}, 227), (1512, 2016, {"max_side": 300}, 189)],
)
def test_photographs_beyond_the_limits_are_scaled_while_they_are_decoded(height, width, limits, short):
    image = Image.fromarray(corners()).resize((width, height), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", quality=90, exif=exif)
    clip = decode_clip(data, DecodeSpec(**limits))
    assert (clip.width, clip.height) == (height, width)  # upright
    assert clip.frames.shape[:1] + clip.frames.shape[2:] == (1, short, 3)
    assert abs(clip.frames.shape[1] - short * width / height) <= 2
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270).resize(clip.frames.shape[2:0:-1]))
    assert np.abs(clip.frames[0].astype(int) - expected).mean() < 2
    assert decode_clip(data, DecodeSpec(short_side=96, fit="crop", **limits)).frames.shape == (1, 96, 96, 3)
    assert reason(data, DecodeSpec(max_pixels=10_000)).startswith(f"bad picture size: {width} x {height} is more")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_claims(width: int, height: int, content: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")


def test_what_its_header_claims_is_checked_before_it_is_decoded():
    bomb = zlib.compress(bytes(50_000_000), 9)  # what a 16k x 16k picture of nothing begins like
    for width, height in ((16384, 16384), (100_000, 100_000), (8193, 1000), (7000, 7000)):
        assert reason(png_that_claims(width, height, bomb)).startswith("bad picture size"), width
    assert reason(png_that_claims(640, 16)) == "bad picture size: 640 x 16 is too long and narrow"
    lies = bytearray(encoded(Image.fromarray(corners()), "JPEG"))
    at = lies.index(b"\xff\xc0")
    lies[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)  # too large at an eighth, too
    assert reason(bytes(lies)).startswith("bad picture size")


def test_a_bomb_in_the_comments_is_not_unpacked():
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    good = encoded(Image.fromarray(corners()), "PNG")
    at = 8 + 25  # behind the signature and the header
    assert reason(good[:at] + text + good[at:]).startswith("damaged: begins like a picture")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_cut_off_or_flipped_has_a_reason(kind):
    rng = np.random.default_rng(0)
    good = encoded(Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)), kind)
    for length in (12, 40, len(good) // 2):
        assert reason(good[:length]).startswith("damaged: begins like a picture"), length
    for _ in range(50):
        data = bytearray(good)
        for at in rng.integers(12, len(data), size=8):
            data[at] = rng.integers(256)
        with contextlib.suppress(VideoRejected):  # nothing else may come out of it
            assert decode_clip(bytes(data), SPEC).frames.shape[0] == 1


def test_a_span_or_a_number_of_frames_makes_no_sense_for_a_picture():
    data = encoded(Image.fromarray(corners()), "PNG")
    assert reason(data, start=1.0).startswith("bad span: a picture has no duration")
    assert reason(data, end=2.0).startswith("bad span: a picture has no duration")
    assert decode_clip(data, SPEC, start=0.0).frames.shape[0] == 1
    assert reason(data, DecodeSpec(min_frames=2)) == "too few frames: a single picture, 2 are needed"


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_of_pictures_are_not_opened(kind):
    assert reason(encoded(Image.fromarray(corners()), kind)).startswith("not a video: not an MP4")
