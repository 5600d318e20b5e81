"""Zip archives: compressed, large, damaged, and malicious ones."""

import struct
import zipfile

import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.weights.files import torch_archive, zip_members
from harvest_jax.weights.files.torch_archive import open_archive
from tests.helpers.checkpoint_files import FILES
from tests.helpers.torch_files import (
    Name,
    Reference,
    Storages,
    add_member,
    pickled,
    refused,
    view,
    write_archive,
    write_state_dict,
)


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


def test_a_truncated_archive(tmp_path):
    raw = (FILES / "clip_torch1.7.pt").read_bytes()
    for size in (len(raw) - 1, len(raw) - 30, len(raw) // 2, 200, 20, 4):
        (tmp_path / "x.pt").write_bytes(raw[:size])
        refused(tmp_path / "x.pt", "incomplete or damaged")
    (tmp_path / "x.pt").write_bytes(raw[1000:])  # the beginning is missing
    refused(tmp_path / "x.pt", "does not begin")


def test_a_changed_byte_is_found(tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.arange(500, dtype=np.float32), "b": np.ones(5, np.float32)})
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.float32(250).tobytes() + np.float32(251).tobytes())] ^= 1
    path.write_bytes(raw)
    tensors = open_archive(path)
    np.testing.assert_array_equal(tensors.read("b"), np.ones(5))
    with pytest.raises(DataError, match=r"archive/data/0 does not match its checksum"):
        tensors.read("a")


@pytest.mark.parametrize(
    "name", ["../evil", "archive/../../evil", "/etc/evil", "archive/..", "..\\evil", "C:\\evil", "c:/evil", "\\evil"]
)
def test_names_that_lead_out_of_the_archive(name, tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    add_member(path, name)
    refused(path, "leads out of the archive")


def test_names_twice(tmp_path):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    add_member(path, "archive/data/0")
    refused(path, "is there twice")


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
    refused(path, "does not decompress to 40 bytes|does not match its checksum")


def directory_entry(raw, name):
    """Where the table of contents has a member."""
    at = raw.index(b"PK\x01\x02")
    while raw[at + 46 : at + 46 + len(name)] != name:
        at = raw.index(b"PK\x01\x02", at + 4)
    return at


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (20, 1 << 30, "has two sizes"),  # compressed size
        (24, 1 << 30, "has two sizes"),
        (42, 1 << 30, "ends after the end"),  # place of the member
        (42, 3, "is not where the table of contents says"),
        (42, 0, "has another name"),
        (10, 12, "compressed by an unknown method"),  # bzip2
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
    refused(path, "ends after the end")


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
    refused(path, "its members overlap")


def test_the_table_of_contents_is_bounded(tmp_path, monkeypatch):
    path = write_state_dict(tmp_path / "x.pth", {"a": np.ones(3, np.float32)})
    monkeypatch.setattr(zip_members, "DIRECTORY_LIMIT", 100)
    refused(path, "larger than 100 bytes")
