"""Torch files: what torch wrote, every layout of a tensor, and damaged or malicious files."""

import io
import pickle
import re
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.weights.files import torch_archive, zip_members
from harvest_jax.weights.files.torch_archive import open_archive
from tests.helpers.checkpoint_files import FILES
from tests.helpers.torch_files import (
    STORAGE_NAMES,
    Call,
    Name,
    Reference,
    Script,
    Storages,
    add_member,
    read_all,
    refused,
    view,
    write_archive,
    write_state_dict,
)

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def pattern(name, shape):
    """The numbers of the committed files; the same lines stand in their make.py, which needs torch."""
    size = int(np.prod(shape))
    return (((np.arange(size) * 7 + zlib.crc32(name.encode())) % 251 - 125) / 64).astype(np.float32).reshape(shape)


def test_an_archive_in_the_published_format():
    tensors = open_archive(FILES / "clip_torch1.7.pt")
    assert tensors.kind == "TorchScript archive"
    blocks = ["visual.transformer.resblocks.0", "transformer.resblocks.0", "transformer.resblocks.1"]
    block = {
        "attn.in_proj_weight": (48, 16),
        "attn.in_proj_bias": (48,),
        "attn.out_proj.weight": (16, 16),
        "attn.out_proj.bias": (16,),
        "ln_1.weight": (16,),
        "ln_1.bias": (16,),
        "ln_2.weight": (16,),
        "ln_2.bias": (16,),
        "mlp.c_fc.weight": (64, 16),
        "mlp.c_fc.bias": (64,),
        "mlp.c_proj.weight": (16, 64),
        "mlp.c_proj.bias": (16,),
    }
    shapes = {f"{prefix}.{name}": shape for prefix in blocks for name, shape in block.items()} | {
        "positional_embedding": (6, 16),
        "text_projection": (16, 8),
        "logit_scale": (),
        "token_embedding.weight": (24, 16),
        "ln_final.weight": (16,),
        "ln_final.bias": (16,),
        "visual.class_embedding": (16,),
        "visual.positional_embedding": (5, 16),
        "visual.proj": (16, 8),
        "visual.conv1.weight": (16, 3, 4, 4),
        "visual.ln_pre.weight": (16,),
        "visual.ln_pre.bias": (16,),
        "visual.ln_post.weight": (16,),
        "visual.ln_post.bias": (16,),
    }
    numbers = {"input_resolution": 8, "context_length": 6, "vocab_size": 24}
    assert set(tensors.entries) == set(shapes) | set(numbers)
    for name, shape in shapes.items():
        half = "ln_" not in name and re.search(r"attn|mlp|proj|conv1", name)
        assert tensors.entries[name].shape == shape, name
        assert tensors.entries[name].dtype == (np.float16 if half else np.float32), name
        array = tensors.read(name)
        assert (array.shape, array.dtype) == (shape, tensors.entries[name].dtype)
        np.testing.assert_array_equal(array, pattern(name, shape), err_msg=name)
    for name, number in numbers.items():
        assert tensors.read(name) == number


def test_a_state_dict_within_a_training():
    tensors = open_archive(FILES / "wrapped.pth")
    assert tensors.kind == "torch state_dict (under ['state_dict'])"
    assert tensors.details == {"beside": {"epoch": 3, "name": "tiny"}}
    whole = {"ln.weight": (5,), "conv.weight": (4, 3, 2, 2), "proj": (6, 4), "logit_scale": ()}
    assert set(tensors.entries) == {f"module.{name}" for name in [*whole, "half"]}
    for name, shape in whole.items():
        np.testing.assert_array_equal(tensors.read(f"module.{name}").astype(np.float32), pattern(name, shape))
    np.testing.assert_array_equal(tensors.read("module.half"), pattern("half", (3, 5))[1:, ::2])
    assert tensors.read("module.conv.weight").dtype == BFLOAT16
    assert tensors.read("module.half").dtype == np.float16
    assert not tensors.read("module.proj").flags.c_contiguous  # as it lay in the module


