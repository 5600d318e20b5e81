"""Shards that several test modules read."""

import pytest

from harvest_jax.input.tokenizer import Tokenizer
from tests.helpers.training_clips import SIZE, make_record, write


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write(folder, "train", [make_record(i) for i in range(10)])
    write(folder, "pair", [make_record(i, captions=("left", "right", "up")) for i in range(2)])
    write(folder, "exact", [make_record(i, height=SIZE, width=SIZE) for i in range(5)])
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer()
