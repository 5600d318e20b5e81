"""Safetensors files compared tensor by tensor."""

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open


def open_folder(folder: Path) -> dict[str, tuple[Path, str]]:
    """Which file of a folder holds which tensor."""
    places = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            places |= {name: (path, name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return places


def read(place: tuple[Path, str]) -> np.ndarray:
    """One tensor."""
    path, name = place
    with safe_open(path, framework="np") as file:
        return file.get_tensor(name)


def equal_tensors(found: Path, wanted: Path) -> dict[str, torch.Tensor]:
    """The tensors of the first folder, after finding names, types and bits equal to the second's."""
    ours, theirs = open_folder(found), open_folder(wanted)
    assert set(ours) == set(theirs)
    read_back = {}
    for name, place in ours.items():
        array, expected = read(place), read(theirs[name])
        assert array.dtype == expected.dtype, name
        assert array.tobytes() == expected.tobytes(), name
        assert array.shape == expected.shape, name
        read_back[name] = torch.from_numpy(array)
    return read_back
