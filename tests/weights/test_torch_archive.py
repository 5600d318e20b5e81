"""Torch files: what the real writers made, every layout of a tensor, and files made to do harm."""

import io
import os
import pickle
import re
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.weights.files import pickle_reader, torch_archive, zip_members
from harvest_jax.weights.files.pickle_reader import KNOWN
from harvest_jax.weights.files.torch_archive import open_archive
from tests.helpers.torch_files import (
    STORAGE_NAMES,
    Call,
    Name,
    Reference,
    Script,
    Storages,
    pickled,
    read_all,
    view,
    write_archive,
    write_state_dict,
)

FILES = Path(__file__).parents[1] / "data" / "checkpoints"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def pattern(name, shape):
    """The numbers of the committed files; the same lines stand in their make.py, which needs torch."""
    size = int(np.prod(shape))
    return (((np.arange(size) * 7 + zlib.crc32(name.encode())) % 251 - 125) / 64).astype(np.float32).reshape(shape)


def refused(path, message):
    """The one line of the DataError."""
    with pytest.raises(DataError, match=message) as raised:
        read_all(open_archive(path))
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 700
    assert str(path) in text
    return text


# --- what the real writers made


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


# --- every layout


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


def test_compressed_and_unaligned_archives_can_be_read(tmp_path):
    arrays = {f"a{i}": np.arange(i + 1, dtype=np.float64) for i in range(12)}  # lengths shift what follows
    storages = Storages()
    tree = {name: storages.tensor(array) for name, array in arrays.items()}
    for packed in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        tensors = open_archive(write_archive(tmp_path / "x.pth", tree, storages.raw, packed=packed))
        for name, array in arrays.items():
            np.testing.assert_array_equal(tensors.read(name), array)
            assert tensors.read(name).flags.aligned


def test_zip64_where_an_archive_is_over_four_gigabytes(tmp_path):
    path = tmp_path / "x.pth"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(5 << 30)  # a hole: takes no room on the disk
        with zipfile.ZipFile(file, "a") as archive:
            storages = Storages()
            archive.writestr("x/data.pkl", pickled({"a": storages.tensor(np.arange(5, dtype=np.float32))}))
            archive.writestr("x/data/0", storages.raw["0"])
    assert path.stat().st_blocks * 512 < 1 << 20, "the file system cannot keep holes"
    np.testing.assert_array_equal(open_archive(path).read("a"), np.arange(5))


# --- pickles that would run code

