"""Frames to the square that a model sees: against CLIP's transform on Pillow images and Hugging Face's processor."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from harvest_jax.model.config import CLIP_MEAN, CLIP_STD, Preprocessing
from harvest_jax.pixels.square import fit, prepare_clip
from tests.helpers.clip_transform import SIZES, clip_transform, picture
from tests.helpers.video_files import numbered_frames, set_display_matrix, write_video

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parity
IMAGE_SIZES = (224, 336)


def levels(ours: np.ndarray, theirs: np.ndarray) -> int:
    """Largest difference in grey levels."""
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs).max())


def random_sizes(count: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    return [(int(height), int(width)) for height, width in rng.integers(20, 500, (count, 2))]


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize("size", [*SIZES, *random_sizes(12)], ids=str)
def test_equal_to_clips_transform(size, image_size):
    frame = picture(*size)
    assert levels(fit(frame, image_size, "crop"), np.asarray(clip_transform(Image.fromarray(frame), image_size))) == 0


@pytest.fixture(scope="module")
def processor():
    """CLIPImageProcessor, whatever class stands behind it; it may do without torchvision, or not be importable."""
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        return CLIPImageProcessorPil()
    except ImportError:
        pytest.skip("transformers' CLIPImageProcessor cannot be imported without torchvision")


def through(processor, frame: np.ndarray, image_size: int) -> np.ndarray:
    sizes = {"size": {"shortest_edge": image_size}, "crop_size": {"height": image_size, "width": image_size}}
    return np.asarray(processor(Image.fromarray(frame), return_tensors="np", **sizes)["pixel_values"][0])


def same_crop(size: tuple[int, int], image_size: int) -> bool:
    """Whether the two cut in the same place: Hugging Face begins at excess // 2, torchvision at its rounded half."""
    shorter = min(size)
    excess = [image_size * side // shorter - image_size for side in size]
    return all(round(extra / 2) == extra // 2 for extra in excess)


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize("size", [*SIZES, *random_sizes(12)], ids=str)
def test_equal_to_hugging_faces_processor(processor, size, image_size):
    frame = picture(*size)
    theirs = through(processor, frame, image_size).transpose(1, 2, 0) * np.array(CLIP_STD) + np.array(CLIP_MEAN)
    grey = theirs * 255
    ours = fit(frame, image_size, "crop")
    if same_crop(size, image_size):
        assert np.abs(grey - ours).max() < 0.01
    else:  # they are one pixel apart in one direction
        moved = [np.abs(grey[:, 1:] - ours[:, :-1]).max(), np.abs(grey[1:] - ours[:-1]).max()]
        assert min(moved) < 0.01


def test_both_ways_of_cutting_are_met():
    assert {same_crop(size, 224) for size in SIZES} == {True, False}


def test_the_numbers_after_normalising(processor):
    import jax.numpy as jnp

    from harvest_jax.model.harvest import normalise

    frame = picture(240, 320)
    theirs = through(processor, frame, 224).transpose(1, 2, 0).reshape(1, 224 * 224, 3)
    ours = normalise(jnp.asarray(fit(frame, 224, "crop").reshape(1, 224 * 224, 3)), Preprocessing())
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=2e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_squashing_is_torchs_resize_of_both_sides(size):
    """OpenCLIP's "squash", which torchvision does by this function on uint8 tensors; its weights have fewer bits."""
    frame = picture(*size)
    channels = torch.from_numpy(frame).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(channels, (224, 224), mode="bicubic", antialias=True)
    off = np.abs(fit(frame, 224, "squash").astype(int) - theirs[0].permute(1, 2, 0).numpy())
    assert off.mean() < 0.01
    assert off.max() <= (2 if size in ((90, 901), (57, 33)) else 1)  # 2 in a few pixels of noise enlarged by 2.5 to 7


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [(360, 640), (640, 360), (242, 426), (96, 64)], ids=str)
def test_a_video_is_shown_as_pillow_would_show_its_pictures(tmp_path, size, turned):
    """Through the decoder; and the whole pictures are those of PyAV alone, up to how colours are spread over pixels."""
    path = write_video(tmp_path / "a.mp4", numbered_frames(4, *size), options={"crf": "10"})
    if turned:
        set_display_matrix(path, 0, 1, -1, 0)
    shown = decode_clip(path, DecodeSpec(num_frames=4, short_side=224, fit="crop")).frames
    whole = decode_clip(path, DecodeSpec(num_frames=4, short_side=2048)).frames
    assert whole.shape[1:3] == (size[::-1] if turned else size)
    for ours, frame in zip(shown, whole, strict=True):
        assert levels(ours, np.asarray(clip_transform(Image.fromarray(frame), 224))) <= 1
    if not turned:
        assert np.abs(whole.astype(int) - rgb(path)).mean() < 1.0
    assert np.array_equal(prepare_clip(shown, 4, 224, "crop"), shown)


def rgb(path: Path) -> np.ndarray:
    """All pictures, converted to RGB by PyAV's defaults."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
