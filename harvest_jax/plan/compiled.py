"""The real training step, compiled for devices that need not be there, and what the compiler and its program say."""

import dataclasses
import re
from typing import Any

from harvest_jax.errors import ConfigError
from harvest_jax.plan.collectives import Collective, collectives
from harvest_jax.plan.cost import Cost, program_cost
from harvest_jax.plan.gpu import COMPILER_OPTIONS
from harvest_jax.plan.hlo import parse
from harvest_jax.train.mesh import is_gpu
from harvest_jax.train.program import TrainProgram

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    arguments: int  # state, frozen parameters and batch
    outputs: int
    aliased: int  # outputs that take the place of arguments: the donated state
    temporaries: int
    code: int
    peak: int  # the most at any moment, arguments and outputs included

    def to_dict(self) -> dict[str, int]:
        """For JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a step takes of one device."""

    memory: Memory
    cost: Cost
    collectives: tuple[Collective, ...]
    method: str  # "compiled" or "analytic"


class OutOfMemory(Exception):
    """The compiler found no way to fit the program.

    Attributes:
      used, limit: bytes, 0 where the compiler's message does not say.
    """

    def __init__(self, used: int, limit: int):
        super().__init__(f"{used} bytes of {limit}")
        self.used, self.limit = used, limit


def compile_plan(program: TrainProgram, all_patches: bool = False) -> Plan:
    """Compile a run's step for its devices, virtual or abstract.

    Args:
      program: of `plan.topology.devices`.
      all_patches: the last stage, in which nothing is dropped.

    Raises:
      OutOfMemory: it does not fit (a TPU's compiler ends there; the others do not).
    """
    try:
        lowered = program.jitted(all_patches).lower(program.state, program.frozen, program.batch(all_patches))
        on_gpu = is_gpu(program.mesh.devices.flat[0])
        compiled = lowered.compile(compiler_options=COMPILER_OPTIONS if on_gpu else None)
    except RuntimeError as error:  # JAX's own among them; without cuDNN a plain one
        short = " ".join(str(error).split())[:300]
        raise out_of_memory(str(error)) or ConfigError(f"the compiler refuses this step: {short}") from error
    module = parse(compiled.as_text())
    return Plan(_memory(compiled), program_cost(module), collectives(module, program.mesh.size), "compiled")


def out_of_memory(message: str) -> OutOfMemory | None:
    """The compiler's complaint that memory is short, None if it complains of something else.

    Read are "Used 18.50G of 15.75G hbm" and "memory required for HLO temporaries (18.50G) exceeds available HBM
    (15.75G)", in which arguments are counted too.
    """
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    size = r"\(?([\d.]+)([KMGT]?)\)?"
    found = re.search(rf"(?:Used|temporaries) {size} (?:of|exceeds available HBM) {size}", message)
    if found is None:
        return OutOfMemory(0, 0)
    return OutOfMemory(*(int(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3)))


def _memory(compiled: Any) -> Memory:
    """The compiler's own account. Its peak is what a TPU's compiler holds against the chip's memory.

    The peak is less than the sum where temporary arrays are not alive at the same time; where there is none, the sum of
    all is taken.
    """
    stats = compiled.memory_analysis()
    arguments, outputs = stats.argument_size_in_bytes, stats.output_size_in_bytes
    aliased, temporaries = stats.alias_size_in_bytes, stats.temp_size_in_bytes
    code = stats.generated_code_size_in_bytes
    peak = getattr(stats, "peak_memory_in_bytes", 0) or arguments + outputs - aliased + temporaries
    return Memory(arguments, outputs, aliased, temporaries, code, peak + code)
