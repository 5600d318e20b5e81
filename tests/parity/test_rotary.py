"""EVA-02-CLIP and Perception Encoder against timm's `Eva`, with the text towers of OpenCLIP's module, from their files.

The published architectures in small: fewer layers, narrower; heads, grids and ratios are such that a mistake shows.
timm's own reading of PE-Core's files (`checkpoint_filter_fn`) says what their names mean.
"""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

import harvest_jax  # noqa: E402
from harvest_jax.input.patches import keep_positions  # noqa: E402
from harvest_jax.weights.import_checkpoint import import_checkpoint  # noqa: E402
from tests.parity import compare, torch_clip  # noqa: E402
from tests.parity.test_other_clips import differences  # noqa: E402

pytestmark = pytest.mark.parity

TEXT = {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
EVA = {
    "img_size": 84,
    "patch_size": 14,  # 6 x 6 patches, counted as 16 x 16
    "embed_dim": 128,
    "depth": 3,
    "num_heads": 2,
    "mlp_ratio": 4 * 2 / 3,
    "qkv_fused": False,
    "swiglu_mlp": True,
    "scale_mlp": True,
    "scale_attn_inner": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (16, 16),
    "global_pool": "token",
    "num_classes": 32,
}
PE = {
    "img_size": 80,
    "patch_size": 16,
    "embed_dim": 192,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 4.0,
    "global_pool": "map",
    "attn_type": "rope",
    "use_pre_transformer_norm": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (5, 5),
    "rope_grid_offset": 1.0,
    "rope_grid_indexing": "xy",
    "attn_pool_num_heads": 8,
    "attn_pool_mlp_ratio": 4.0,
    "num_classes": 32,
}
# PE-Core-G14 in small: no class token, a pooling MLP of another ratio than the tower's, heads of 96
GIANT = PE | {
    "patch_size": 20,
    "embed_dim": 1536,
    "depth": 1,
    "num_heads": 16,
    "mlp_ratio": 0.25,
    "attn_pool_mlp_ratio": 0.5,
    "class_token": False,
    "ref_feat_shape": (4, 4),
    "rope_grid_offset": 0.0,
}


class Clip(torch.nn.Module):
    """A tower of timm's beside the text tower of OpenCLIP, under the names of its `CustomTextCLIP`."""

    def __init__(self, visual):
        super().__init__()
        module = torch_clip.open_clip_model()
        self.visual = torch.nn.ModuleDict({"trunk": visual})
        self.text = module._build_text_tower(32, dict(TEXT))
        self.logit_scale = torch.nn.Parameter(torch.tensor(3.0))

    def encode_image(self, pixels):
        return self.visual["trunk"](pixels)

    def encode_text(self, ids):
        return self.text(ids)


def made(settings, **norms):
    """A `Clip` with random numbers in every parameter."""
    torch.manual_seed(0)
    eva = torch_clip.timm_eva()
    if norms:
        import functools

        norms = {"norm_layer": functools.partial(eva.LayerNorm, **norms)}
    model = Clip(eva.Eva(**settings, **norms)).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        if ("norm" in name and name.endswith("weight")) or (".ln_" in name and name.endswith("weight")):
            tensor.normal_(1.0, 0.3)
        elif tensor.ndim < 2:
            tensor.normal_(0.0, 0.1)
        elif "q_proj" in name or "k_proj" in name or "qkv.weight" in name:
            tensor.normal_(0.0, 2 * tensor.shape[-1] ** -0.5)  # attention that is far from even
        elif "pos_embed" in name or "embedding" in name:
            tensor.normal_(0.0, 0.02)
        else:
            tensor.normal_(0.0, tensor[0].numel() ** -0.5)
    model.logit_scale.fill_(3.0)
    return model


def pe_state(model):
    """The names and layouts of facebook/PE-Core-*, by hand: the inverse of timm's own translation."""
    tower = model.visual["trunk"].state_dict()
    state = {**model.text.state_dict(), "logit_scale": model.logit_scale.data}
    pooling = tower.pop("attn_pool.q.weight"), tower.pop("attn_pool.kv.weight")
    state["visual.attn_pool.attn.in_proj_weight"] = torch.cat(pooling)
    pooling = tower.pop("attn_pool.q.bias"), tower.pop("attn_pool.kv.bias")
    state["visual.attn_pool.attn.in_proj_bias"] = torch.cat(pooling)
    tower.pop("head.bias")
    renamed = (
        ("patch_embed.proj", "conv1"),
        ("pos_embed", "positional_embedding"),
        ("cls_token", "class_embedding"),
        ("head.weight", "proj"),
        ("attn_pool.latent", "attn_pool.probe"),
        ("attn_pool.proj", "attn_pool.attn.out_proj"),
        ("attn_pool.norm", "attn_pool.layernorm"),
        ("blocks.", "transformer.resblocks."),
        ("norm_pre", "ln_pre"),
        ("norm1", "ln_1"),
        ("norm2", "ln_2"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    )
    for name, tensor in tower.items():
        new = "ln_post" + name.removeprefix("norm") if name.startswith("norm.") else name
        for old, theirs in renamed:
            new = new.replace(old, theirs)
        if new == "proj":
            tensor = tensor.T
        elif new in ("class_embedding", "positional_embedding"):
            tensor = tensor[0, 0] if new == "class_embedding" else tensor[0]
        state[f"visual.{new}"] = tensor.contiguous()
    return state


@pytest.mark.parametrize(("name", "settings"), [("PE-Core", PE), ("PE-Core-G", GIANT)])
def test_pe_core_from_its_file(name, settings, tmp_path, measured):
    theirs = made(settings, eps=1e-5)
    trunk = theirs.visual["trunk"]
    trunk.head.bias.zero_()  # timm's reading makes it so: the file has none
    state = pe_state(theirs)
    read = torch_clip.timm_eva().checkpoint_filter_fn(dict(state), trunk)
    assert set(read) == set(trunk.state_dict())
    for key, tensor in trunk.state_dict().items():
        torch.testing.assert_close(read[key].reshape(tensor.shape), tensor, rtol=0, atol=0)
    torch.save(state, tmp_path / "PE-Core.pt")
    done = import_checkpoint(tmp_path / "PE-Core.pt", tmp_path / "out")
    assert done["family"] == "Perception Encoder (PE-Core)"
    differences(tmp_path / "out", theirs, measured, (f"small {name}", "timm's Eva"))


def eva_folder(model, folder):
    folder.mkdir()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    vision = {"image_size": 84, "timm_model_name": "eva02_base_patch16_clip_224", "timm_model_pretrained": False}
    vision |= {"timm_pool": "token", "timm_proj": None}
    model_cfg = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT, "custom_text": True}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    return folder


def test_eva_02_from_openclips_folder_and_from_its_own_names(tmp_path, measured):
    theirs = made(EVA)
    folder = eva_folder(theirs, tmp_path / "folder")
    done = import_checkpoint(folder, tmp_path / "out")
    assert (done["family"], done["notes"]) == ("EVA-02-CLIP", [])
    differences(tmp_path / "out", theirs, measured, ("small EVA-02", "timm's Eva"))
    renamed = {
        ".trunk.": ".",
        ".attn.norm.": ".attn.inner_attn_ln.",
        ".attn.q_proj.bias": ".attn.q_bias",
        ".attn.v_proj.bias": ".attn.v_bias",
        ".mlp.fc1_g.": ".mlp.w1.",
        ".mlp.fc1_x.": ".mlp.w2.",
        ".mlp.norm.": ".mlp.ffn_ln.",
        ".mlp.fc2.": ".mlp.w3.",
    }
    state = {"visual.rope.freqs_cos": torch.zeros(36, 64), "visual.blocks.0.attn.rope.freqs_sin": torch.zeros(36, 64)}
    for name, tensor in theirs.state_dict().items():
        new = name
        for old, other in renamed.items() if name.startswith("visual.") else ():
            new = new.replace(old, other)
        state[new] = tensor
    read = torch_clip.timm_eva().checkpoint_filter_fn(dict(state), theirs.visual["trunk"])
    assert set(read) == set(theirs.visual["trunk"].state_dict())
    torch.save(state, tmp_path / "EVA02_CLIP.pt")
    assert import_checkpoint(tmp_path / "EVA02_CLIP.pt", tmp_path / "again")["family"] == "EVA-02-CLIP"
    ours, again = (harvest_jax.load(tmp_path / name) for name in ("out", "again"))
    assert ours.digest == again.digest


def test_dropped_patches_keep_their_places(tmp_path, measured):
    """timm's tower with the same patches taken out before its blocks, as its own patch dropout does."""
    theirs = made(EVA)
    import_checkpoint(eva_folder(theirs, tmp_path / "folder"), tmp_path / "out")
    ours = harvest_jax.load(tmp_path / "out").keeping(0.4, seed=3)
    cells = keep_positions(np.random.default_rng(3), 1, 36, 0.4)  # as `keeping` draws them
    trunk = theirs.visual["trunk"]

    class Drop(torch.nn.Module):
        def forward(self, x):
            index = torch.from_numpy(cells).long()[None].expand(len(x), -1)
            kept = torch.gather(x[:, 1:], 1, index[..., None].expand(-1, -1, x.shape[-1]))
            return torch.cat([x[:, :1], kept], dim=1), index

    trunk.patch_drop = Drop()
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, 84, 84, 3), np.uint8)
    mean, std = (np.asarray(value) for value in (ours.config.preprocessing.mean, ours.config.preprocessing.std))
    pixels = torch.from_numpy(((frames[:, 0] / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        image = theirs.encode_image(pixels).numpy()
    difference = compare.embedding_difference(ours.encode_clips(frames), image)
    measured("small EVA-02", "image embedding, 14 of 36 patches", "timm's Eva", difference, 1e-5)
