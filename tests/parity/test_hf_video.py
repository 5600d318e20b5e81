"""An exported `hf_video` folder in PyTorch, by transformers and by sentence-transformers: the numbers of our model."""

import dataclasses
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from flax import traverse_util  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

import harvest_jax  # noqa: E402
from harvest_jax.demo.image_clip import SHIPPED  # noqa: E402
from harvest_jax.model.config import harvest_config  # noqa: E402
from harvest_jax.model.video_tower import temporal_ramp  # noqa: E402
from harvest_jax.weights.export_model import export_model  # noqa: E402
from harvest_jax.weights.families.hf_video import HF_VIDEO  # noqa: E402
from harvest_jax.weights.families.viclip import VICLIP  # noqa: E402
from harvest_jax.weights.files.tensors import Tensors, TensorSpec  # noqa: E402
from harvest_jax.weights.folder import load_model, save_model  # noqa: E402
from harvest_jax.weights.hf_video.modeling_harvest import HarvestVideoConfig, HarvestVideoModel  # noqa: E402
from harvest_jax.weights.hf_video.processing_harvest import HarvestVideoProcessor  # noqa: E402
from harvest_jax.weights.import_checkpoint import import_checkpoint  # noqa: E402
from harvest_jax.weights.translate import to_family, to_native  # noqa: E402
from tests.data_pipeline.decode.test_colours import BT2020, PQ, write_tagged  # noqa: E402
from tests.helpers.video_files import numbered_frames, set_display_matrix, write_video  # noqa: E402
from tests.parity import compare  # noqa: E402
from tests.parity.torch_video import VideoClip  # noqa: E402

pytestmark = pytest.mark.parity
TEXTS = ["a red triangle moves left", "Hello,  wörld &amp; 😀!", "", "two dogs run and bark; " * 12, "ΣΑΣ"]
HALVES = {"bfloat16": (1e-4, 1e-2), "float16": (1e-6, 1e-3)}  # 1 - cosine, component


@pytest.fixture(scope="module", autouse=True)
def remote_code(tmp_path_factory):
    """transformers copies the folder's code into a folder of modules: here one of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The packaged image CLIP as a video model with a table of frames, and its export: (ours, theirs)."""
    folder = tmp_path_factory.mktemp("models")
    import_checkpoint(SHIPPED, folder / "start", num_frames=8, dtype="float32")
    config, params = load_model(folder / "start")
    params["video"]["temporal_embedding"] = np.asarray(temporal_ramp(8, config.video.width))
    save_model(folder / "ours", config, params, {})
    export_model(folder / "ours", "hf_video", folder / "theirs")
    return folder / "ours", folder / "theirs"


@pytest.fixture(scope="module")
def ours(folders):
    """Our model."""
    return harvest_jax.load(folders[0])