HARMFUL = {
    "os.system": Call("os.system", ("touch ran",)),
    "posix.system": Call("posix.system", ("touch ran",)),
    "builtins.eval": Call("builtins.eval", ("open('ran', 'w')",)),
    "builtins.getattr": Call("builtins.getattr", (Name("torch._utils._rebuild_parameter"), "__globals__")),
    "torch.load": Call("torch.load", ("ran",)),
    "torch._utils._rebuild_tensor_v2.__globals__": Name("torch._utils._rebuild_tensor_v2.__globals__"),
    "torch.jit._pickle.build_tensor_from_id": Call("torch.jit._pickle.build_tensor_from_id", (1,)),
    "collections.OrderedDict.fromkeys": Call("collections.OrderedDict.fromkeys", ([1],)),
    "torch.nn.modules.linear.Linear": Name("torch.nn.modules.linear.Linear"),
}


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("place", ["value", "key", "nested"])
def test_a_pickle_that_would_run_code_is_named_and_not_run(name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harmful = HARMFUL[name]
    tree = {"value": {"a": harmful}, "nested": {"model": [({"a": harmful},)]}}.get(place)
    raw = pickled(tree) if tree else b"\x80\x02}(" + pickled(harmful)[2:-1] + b"K\x01u."
    text = refused(write_archive(tmp_path / "x.pth", raw, {}), re.escape(name))
    assert "nothing of it was run" in text
    assert not (tmp_path / "ran").exists()


class Harm:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_python_that_would_run_code(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = pickle.dumps({"model": {"a": Harm()}}, protocol)
    refused(write_archive(tmp_path / "x.pth", raw, {}), "system")
    assert not (tmp_path / "ran").exists()
    pickle.loads(raw)  # and it would have
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80\x02(S'touch ran'\nios\nsystem\n.", r"os\.system"),  # INST
        (b"\x80\x02(cos\nsystem\nS'touch ran'\no.", r"os\.system"),  # OBJ
        (b"\x80\x02(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x80\x02(icollections\nOrderedDict\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),  # a global by its number
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02P0\n.", "PERSID"),
        (b"\x80\x02X\x01\x00\x00\x00a)R.", "no function"),  # a call of a text
        (b"\x80\x02ctorch\nFloatStorage\n)R.", r"torch\.FloatStorage"),
        (b"\x80\x02c__torch__.a\nB\n)R.", r"__torch__\.a\.B"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", r"collections\.OrderedDict"),  # NEWOBJ
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\n}b.", "cannot be read"),  # attributes for a function
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"os\.system"),  # STACK_GLOBAL
        (b"\x80\x04K\x01K\x02\x93.", "a global without a name"),
        (b"c" + b"a" * 50_000 + b"\nb\n.", "aaaa"),
        (b"cm\nos\x1b[31m\n.", "nothing of it was run"),  # names that would write over the terminal
    ],
)
def test_other_ways_to_code(raw, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = refused(write_archive(tmp_path / "x.pth", raw, {}), message)
    assert text.isascii()
    assert not (tmp_path / "ran").exists()


def test_the_reader_of_pickles_can_import_nothing():
    code = Path(pickle_reader.__file__).read_text()
    assert not re.search(r"import_module|__import__|\bgetattr\(|\beval\(|\bexec\(|\bsetattr\(|import pickle\b", code)
    assert all(name.startswith(("torch.", "collections.", "numpy.", "argparse.", "pathlib.", "_codecs.", "builtins.",
                                "__builtin__.")) for name in KNOWN)  # fmt: skip


# --- pickles that are damaged or absurd


def nested(depth):
    return b"\x80\x02" + b"}X\x01\x00\x00\x00a" * depth + b"}" + b"s" * depth + b"."


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "cannot be read"),
        (b"\x80\x02", "cannot be read"),
        (b"\x80\x02}", "cannot be read"),
        (b"\x80\x02.", "cannot be read"),
        (b"hello", "cannot be read"),
        (b"\x80\x02h\x05.", "cannot be read"),  # no such memo
        (b"\x80\x02t.", "cannot be read"),  # no mark
        (b"\x80\x02}K\x01u.", "cannot be read"),
        (b"\x80\x02K\x01K\x02K\x03s.", "cannot be read"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "cannot be read"),  # a text longer than the file
        (b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.", "cannot be read"),
        (b"\x80\x02}r\xff\xff\xff\xff(X\x01\x00\x00\x00aK\x01u.", "holds no tensors"),  # memo of number 2^32 - 1
        (b"\x80\x02K\x01.", "holds no tensors"),
        (b"\x80\x02].", "holds no tensors"),
        (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "without end"),  # a dict in itself
        (nested(200), "without end"),
        (pickled({"a": [[[[[[b"]"] * 30] * 30] * 30]]]}), "no tensors"),
    ],
)
def test_damaged_pickles(raw, message, tmp_path):
    refused(write_archive(tmp_path / "x.pth", raw, {}), message)


def test_a_small_pickle_that_stands_for_a_huge_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_archive, "VALUES_LIMIT", 20_000)
    raw = b"\x80\x02}q\x00" + b"".join(
        b"]q" + bytes([level + 1]) + b"(" + (b"h" + bytes([level])) * 9 + b"e" for level in range(40)
    )
    tree = b"}X\x01\x00\x00\x00ah\x28s."
    refused(write_archive(tmp_path / "x.pth", raw + tree, {}), "without end")


def instructions(value):
    """Those of `pickled`, to be put together."""
    return pickled(value)[2:-1]


