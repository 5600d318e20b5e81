"""CLIPs with something of their own: the MLP of g/14 and bigG/14, and the two tables of positions of Long-CLIP."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

import harvest_jax  # noqa: E402
from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig  # noqa: E402
from harvest_jax.model.harvest import parameter_shapes  # noqa: E402
from harvest_jax.weights.export_model import export_model  # noqa: E402
from harvest_jax.weights.files.tensors import TensorSpec  # noqa: E402
from harvest_jax.weights.folder import save_tensors  # noqa: E402
from harvest_jax.weights.import_checkpoint import import_checkpoint  # noqa: E402
from tests.parity import compare, torch_clip  # noqa: E402

pytestmark = pytest.mark.parity

SMALL = HarvestConfig(
    name="ViT-176x2/14@28",
    video=VideoConfig(28, 14, 1, 176, 2, 2, 32, "gelu", mlp_width=768),
    text=TextConfig(49408, 77, 64, 2, 1, 32, "gelu"),
    decoder=None,
)
# vision_cfg of a small model with the head width and the ratio of OpenCLIP's ViT-g-14.json
VISION = {"image_size": 28, "patch_size": 14, "width": 176, "layers": 2, "head_width": 88, "mlp_ratio": 4.3637}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
TEXTS = ["a dog jumps over a log", "two people dance " * 40, ""]


def fill(model):
    """Random numbers in every parameter."""
    torch.manual_seed(0)
    state = {}
    for name, tensor in model.state_dict().items():
        mean, deviation = (1.0, 0.3) if "ln_" in name and name.endswith("weight") else (0.0, 0.08)
        state[name] = torch.empty(tensor.shape).normal_(mean, deviation)
    return torch_clip.filled(model, state | {"logit_scale": torch.tensor(3.0)}).eval()


def differences(folder, theirs, measured, size):
    """Of both embeddings, through `harvest_jax.load`."""
    ours = harvest_jax.load(folder)
    side = ours.config.video.image_size
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, side, side, 3), np.uint8)
    mean, std = np.asarray(ours.config.preprocessing.mean), np.asarray(ours.config.preprocessing.std)
    pixels = torch.from_numpy(((frames[:, 0] / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    ids = torch.from_numpy(ours.tokenizer(TEXTS, ours.config.text.context_length)).long()
    with torch.inference_mode():
        image, text = theirs.encode_image(pixels).numpy(), theirs.encode_text(ids).numpy()
    for tower, found, their in (("image", ours.encode_clips(frames), image), ("text", ours.encode_text(TEXTS), text)):
        measured(size[0], f"{tower} embedding", size[1], compare.embedding_difference(found, their), 1e-5)


def test_an_mlp_as_wide_as_g_14s(tmp_path, measured):
    """From OpenCLIP's folder, and back into its module."""
    module = torch_clip.open_clip_model().CLIP
    theirs = fill(module(embed_dim=32, vision_cfg=dict(VISION), text_cfg=dict(TEXT)))
    (tmp_path / "folder").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "folder/open_clip_pytorch_model.bin")
    config = {"model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (tmp_path / "folder/open_clip_config.json").write_text(json.dumps(config))
    import_checkpoint(tmp_path / "folder", tmp_path / "out")
    assert harvest_jax.load(tmp_path / "out").config == SMALL
    differences(tmp_path / "out", theirs, measured, ("small g/14", "OpenCLIP's module"))
    export_model(tmp_path / "out", "open_clip", tmp_path / "again")
    from safetensors.torch import load_file

    model = json.loads((tmp_path / "again/open_clip_config.json").read_text())["model_cfg"]
    built = module(embed_dim=32, vision_cfg=model["vision_cfg"], text_cfg=model["text_cfg"])
    built.load_state_dict(load_file(tmp_path / "again/open_clip_model.safetensors"), strict=True)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_all_of_it_at_once_in_transformers_programs(activation, tmp_path, measured):
    """g/14's MLP and heads, and 248 text positions: exported to CLIPModel and to the video model's own code."""
    from transformers import AutoModel, CLIPModel

    text = TextConfig(49408, 248, 64, 2, 1, 32, activation, mlp_width=200)
    config = dataclasses.replace(SMALL, video=dataclasses.replace(SMALL.video, activation=activation), text=text)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    arrays["video/temporal_embedding"] *= 0
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    save_tensors(tmp_path / "model", config, entries, arrays.__getitem__, {})
    for form in ("hf", "hf_video"):
        export_model(tmp_path / "model", form, tmp_path / form)
    ours = harvest_jax.load(tmp_path / "model")
    frames = rng.integers(0, 256, (2, 1, 28, 28, 3), np.uint8)
    mean, std = (np.asarray(value) for value in (config.preprocessing.mean, config.preprocessing.std))
    pixels = torch.from_numpy(((frames / 255 - mean) / std).transpose(0, 1, 4, 2, 3)).float()
    ids = torch.from_numpy(ours.tokenizer([*TEXTS[:2], "words " * 200], 248)).long()
    clip = CLIPModel.from_pretrained(tmp_path / "hf").eval()
    own = AutoModel.from_pretrained(tmp_path / "hf_video", trust_remote_code=True).eval()
    with torch.inference_mode():
        found = clip(input_ids=ids, pixel_values=pixels[:, 0])
        videos, texts = own.get_video_features(pixels), own.get_text_features(ids)
    wanted = ours.encode_clips(frames), ours.encode_text([*TEXTS[:2], "words " * 200])
    for against, embedded in (("CLIPModel", (found.image_embeds, found.text_embeds)), ("hf_video", (videos, texts))):
        for tower, their, our in zip(("image", "text"), embedded, wanted, strict=True):
            difference = compare.embedding_difference(our, their.numpy())
            measured(f"small, with all of it, {activation}", f"{tower} embedding", against, difference, 1e-5)


def test_long_clips_tables(tmp_path, measured):
    """OpenAI's module with the table that Long-CLIP's masks make of its two."""
    text = TextConfig(49408, 248, 64, 2, 1, 32)
    theirs = torch_clip.openai_clip(HarvestConfig("long", VideoConfig(28, 14, 1, 128, 2, 2, 32), text, None))
    theirs = fill(theirs)
    state = dict(theirs.state_dict())
    second = torch.empty(248, 64).normal_(0.0, 0.08)
    mask = torch.zeros(248, 1)
    mask[:20] = 1
    theirs.positional_embedding.data = state["positional_embedding"] * mask + second * (1 - mask)
    torch.save(state | {"positional_embedding_res": second}, tmp_path / "longclip.pt")
    assert import_checkpoint(tmp_path / "longclip.pt", tmp_path / "out")["family"] == "Long-CLIP"
    differences(tmp_path / "out", theirs, measured, ("small Long-CLIP", "OpenAI's module"))
