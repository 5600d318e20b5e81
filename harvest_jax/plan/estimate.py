"""The time of a step, estimated from a chip's public figures."""

import dataclasses
from typing import Any

from harvest_jax.plan.chips import received_per_second
from harvest_jax.plan.compiled import Plan
from harvest_jax.plan.topology import Topology

ASSUMES = (
    "arithmetic, memory traffic and network each at the chip's public peak and wholly at the same time: "
    "a real step takes longer; the input is always there"
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Milliseconds that each resource is busy in a step; the step takes at least the longest of them."""

    compute_ms: float
    memory_ms: float
    network_ms: float
    clips_per_s: float

    @property
    def step_ms(self) -> float:
        """Of the slowest resource."""
        return max(self.compute_ms, self.memory_ms, self.network_ms)

    @property
    def bound_by(self) -> str:
        """Which one that is."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, f"{name}_ms"))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        figures = {name: round(value, 4) for name, value in dataclasses.asdict(self).items()}
        return {"step_ms": round(self.step_ms, 4), "bound_by": self.bound_by, **figures, "assumes": ASSUMES}


def estimate(plan: Plan, topology: Topology, batch_size: int, slower: float = 1.0) -> Estimate | None:
    """None for a CPU, of which no figures are kept.

    Args:
      plan: a step.
      topology: where.
      batch_size: clips on all devices together.
      slower: measured time over estimated time of a run on such a chip; all times are multiplied by it.
    """
    chip = topology.chip
    if chip is None:
        return None
    flops = plan.cost.bf16_flops if chip.maker == "tpu" else plan.cost.flops
    received = sum(one.count * one.received for one in plan.collectives)
    times = (
        1e3 * slower * flops / chip.flops,
        1e3 * slower * plan.cost.bytes / chip.bandwidth,
        1e3 * slower * received / received_per_second(chip, topology.shape),
    )
    return Estimate(*times, clips_per_s=1e3 * batch_size / max(times))