ORDERED = instructions(Name("collections.OrderedDict"))
PAIRS = b"](" + b"".join(b"K%cN\x86" % index for index in range(200)) + b"e"
STATE = instructions({str(index): None for index in range(200)})
LONG = instructions("a" * 9000)
DOUBLED = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
REBUILD = instructions(Name("torch._tensor._rebuild_from_type_v2"))
AXES = Call("torch._utils._rebuild_tensor_v2", (Reference(("storage", Name("torch.FloatStorage"), "0", "cpu", 4)), 0,
            [1] * 100, [1] * 100, False, {}))  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        # a dict of one long text's characters, again and again
        (ORDERED + b"(](" + instructions("ab" * 5000) + b"q\x01" + b"h\x01" * 30 + b"etR", "something else than pairs"),
        # one list of 200 pairs, copied 200 times by 5 bytes each; the same as the attributes of modules
        (ORDERED + b"q\x000" + PAIRS + b"\x85q\x010](" + b"h\x00h\x01R" * 200 + b"e", "copies the same values"),
        (b"c__torch__.a\nB\nq\x000" + STATE + b"q\x010](" + b"h\x00)\x81h\x01b" * 200 + b"e", "copies the same values"),
        # names of two parts, joined again and again; a part that is a tuple of tuples, 2^60 at last
        (b"X\x09\0\0\0__torch__q\x000" + LONG + b"q\x010(" + b"h\x00h\x01\x93" * 4 + b"l", "copies the same values"),
        (b")q\x00" + DOUBLED + b"K\x01\x93", "a global without a name"),
        (instructions(AXES), "an array of 100 axes"),  # in a list that could be copied
        (REBUILD + b"q\x000" + b"h\x00" + b"h\x00N" * 1500 + b")" + b"\x87" * 1500 + b"R", "within another"),
        (b"}\x8b" + struct.pack("<i", 5001) + (1 << 40_000).to_bytes(5001, "little") + b"]s", "of 64 bits"),
    ],
)
def test_small_pickles_that_take_much_memory_or_time(raw, message, tmp_path, monkeypatch):
    assert pickle_reader.COPIES_LIMIT <= 4_000_000  # a pair of a dict takes some 40 bytes
    monkeypatch.setattr(pickle_reader, "COPIES_LIMIT", 30_000)
    refused(write_archive(tmp_path / "x.pth", b"\x80\x02" + raw + b".", {}), message)


@pytest.mark.parametrize(("child", "message"), [(b"]K\x01a", "without end"), (b"}", "holds no tensors")])
def test_a_long_name_before_many_values(child, message, tmp_path, monkeypatch):
    """Of 4,000 bytes each: what is empty gets no name, and the names of the rest are counted."""
    assert torch_archive.NAMES_LIMIT <= 64 << 20
    monkeypatch.setattr(torch_archive, "NAMES_LIMIT", 1 << 20)
    key = instructions("\N{GRINNING FACE}" * 990)
    raw = b"\x80\x02}" + key + b"](" + child + b"q\x05" + b"h\x05" * 5000 + b"es."
    tracemalloc.start()
    try:
        refused(write_archive(tmp_path / "x.pth", raw, {}), message)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20  # 20 MB of names otherwise
    finally:
        tracemalloc.stop()


def test_keys_that_take_for_ever_to_hash(tmp_path):
    raw = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(20))
    refused(write_archive(tmp_path / "x.pth", raw + b"0}h\x14K\x01s.", {}), "a dict with keys")


def test_the_size_of_pickles_is_bounded(tmp_path, monkeypatch):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    monkeypatch.setattr(pickle_reader, "INSTRUCTIONS_LIMIT", 20)
    refused(path, "more than 20 instructions")
    monkeypatch.setattr(torch_archive, "BYTES_LIMIT", 20)
    refused(path, "larger than 20 bytes")


# --- tensors that do not fit their storages

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


# --- archives that are damaged or made to do harm


def test_a_truncated_archive(tmp_path):
    raw = (FILES / "clip_torch1.7.pt").read_bytes()
    for size in (len(raw) - 1, len(raw) - 30, len(raw) // 2, 200, 20, 4):
        (tmp_path / "x.pt").write_bytes(raw[:size])
        refused(tmp_path / "x.pt", "cut short or damaged")
    (tmp_path / "x.pt").write_bytes(raw[1000:])  # the beginning is missing
    refused(tmp_path / "x.pt", "does not begin")


def test_a_changed_byte_is_found(tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.arange(500, dtype=np.float32), "b": np.ones(5, np.float32)})
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.float32(250).tobytes() + np.float32(251).tobytes())] ^= 1
    path.write_bytes(raw)
    tensors = open_archive(path)
    np.testing.assert_array_equal(tensors.read("b"), np.ones(5))
    with pytest.raises(DataError, match=r"archive/data/0 does not fit its checksum"):
        tensors.read("a")