@pytest.mark.parametrize("dtype", list(STORAGE_NAMES), ids=str)
def test_every_dtype(dtype, tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    tensors = open_archive(write_state_dict(tmp_path / "x.pth", {"a": array}))
    assert tensors.entries["a"].dtype == dtype
    assert tensors.read("a").dtype == dtype
    np.testing.assert_array_equal(tensors.read("a"), array)


def test_views_of_one_storage(tmp_path):
    numbers = np.arange(40, dtype=np.float32)
    storages = Storages()
    shared = storages.add(numbers)
    tree = {
        "all": view(shared, 0, (40,), (1,)),
        "turned": view(shared, 2, (4, 6), (1, 4)),
        "sparse": view(shared, 3, (3, 2), (12, 5)),
        "same": view(shared, 7, (3, 4), (0, 1)),  # expanded
        "single": view(shared, 39, (), ()),
        "axis_of_one": view(shared, 39, (1, 1), (999, 1)),
        "empty": view(shared, 40, (0, 3), (3, 1)),
    }
    tensors = open_archive(write_archive(tmp_path / "x.pth", tree, storages.raw))
    found = {name: tensors.read(name) for name in tensors.entries}
    np.testing.assert_array_equal(found["all"], numbers)
    np.testing.assert_array_equal(found["turned"], numbers[2:26].reshape(6, 4).T)
    np.testing.assert_array_equal(found["sparse"], [[3, 8], [15, 20], [27, 32]])
    np.testing.assert_array_equal(found["same"], [[7, 8, 9, 10]] * 3)
    assert found["single"] == 39
    np.testing.assert_array_equal(found["axis_of_one"], [[39]])
    assert found["empty"].shape == (0, 3)
    assert not any(array.flags.writeable for name, array in found.items() if name != "empty")


def test_the_three_ways_torch_wrote_tensors_and_parameters(tmp_path):
    storages = Storages()
    numbers = np.arange(6, dtype=np.float32)
    tensor = storages.tensor(numbers)
    hooks = Call("collections.OrderedDict")
    untyped = Reference(("storage", Name("torch.storage.UntypedStorage"), "0", "cpu", 24))
    tree = {
        "old": Call("torch._utils._rebuild_tensor", tensor.arguments[:4]),
        "parameter": Call("torch._utils._rebuild_parameter", (tensor, True, hooks)),
        "attributed": Call("torch._utils._rebuild_parameter_with_state", (tensor, True, hooks, {"tag": 1})),
        "untyped": Call(
            "torch._utils._rebuild_tensor_v3", (untyped, 0, (6,), (1,), False, hooks, Name("torch.float32"), None)
        ),
        "subclass": Call(
            "torch._tensor._rebuild_from_type_v2",
            (Name("torch._utils._rebuild_tensor_v2"), Name("torch.Tensor"), tensor.arguments, {}),
        ),
    }
    tensors = open_archive(write_archive(tmp_path / "x.pth", tree, storages.raw))
    assert set(tensors.entries) == set(tree)
    for name in tree:
        np.testing.assert_array_equal(tensors.read(name), numbers)


def test_a_tree_of_modules_is_named_as_its_state_dict(tmp_path):
    storages = Storages()
    weight, mask = storages.tensor(np.ones((2, 2), np.float16)), storages.tensor(np.zeros(4, np.float32))
    linear = Script("__torch__.torch.nn.modules.linear.Linear", {"weight": weight, "training": True, "mask": mask})
    layers = Call("torch.jit._pickle.build_intlist", ([1, 2],))
    lists = Call("torch.jit._pickle.restore_type_tag", ([1.5], "List[float]"))
    tree = Script(
        "__torch__.model.___torch_mangle_7.Net",
        {"scale": mask, "layers": layers, "lists": lists, "blocks": Script("__torch__.S", {"0": linear, "1": linear})},
    )

    def code(name, parameters, buffers):
        return f"class {name}(Module):\n  __parameters__ = [{parameters}]\n  __buffers__ = [{buffers}]\n  x : int\n"

    others = {
        "code/__torch__/torch/nn/modules/linear.py": code("Other", '"mask", ', "") + code("Linear", '"weight", ', ""),
        "code/__torch__/model/___torch_mangle_7.py": code("Net", "", '"scale", '),
    }
    others = {name: text.encode() for name, text in others.items()}
    archive = write_archive(tmp_path / "x.pt", tree, storages.raw, others, zipfile.ZIP_DEFLATED)
    assert set(open_archive(archive).entries) == {"scale", "blocks.0.weight", "blocks.1.weight"}
    without_code = write_archive(tmp_path / "y.pt", tree, storages.raw)
    assert set(open_archive(without_code).entries) == {
        "scale",
        *("blocks.0.weight", "blocks.1.weight", "blocks.0.mask", "blocks.1.mask"),
    }


def test_a_file_of_code_is_read_once_and_all_of_them_are_bounded(tmp_path, monkeypatch):
    storages = Storages()
    parts = {f"m{i}": Script(f"__torch__.m.T{i}", {"w": storages.tensor(np.ones(1))}) for i in range(5)}
    code = "".join(f'class T{i}(Module):\n  __parameters__ = ["w", ]\n  __buffers__ = []\n' for i in range(4))
    others = {"code/__torch__/m.py": code.encode()}
    path = write_archive(tmp_path / "x.pt", Script("__torch__.A", parts), storages.raw, others)
    members = []
    read = zip_members.ZipMembers.read
    monkeypatch.setattr(
        zip_members.ZipMembers, "read", lambda self, name, limit: members.append(name) or read(self, name, limit)
    )
    assert set(open_archive(path).entries) == {f"m{i}.w" for i in range(5)}
    assert members.count("archive/code/__torch__/m.py") == 1
    monkeypatch.setattr(torch_archive, "CODE_LIMIT", 100)
    refused(path, "its code is larger than 100 bytes")


@pytest.mark.parametrize("inside", ["model", "module", "state_dict", "model_state_dict"])
def test_wrappers_are_taken_off_and_the_optimizer_left_alone(inside, tmp_path):
    storages = Storages()
    tree = {
        "optimizer": {"state": {0: {"exp_avg": storages.tensor(np.ones(3, np.float32))}}, "defaults": {"lr": 0.1}},
        "step": 7,
        "rng_state": storages.tensor(np.ones(4, np.uint8)),
        inside: {"w": storages.tensor(np.ones(2, np.float32)), "unknown": None},
        "args": Call("argparse.Namespace"),
    }
    tensors = open_archive(write_archive(tmp_path / "x.ckpt", tree, storages.raw))
    assert set(tensors.entries) == {"w"}
    assert tensors.kind == f"torch state_dict (under [{inside!r}])"
    assert tensors.details == {"beside": {"step": 7}}


def test_a_parameter_called_model_is_no_wrapper(tmp_path):
    arrays = {"model": np.ones(2, np.float32), "module": np.zeros(2, np.float32)}
    assert set(open_archive(write_state_dict(tmp_path / "x.pth", arrays)).entries) == set(arrays)


def test_dicts_and_lists_within_each_other(tmp_path):
    storages = Storages()
    tree = {"encoder": {"layers": [{"w": storages.tensor(np.ones(2, np.float32))}] * 2, 5: {"b": True}}}
    tensors = open_archive(write_archive(tmp_path / "x.pth", tree, storages.raw))
    assert set(tensors.entries) == {"encoder.layers.0.w", "encoder.layers.1.w"}


SHORT = Reference(("storage", Name("torch.FloatStorage"), "0", "cpu", 10))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (view(SHORT, 0, (11,), (1,)), "does not fit"),
        (view(SHORT, 1, (10,), (1,)), "does not fit"),
        (view(SHORT, 0, (2, 2), (9, 1)), "does not fit"),
        (view(SHORT, 0, (1 << 40,), (0,)), "does not fit"),
        (view(SHORT, 0, (1 << 47, 1 << 47, 1 << 47), (1, 1, 1)), "cannot be read"),
        (view(SHORT, 0, (0, 1 << 47, 1 << 47), (1, 1, 1)), "cannot be read"),  # nothing, of a size that numpy refuses
        (view(SHORT, 9, (10,), (-1,)), "cannot be read"),
        (view(SHORT, -1, (1,), (1,)), "cannot be read"),
        (view(SHORT, 0, (-1,), (1,)), "cannot be read"),
        (view(SHORT, 0, (2,), (1, 1)), "cannot be read"),
        (view(SHORT, 0, (1 << 60,), (1,)), "cannot be read"),
        (view(SHORT, 0, (True,), (1,)), "cannot be read"),
        (view(SHORT, 0, (1,) * 17, (1,) * 17), "17 axes"),
        (view(Reference(("storage", Name("torch.FloatStorage"), "0", "cpu", 99)), 0, (11,), (1,)), "does not fit"),
        (view(Reference(("storage", Name("torch.FloatStorage"), "0", "cpu", 4)), 0, (5,), (1,)), "does not fit"),
        (view(Reference(("storage", Name("torch.FloatStorage"), "0", "cpu", -4)), 0, (1,), (1,)), "cannot be read"),
        (view(Reference(("storage", Name("torch.FloatStorage"), "../0", "cpu", 4)), 0, (1,), (1,)), "holds no"),
        (view(Reference(("storage", Name("torch.FloatStorage"), "1", "cpu", 4)), 0, (1,), (1,)), "holds no"),
        (view(Reference(("storage", Name("torch.FloatStorage"), 0, "cpu", 4)), 0, (1,), (1,)), "cannot be read"),
        (view(Reference(("storage", Name("torch.FloatStorage"), "0" * 2000, "", 4)), 0, (1,), (1,)), "cannot be read"),
        (view(Reference(("module", Name("torch.FloatStorage"), "0", "cpu", 4)), 0, (1,), (1,)), "cannot be read"),
        (view(Reference(("storage", Name("torch.Size"), "0", "cpu", 4)), 0, (1,), (1,)), "cannot be read"),
        (view(Reference(("storage", Name("torch.QInt8Storage"), "0", "cpu", 4)), 0, (1,), (1,)), "torch.QInt8Storage"),
        (view(Reference(("storage",)), 0, (1,), (1,)), "cannot be read"),
        (Call("torch._utils._rebuild_tensor_v2", ()), "cannot be read"),
        (Call("torch._utils._rebuild_tensor_v2", ("0", 0, (1,), (1,))), "cannot be read"),
        (Call("torch._utils._rebuild_tensor_v2", (SHORT, 0, (1,), (1,), False, {}, {"neg": True})), "negative"),
    ],
)
def test_tensors_that_lie_about_their_storage(tensor, message, tmp_path):
    refused(write_archive(tmp_path / "x.pth", {"a": tensor}, {"0": bytes(40)}), message)