@pytest.fixture(scope="module")
def theirs(folders):
    """(model, processor) of transformers."""
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(folders[1], trust_remote_code=True)
    return model, AutoProcessor.from_pretrained(folders[1], trust_remote_code=True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Paths of videos of many kinds; "far.mp4" is so long that pictures are sought."""
    folder = tmp_path_factory.mktemp("videos")
    frames = numbered_frames(40)
    for name, settings in {
        "plain.mp4": {},
        "odd.mp4": {"frames": numbered_frames(23, 50, 98)},
        "few.mp4": {"frames": frames[:3]},
        "square.mp4": {"frames": numbered_frames(16, 64, 64)},
        "wide.mp4": {"pixel_aspect": Fraction(4, 3)},
        "uneven.mp4": {"times": [*range(20), *range(40, 60)]},
        "held.mp4": {"sound_seconds": 9.0},
        "held.mkv": {"sound_seconds": 9.0},
        "a.webm": {"codec": "libvpx-vp9"},
        "a.avi": {"codec": "mpeg4"},
        "a.gif": {"codec": "gif"},
        "a.mpg": {"codec": "mpeg1video", "rate": 25},
        "a.ts": {},
        "far.mp4": {"rate": 1, "frames": numbered_frames(200), "options": {"g": "20"}},
    }.items():
        write_video(folder / name, **{"frames": frames} | settings)
    for number, matrix in enumerate([(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1)]):
        shutil.copy(folder / "odd.mp4", folder / f"turned{number}.mp4")
        set_display_matrix(folder / f"turned{number}.mp4", *matrix)
    return {path.name: str(path) for path in sorted(folder.iterdir())}


def test_frames_are_the_same(ours, theirs, videos):
    for name, path in videos.items():
        np.testing.assert_array_equal(theirs[1].frames(path), ours.prepare(path)[0], err_msg=name)
    array = numbered_frames(13, 90, 61)
    np.testing.assert_array_equal(theirs[1].frames(torch.from_numpy(array).permute(0, 3, 1, 2)), ours.prepare(array)[0])


def test_squashed_frames_are_the_same(folders, theirs, videos, tmp_path):
    from transformers import AutoProcessor

    squashed = AutoProcessor.from_pretrained(folders[1], trust_remote_code=True, resize="squash")
    assert squashed.resize == "squash"
    from harvest_jax.pixels.square import fit

    picture = numbered_frames(1, 50, 99)
    np.testing.assert_array_equal(squashed.frames(picture)[0], fit(picture[0], 64, "squash"))


def test_broken_videos_are_refused(theirs, videos, tmp_path):
    whole = Path(videos["far.mp4"]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{videos['plain.mp4']}\n")  # a playlist
    hdr = numbered_frames(8).astype(np.uint16) * 11
    write_tagged(tmp_path / "hdr.mkv", hdr, "ffv1", "gbrp12le", PQ, BT2020, 0)
    for name in ("cut.mp4", "text.mp4", "hdr.mkv"):
        with pytest.raises(ValueError, match=name):
            theirs[1].frames(str(tmp_path / name))


def test_token_ids_are_the_same(ours, theirs):
    found, wanted = theirs[1](text=TEXTS)["input_ids"].numpy(), ours.tokenizer(TEXTS, ours.config.text.context_length)
    for text, a, b in zip(TEXTS, found, wanted, strict=True):
        np.testing.assert_array_equal(a[: a.argmax() + 1], b[: b.argmax() + 1], err_msg=text)


@torch.inference_mode()
def test_embeddings_and_logits(ours, theirs, videos, measured):
    model, processor = theirs
    paths = list(videos.values())
    inputs = processor(text=TEXTS, videos=paths)
    out = model(**inputs)
    video, text = ours.encode_video(paths), ours.encode_text(TEXTS)
    assert out.video_embeds.shape == video.shape
    assert len(processor(videos=paths[0])["pixel_values_videos"]) == 1
    for what, found, wanted in (("video", out.video_embeds, video), ("text", out.text_embeds, text)):
        difference = float(np.abs(found.numpy() - wanted).max())
        measured("demo", f"{what} embedding, hf_video", "transformers", difference, compare.EMBEDDING_BOUND)
    scores = ours.logit_scale * video @ text.T
    difference = float(np.abs(out.logits_per_video.numpy() - scores).max() / np.abs(scores).max())
    measured("demo", "logits, relative, hf_video", "transformers", difference, compare.BLOCK_BOUND)
    pairs = len(TEXTS)
    loss = model(inputs["input_ids"], inputs["pixel_values_videos"][:pairs], return_loss=True).loss
    logits = torch.from_numpy(scores[:pairs])
    wanted = -(logits.log_softmax(0).diagonal().mean() + logits.log_softmax(1).diagonal().mean()) / 2
    assert float(loss) == pytest.approx(float(wanted), rel=1e-4)


@torch.inference_mode()
def test_a_real_size(measured):
    """B/16 with 8 frames, every parameter random."""
    config = harvest_config("B/16", num_frames=8, decoder_layers=0)
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, context_length=32))
    arrays = {name: tensor.detach().numpy() for name, tensor in VideoClip(config, seed=8).state_dict().items()}
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    native = to_native(Tensors("in memory", "the reference", entries, arrays.__getitem__), VICLIP, config)
    theirs = to_family(native, HF_VIDEO, config)
    towers = {f"{name}_tower": dataclasses.asdict(getattr(config, name)) for name in ("video", "text")}
    model = HarvestVideoModel(HarvestVideoConfig(**towers)).eval()
    model.load_state_dict({name: torch.from_numpy(np.array(theirs.read(name))) for name in theirs.entries})
    params = traverse_util.unflatten_dict({name: native.read(name) for name in native.entries}, sep="/")
    ours = harvest_jax.Model(config, params, "B/16")
    clip = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    pictures = SimpleNamespace(image_mean=config.preprocessing.mean, image_std=config.preprocessing.std)
    video = model.get_video_features(HarvestVideoProcessor.normalise(pictures, clip)[None])
    text = model.get_text_features(torch.from_numpy(ours.tokenizer(TEXTS[:2], 32)))
    for what, found, wanted in (
        ("video", video, ours.encode_clips(clip[None])),
        ("text", text, ours.encode_text(TEXTS[:2])),
    ):
        difference = float(np.abs(found.numpy() - wanted).max())
        measured("B/16", f"{what} embedding, hf_video", "the exported module", difference, compare.EMBEDDING_BOUND)


@torch.inference_mode()
def test_kept_patches_are_the_same(ours, theirs, videos, measured):
    model, processor = theirs
    pixels = processor(videos=[videos["plain.mp4"], videos["odd.mp4"]])["pixel_values_videos"]
    found = model.get_video_features(pixels, model.kept_cells(0.3, seed=7)).numpy()
    wanted = ours.keeping(0.3, 7).encode_video([videos["plain.mp4"], videos["odd.mp4"]])
    difference = float(np.abs(found - wanted).max())
    measured("demo", "video embedding, 30 % of the patches, hf_video", "transformers", difference, 1e-5)


@pytest.mark.parametrize("dtype", HALVES)
@torch.inference_mode()
def test_half_types(folders, ours, theirs, videos, measured, dtype):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folders[1], trust_remote_code=True, dtype=getattr(torch, dtype))
    assert model.video.patch_embedding.weight.dtype == getattr(torch, dtype)
    paths = list(videos.values())
    out = model(**theirs[1](text=TEXTS, videos=paths))
    for what, found, wanted in (
        ("video", out.video_embeds, ours.encode_video(paths)),
        ("text", out.text_embeds, ours.encode_text(TEXTS)),
    ):
        assert found.dtype == torch.float32
        turned, component = HALVES[dtype]
        cosine = compare.cosine(found.numpy(), wanted)
        measured("demo", f"{what} embedding, hf_video in {dtype}, 1 - cosine", "ours in float32", 1 - cosine, turned)
        drift = compare.embedding_difference(found.numpy(), wanted)
        measured("demo", f"{what} embedding, hf_video in {dtype}", "ours in float32", drift, component)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's, of itself
@torch.inference_mode()
def test_compiled(theirs, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, processor = theirs
    inputs = processor(text=TEXTS[:3], videos=[videos["plain.mp4"], videos["odd.mp4"]])
    compiled = torch.compile(model, backend="inductor" if shutil.which("g++") else "eager")
    found, wanted = compiled(**inputs), model(**inputs)
    torch.testing.assert_close(found.video_embeds, wanted.video_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.text_embeds, wanted.text_embeds, atol=1e-6, rtol=0)


def test_exported_for_any_number_of_rows(theirs, videos):
    model, processor = theirs
    inputs = processor(text=TEXTS[:3], videos=[videos["plain.mp4"], videos["odd.mp4"], videos["few.mp4"]])
    batch, length = torch.export.Dim("batch", max=1024), torch.export.Dim("length", max=32)
    for method, example, dynamic in (
        ("get_video_features", inputs["pixel_values_videos"], {0: batch}),
        ("get_text_features", inputs["input_ids"], {0: batch, 1: length}),
    ):
        program = torch.export.export(Method(model, method), (example,), dynamic_shapes=(dynamic,)).module()
        for rows in (1, 3):
            with torch.inference_mode():
                found, wanted = program(example[:rows]), getattr(model, method)(example[:rows])
                torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


class Method(torch.nn.Module):
    """One method of a model as a module."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x):
        return getattr(self.model, self.name)(x)


def test_an_image_model_averages_its_frames(videos, tmp_path, measured):
    from transformers import AutoModel, AutoProcessor

    export_model(SHIPPED, "hf_video", tmp_path / "image")
    model = AutoModel.from_pretrained(tmp_path / "image", trust_remote_code=True, dtype=torch.float32)
    pixels = AutoProcessor.from_pretrained(tmp_path / "image", trust_remote_code=True)(videos=list(videos.values()))
    with torch.inference_mode():
        found = model.get_video_features(**pixels).numpy()
    difference = float(np.abs(found - harvest_jax.load(SHIPPED).encode_video(list(videos.values()))).max())
    measured("demo", "embedding of an image model, hf_video", "transformers", difference, compare.EMBEDDING_BOUND)


def test_what_transformers_saves_is_imported_bit_for_bit(folders, theirs, tmp_path):
    theirs[0].save_pretrained(tmp_path / "saved")
    theirs[1].save_pretrained(tmp_path / "saved")
    import_checkpoint(tmp_path / "saved", tmp_path / "back")
    before, after = load_file(folders[0] / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert after.keys() == before.keys()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_sentence_transformers(folders, ours, videos, tmp_path, measured):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folders[1]), trust_remote_code=True, device="cpu")
    assert model.get_embedding_dimension() == ours.config.video.embed_dim
    assert model.max_seq_length == ours.config.text.context_length
    paths = list(videos.values())
    texts = [*TEXTS, "not_there.mp4"]  # a name of no file is a text
    for what, found, wanted in (
        ("video", model.encode(paths, batch_size=4), ours.encode_video(paths)),
        ("text", model.encode(texts, batch_size=4), ours.encode_text(texts)),
    ):
        difference = float(np.abs(found - wanted).max())
        bound = compare.EMBEDDING_BOUND
        measured("demo", f"{what} embedding, hf_video", "sentence-transformers", difference, bound)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for mixed in ([paths[0], "a text"], [videos["a.webm"], "a text"]):
        with pytest.raises(ValueError, match="text"):
            model.encode(mixed)
    array = numbered_frames(9)
    np.testing.assert_allclose(model.encode({"video": array}), ours.encode_video(array)[0], atol=1e-5)
    model.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(texts), model.encode(texts))
