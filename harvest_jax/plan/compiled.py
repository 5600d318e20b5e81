"""The resources of the real training step, compiled for devices that need not be there."""

import re
from typing import Any

from harvest_jax.errors import ConfigError
from harvest_jax.plan.collectives import collectives
from harvest_jax.plan.gpu_target import COMPILER_OPTIONS
from harvest_jax.plan.hlo import parse_module
from harvest_jax.plan.program_cost import program_cost
from harvest_jax.plan.resources import DeviceMemory, StepResources
from harvest_jax.train.hardware import is_gpu
from harvest_jax.train.program import TrainProgram

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class OutOfMemory(Exception):
    """The compiler cannot fit the program into the device's memory.

    Attributes:
      used, limit: bytes, 0 where the compiler's message does not say.
    """

    def __init__(self, used: int, limit: int):
        super().__init__(f"{used} bytes of {limit}")
        self.used, self.limit = used, limit


def compiled_resources(program: TrainProgram, all_patches: bool = False) -> StepResources:
    """Compile a run's step for its devices, virtual or abstract, and read what it takes of one of them.

    Args:
      program: on the devices of `plan.topology.devices`.
      all_patches: the last stage, in which nothing is dropped.

    Raises:
      OutOfMemory: it does not fit (only the compiler for TPUs checks that).
      ConfigError: the compiler refuses it for another reason.
    """
    try:
        lowered = program.jitted(all_patches).lower(program.state, program.frozen, program.batch(all_patches))
        on_gpu = is_gpu(program.mesh.devices.flat[0])
        compiled = lowered.compile(compiler_options=COMPILER_OPTIONS if on_gpu else None)
    except RuntimeError as error:  # JAX's errors are RuntimeErrors; without cuDNN it is a plain one
        short = " ".join(str(error).split())[:300]
        raise out_of_memory(str(error)) or ConfigError(f"the compiler refuses this step: {short}") from error
    module = parse_module(compiled.as_text())
    slices = len({getattr(device, "slice_index", 0) for device in program.mesh.devices.flat})
    return StepResources(_memory(compiled), program_cost(module), collectives(module, program.mesh.size, slices))


def out_of_memory(message: str) -> OutOfMemory | None:
    """The error for a compiler's message about insufficient memory; None for another message.

    Two forms are read: "Used 18.50G of 15.75G hbm" and "memory required for HLO temporaries (18.50G) exceeds available
    HBM (15.75G)". Both count arguments too.
    """
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    size = r"\(?([\d.]+)([KMGT]?)\)?"
    found = re.search(rf"(?:Used|temporaries) {size} (?:of|exceeds available HBM) {size}", message)
    if found is None:
        return OutOfMemory(0, 0)
    return OutOfMemory(*(int(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3)))


def _memory(compiled: Any) -> DeviceMemory:
    """The compiler's own figures. Its peak is what a TPU's compiler compares with the chip's memory.

    The peak is less than the sum where temporary arrays are not live at the same time. Where the compiler gives no
    peak, the sum is taken.
    """
    stats = compiled.memory_analysis()
    arguments, outputs = stats.argument_size_in_bytes, stats.output_size_in_bytes
    aliased, temporaries = stats.alias_size_in_bytes, stats.temp_size_in_bytes
    code = stats.generated_code_size_in_bytes
    peak = getattr(stats, "peak_memory_in_bytes", 0) or arguments + outputs - aliased + temporaries
    return DeviceMemory(arguments, outputs, aliased, temporaries, code, peak + code)