def test_two_tensors_of_one_name(tmp_path):
    storages = Storages()
    one = storages.tensor(np.ones(1, np.float32))
    refused(write_archive(tmp_path / "x.pth", {"a": {"b": one}, "a.b": one}, storages.raw), "a name is there twice")


def test_a_file_with_two_pickles_or_none(tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    add_member(path, "other/data.pkl")
    refused(path, "holds 2 data.pkl")
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        archive.writestr("model.json", "{}")
    refused(tmp_path / "y.pth", "holds no data.pkl")


def test_big_endian_machines(tmp_path):
    storages = Storages()
    tree = {"a": storages.tensor(np.ones(3, np.float32))}
    refused(write_archive(tmp_path / "x.pth", tree, storages.raw, {"byteorder": b"big"}), "big-endian")
    write_archive(tmp_path / "x.pth", tree, storages.raw, {"byteorder": b"little"})
    assert open_archive(tmp_path / "x.pth").entries


def test_the_format_before_torch_1_6(tmp_path):
    raw = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}))
    (tmp_path / "x.pth").write_bytes(raw)
    refused(tmp_path / "x.pth", r"format of torch before 1\.6: save it again")
    tar = io.BytesIO(bytes(257) + b"ustar" + bytes(1000))
    (tmp_path / "y.pth").write_bytes(tar.getvalue())
    refused(tmp_path / "y.pth", r"format of torch before 1\.6: save it again")


@pytest.mark.parametrize(
    ("content", "message"), [(pickle.dumps({}), "bare pickle"), (b"<html>", "is not a torch file")]
)
def test_other_files(content, message, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", message)
    refused(tmp_path / "nowhere.pth", "cannot be read")


@pytest.mark.parametrize("name", ["clip_torch1.7.pt", "wrapped.pth"])
def test_random_damage_is_an_error_in_one_line_or_harmless(name, tmp_path):
    """Whatever bytes change: a DataError, or tensors of the shapes that are told; never another exception."""
    original = (FILES / name).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / name
    pickle_at = original.index(b"data.pkl")
    messages = []
    for trial in range(60):
        raw = bytearray(original)
        low, high = [(0, len(raw)), (pickle_at, pickle_at + 3000), (len(raw) - 2000, len(raw))][trial % 3]
        for at in rng.integers(low, min(high, len(raw)), size=rng.integers(1, 5)):
            raw[at] = rng.integers(256)
        path.write_bytes(raw)
        try:
            read_all(open_archive(path))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not any("\n" in message for message in messages)
