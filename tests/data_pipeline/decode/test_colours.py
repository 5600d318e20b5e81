"""HDR and wide-gamut videos have the colours that they would have as SDR; all others are left as they are."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.decode import picture as picture_module
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.colours import OtherColours, other_colours
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from tests.helpers.video_files import numbered_frames, read_number, write_video

PQ, HLG, SRGB, BT709 = 16, 18, 13, 1  # transfer functions, as FFmpeg numbers them
BT2020, P3, UNSPECIFIED = 9, 12, 2  # primaries
WHITE = (0.3127, 0.3290)
XY = {  # chromaticities of red, green, blue: ITU-R BT.2020, SMPTE EG 432-1, ITU-R BT.709
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
}


def to_xyz(primaries: int) -> np.ndarray:
    """Light in R, G, B to XYZ, from the chromaticities."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*XY[primaries], WHITE)]).T
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])


def light_of(signal: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """Light of a display of 1,000 cd/m2 as ITU-R BT.2100 has it; 1 is 203 cd/m2 for HDR, white for SDR."""
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        return 10000 / 203 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    if transfer == HLG:
        a, b, c = 0.17883277, 1 - 4 * 0.17883277, 0.5 - 0.17883277 * np.log(4 * 0.17883277)
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        return 1000 / 203 * scene * (scene @ to_xyz(primaries)[1])[..., None] ** 0.2
    if transfer == SRGB:
        return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return signal**2.4


def as_sdr(signal: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """0..1 of BT.709 of a signal of 0..1, in double precision and without tables."""
    light = light_of(signal, transfer, primaries) @ np.linalg.solve(to_xyz(BT709), to_xyz(primaries)).T
    if transfer in (PQ, HLG):  # FFmpeg's tonemap=mobius, vf_tonemap.c
        knee, peak = 0.3, 1000 / 203
        a = -knee * knee * (peak - 1) / (knee * knee - 2 * knee + peak)
        b = (knee * knee - 2 * knee * peak + peak) / (peak - 1)
        most = light.max(-1, keepdims=True)
        curve = (b * b + 2 * b * knee + knee * knee) / (b - a) * (most + a) / (most + b)
        light = light * np.where(most > knee, curve / np.maximum(most, knee), 1)
    light = np.clip(light, 0, 1)
    if transfer == SRGB:
        return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return light ** (1 / 2.4)


NAMES = {PQ: "pq", HLG: "hlg", SRGB: "srgb", BT709: "gamma"}
CASES = [(PQ, BT2020), (PQ, P3), (HLG, BT2020), (BT709, BT2020), (SRGB, P3), (BT709, P3)]


@pytest.mark.parametrize(("transfer", "primaries"), CASES)
def test_any_colour_is_converted_as_the_standards_say(transfer, primaries):
    levels = np.random.default_rng(0).integers(0, 4096, (64, 1500, 3)).astype(np.uint16)
    levels[0, :4] = [[0] * 3, [4095] * 3, [4095, 0, 0], [1, 1, 1]]
    found = OtherColours(NAMES[transfer], {BT2020: "bt2020", P3: "p3"}[primaries], 0).to_bt709(levels)
    expected = 255 * as_sdr(levels / 4095, transfer, primaries)
    assert np.abs(found - expected).mean() < 0.3  # rounding alone: 0.25
    assert np.abs(found - expected).max() < 2.5  # where a channel is nearly cut off


# Of `zscale=agamma=0:t=linear:npl=203:p=bt709,format=gbrpf32le,tonemap=mobius:param=0.3:peak=4.926108:desat=0,
# zscale=agamma=0:t=bt709:m=gbr:r=full` of FFmpeg 9.0.2; of SDR `zscale=p=bt709:m=gbr:r=full`. Levels are of 10 bits.
LEVELS = [[0, 0, 0], [594, 594, 594], [767, 767, 767], [600, 300, 300], [300, 600, 300], [300, 300, 600]]
FFMPEG = {
    (PQ, BT2020): [[0, 0, 0], [217, 217, 217], [255, 255, 255], [235, 0, 42], [0, 223, 0], [0, 53, 223]],
    (HLG, BT2020): [[0, 0, 0], [168, 168, 168], [217, 217, 217], [184, 69, 83], [0, 173, 78], [76, 84, 160]],
    (BT709, BT2020): [[0, 0, 0], [148, 148, 148], [191, 191, 191], [179, 54, 72], [0, 156, 59], [64, 74, 155]],
    (SRGB, P3): [[0, 0, 0], [148, 148, 148], [191, 191, 191], [161, 69, 72], [36, 152, 64], [75, 75, 155]],
}


@pytest.mark.parametrize(("transfer", "primaries"), FFMPEG)
def test_ffmpeg_converts_alike(transfer, primaries):
    levels = np.array([LEVELS], np.float64) * 4095 / 1023
    colours = OtherColours(NAMES[transfer], {BT2020: "bt2020", P3: "p3"}[primaries], 0)
    found = colours.to_bt709(np.rint(levels).astype(np.uint16))[0].astype(int)
    assert np.abs(found - FFMPEG[transfer, primaries]).max() <= 1


def write_tagged(
    path: Path, frames: np.ndarray, codec: str, pixels: str, transfer: int, primaries: int, matrix: int
) -> Path:
    """Encode uint16 RGB of 12 bits with these tags."""
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, primaries, matrix
        context.color_range = 2 if pixels.startswith("gbr") else 1
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="gbrp12le")
            if pixels != "gbrp12le":
                frame = frame.reformat(format=pixels, dst_colorspace=9, dst_color_range=1)
            frame.color_trc, frame.color_primaries, frame.colorspace = transfer, primaries, matrix
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "transfer", "primaries", "matrix"),
    [
        ("a.mkv", "ffv1", "gbrp12le", PQ, BT2020, 0),
        ("a.mkv", "ffv1", "gbrp12le", HLG, UNSPECIFIED, 0),  # HDR is BT.2020 if nothing else is said
        ("a.mkv", "ffv1", "gbrp12le", SRGB, P3, 0),
        ("phone.mov", "libx265", "yuv420p10le", HLG, BT2020, 9),
        ("phone.mp4", "libx265", "yuv420p10le", PQ, BT2020, 9),
        ("a.mp4", "libx265", "yuv420p10le", PQ, BT2020, UNSPECIFIED),
    ],
)
def test_a_file_is_converted_by_its_tags(tmp_path, name, codec, pixels, transfer, primaries, matrix):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    frames = numbered_frames(8).astype(np.uint16) * 11  # up to 2,805 of 4,095: 620 cd/m2 of PQ
    path = write_tagged(tmp_path / name, frames, codec, pixels, transfer, primaries, matrix)
    expected = 255 * as_sdr(frames[[1, 3, 5, 7]] / 4095, transfer, BT2020 if primaries == UNSPECIFIED else primaries)
    clip = decode_clip(path, DecodeSpec(num_frames=4))
    assert clip.converted
    assert np.abs(clip.frames - expected).mean() < (0.4 if codec == "ffv1" else 6)
    square = decode_clip(path, DecodeSpec(num_frames=4, short_side=48, fit="shorter"))
    np.testing.assert_array_equal(square.frames, clip.frames)


