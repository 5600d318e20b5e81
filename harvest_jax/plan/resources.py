"""What a training step takes of one device: memory, arithmetic, memory traffic and network traffic."""

import dataclasses

from harvest_jax.plan.collectives import Collective
from harvest_jax.plan.program_cost import ProgramCost


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device."""

    arguments: int  # state, frozen parameters and batch
    outputs: int
    aliased: int  # outputs that are stored in the memory of arguments: the donated state
    temporaries: int
    code: int
    peak: int  # the most at any moment, arguments and outputs included

    def to_dict(self) -> dict[str, int]:
        """For JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class StepResources:
    """One step on one device."""

    memory: DeviceMemory
    cost: ProgramCost
    collectives: tuple[Collective, ...]
