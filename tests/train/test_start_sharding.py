"""The state at step 0 is sharded as planned, and equals that of a start on one device."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from harvest_jax.config.files import config_file
from harvest_jax.config.run import load
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import harvest_config
from harvest_jax.train.freeze import merge
from harvest_jax.train.initial_state import initial_state
from harvest_jax.train.model_of_run import parameters_at_random
from harvest_jax.train.program import train_program
from harvest_jax.weights.folder import load_model, save_model
from tests.helpers.model_folders import without_digest


def start(init_from, *overrides):
    """(program, state, frozen parameters) of a run on 8 devices, parameters split over all of them."""
    fields = ["mesh.fsdp=8", "train.batch_size=8", f"model.init_from={init_from}", *overrides]
    program = train_program(load(str(config_file("demo.py")), fields))
    return program, *initial_state(program)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


@pytest.fixture(scope="module")
def random_start():
    return start("")


def test_every_array_lies_where_the_program_wants_it(random_start):
    program, state, frozen = random_start
    for found, wanted in zip(
        jax.tree.leaves((state, frozen)), jax.tree.leaves((program.state, program.frozen)), strict=True
    ):
        assert (found.shape, found.dtype, found.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)
    kernel = state.params["video"]["transformer"]["blocks"]["mlp"]["c_fc"]["kernel"]
    assert [shard.data.nbytes * 8 for shard in kernel.addressable_shards] == [kernel.nbytes] * 8


def test_random_numbers_are_those_of_one_device(random_start):
    program, state, frozen = random_start
    whole = flat(jax.jit(lambda: parameters_at_random(program.run, program.model))())
    found = flat(merge(state.params, frozen))
    assert found.keys() == whole.keys()
    for path, leaf in whole.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def test_a_folder_is_read_into_its_parts(random_start):
    _, state, frozen = start(SHIPPED)
    found, (_, folder) = flat(merge(state.params, frozen)), load_model(SHIPPED)
    for path, leaf in flat(folder).items():
        if path != "video/temporal_embedding":
            np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    fresh = flat(random_start[1].params)
    decoder = [path for path in fresh if path.startswith("decoder/")]
    assert len(decoder) > 10
    for path in [*decoder, "mask_embedding"]:  # the folder has none
        np.testing.assert_array_equal(found[path], fresh[path], err_msg=path)
    ramp = fresh["video/temporal_embedding"] + folder["video"]["temporal_embedding"]
    np.testing.assert_array_equal(found["video/temporal_embedding"], ramp)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    _, params = load_model(SHIPPED)
    config = harvest_config("demo", num_frames=1, decoder_layers=0)
    save_model(tmp_path / "model", config, params, {})
    path = without_digest(tmp_path / "model") / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()  # the last number of the last parameter
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model: .* holds numbers that are not finite"):
        start(tmp_path / "model")


def test_a_folder_that_holds_another_model_than_the_program_is_refused():
    """As when all checkpoints of a workdir are damaged, and model.init_from is another model by then."""
    fields = ["train.batch_size=8", f"model.init_from={SHIPPED}", "text.length=8"]
    other = harvest_config("demo", num_frames=8, decoder_layers=2)
    other = other.from_dict(other.to_dict() | {"text": other.to_dict()["text"] | {"context_length": 16}})
    program = train_program(load(str(config_file("demo.py")), fields), config=other)
    with pytest.raises(ConfigError, match="holds another model than this run trains: text/positional_embedding has"):
        initial_state(program)