def add(path, name, content=b"x"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, at doubles
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name), content)


@pytest.mark.parametrize(
    "name", ["../evil", "archive/../../evil", "/etc/evil", "archive/..", "..\\evil", "C:\\evil", "c:/evil", "\\evil"]
)
def test_names_that_lead_out_of_the_archive(name, tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    add(path, name)
    refused(path, "leads out of the archive")


def test_names_twice(tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    add(path, "archive/data/0")
    refused(path, "is there twice")


def test_a_file_with_two_pickles_or_none(tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    add(path, "other/data.pkl")
    refused(path, "holds 2 data.pkl")
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        archive.writestr("model.json", "{}")
    refused(tmp_path / "y.pth", "holds no data.pkl")


def test_a_compressed_bomb_is_not_unpacked(tmp_path, monkeypatch):
    storages = Storages()
    tree = {"a": storages.tensor(np.zeros(10_000_000, np.float32))}
    path = write_archive(tmp_path / "x.pth", tree, storages.raw, packed=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(torch_archive, "PACKED_LIMIT", 1 << 20)
    refused(path, "compressed and larger than 1048576 bytes")


def test_a_compressed_member_that_is_larger_than_it_says(tmp_path):
    storages = Storages()
    tree = {"a": view(Reference(("storage", Name("torch.FloatStorage"), "0", "cpu", 10)), 0, (10,), (1,))}
    storages.raw["0"] = bytes(50_000_000)
    path = write_archive(tmp_path / "x.pth", tree, storages.raw, packed=zipfile.ZIP_DEFLATED)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", 50_000_000), struct.pack("<I", 40)))
    refused(path, "does not unpack to 40 bytes|does not fit its checksum")


def directory_entry(raw, name):
    """Where the table of contents has a member."""
    at = raw.index(b"PK\x01\x02")
    while raw[at + 46 : at + 46 + len(name)] != name:
        at = raw.index(b"PK\x01\x02", at + 4)
    return at


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (20, 1 << 30, "gives two sizes"),  # compressed size
        (24, 1 << 30, "gives two sizes"),
        (42, 1 << 30, "reaches past the end"),  # place of the member
        (42, 3, "does not stand where it should"),
        (42, 0, "has another name"),
        (10, 12, "compressed in a way"),  # bzip2
        (8, 1, "is encrypted"),
    ],
)
def test_a_table_of_contents_that_lies(offset, value, message, tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    raw = bytearray(path.read_bytes())
    at = directory_entry(raw, b"archive/data/0") + offset
    raw[at : at + 4] = (
        struct.pack("<I", value) if offset >= 20 else struct.pack("<H", value) + bytes(raw[at + 2 : at + 4])
    )
    path.write_bytes(raw)
    refused(path, message)


def test_a_member_whose_size_is_absurd(tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    raw = bytearray(path.read_bytes())
    at = directory_entry(raw, b"archive/data/0")
    raw[at + 20 : at + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    path.write_bytes(raw)
    refused(path, "reaches past the end")


def test_members_over_each_other(tmp_path):
    path = tmp_path / "x.pth"
    content = bytes(5000)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data/0", content)
        first = archive.infolist()[0]
        for index in range(1, 50):  # the same bytes again, which zipfile lets one list
            again = zipfile.ZipInfo(f"x/data/{index}")
            again.file_size, again.compress_size, again.CRC = first.file_size, first.compress_size, first.CRC
            again.header_offset = first.header_offset
            archive.filelist.append(again)
        archive._didModify = True
    refused(path, "lie over each other")


def test_the_table_of_contents_is_bounded(tmp_path, monkeypatch):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    monkeypatch.setattr(zip_members, "DIRECTORY_LIMIT", 100)
    refused(path, "larger than 100 bytes")


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


@pytest.mark.parametrize(("content", "message"), [(pickle.dumps({}), "bare pickle"), (b"<html>", "no torch file")])
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
