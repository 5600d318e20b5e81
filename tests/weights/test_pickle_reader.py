"""Pickles of torch files that would run code, are damaged, or take much memory or time."""

import os
import pickle
import re
import struct
import tracemalloc

import numpy as np
import pytest

from harvest_jax.weights.files import pickle_reader, torch_archive
from tests.helpers.torch_files import (
    Call,
    Name,
    Reference,
    instructions,
    pickled,
    refused,
    write_archive,
    write_state_dict,
)

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
        (b"\x80\x02X\x01\x00\x00\x00a)R.", "not a function"),  # a call of a text
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
        (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "nested too deeply or too many"),  # a dict in itself
        (nested(200), "nested too deeply or too many"),
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
    refused(write_archive(tmp_path / "x.pth", raw + tree, {}), "nested too deeply or too many")


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
        (ORDERED + b"(](" + instructions("ab" * 5000) + b"q\x01" + b"h\x01" * 30 + b"etR", "not made of pairs"),
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


@pytest.mark.parametrize(
    ("child", "message"), [(b"]K\x01a", "nested too deeply or too many"), (b"}", "holds no tensors")]
)
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
    refused(write_archive(tmp_path / "x.pth", raw + b"0}h\x14K\x01s.", {}), "a dict with a key")


def test_the_size_of_pickles_is_bounded(tmp_path, monkeypatch):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    monkeypatch.setattr(pickle_reader, "INSTRUCTIONS_LIMIT", 20)
    refused(path, "more than 20 instructions")
    monkeypatch.setattr(torch_archive, "BYTES_LIMIT", 20)
    refused(path, "larger than 20 bytes")