@pytest.mark.parametrize(("transfer", "primaries", "matrix"), [(BT709, BT709, 1), (6, 6, 6), (2, 2, 2), (SRGB, 1, 0)])
def test_others_stay_bit_for_bit(tmp_path, monkeypatch, transfer, primaries, matrix):
    pixels = "gbrp12le" if matrix == 0 else "yuv420p10le"
    frames = numbered_frames(8).astype(np.uint16) * 16
    path = write_tagged(tmp_path / "a.mkv", frames, "ffv1", pixels, transfer, primaries, matrix)
    clip = decode_clip(path, DecodeSpec(num_frames=4))
    assert not clip.converted
    assert [read_number(frame) for frame in clip.frames] == [1, 3, 5, 7]
    monkeypatch.setattr(picture_module, "other_colours", lambda frame: None)
    np.testing.assert_array_equal(decode_clip(path, DecodeSpec(num_frames=4)).frames, clip.frames)


def test_colours_without_a_known_matrix_are_refused(tmp_path):
    frames = numbered_frames(4).astype(np.uint16) * 16
    path = write_tagged(tmp_path / "a.mkv", frames, "ffv1", "yuv420p10le", PQ, BT2020, 14)
    with pytest.raises(VideoRejected, match="unsupported colours: ICtCp"):
        decode_clip(path, DecodeSpec())


def test_a_video_without_tags_has_no_other_colours(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(2))
    with av.open(str(path)) as container:
        assert other_colours(next(container.decode(video=0))) is None
