"""The time of a step, estimated from the public figures of a chip."""

import dataclasses
import re
from typing import Any

from harvest_jax.plan.chips import Chip, received_per_second
from harvest_jax.plan.collectives import between_slices
from harvest_jax.plan.program_cost import Kernel
from harvest_jax.plan.resources import StepResources
from harvest_jax.plan.topology import Topology

ONE_BY_ONE = (
    "kernels run one after another, each at the chip's public peak of arithmetic or of memory traffic, whichever takes "
    "longer; the network works at the same time; the input is always ready; a real step takes longer"
)
TOGETHER = (
    "arithmetic, memory traffic and network each at the chip's public peak, all at the same time; the input is always "
    "ready; a real step takes much longer"
)
SHORTEST_MS = 1.0  # a shorter step takes most of its time to start kernels, which no public figure has
SHOWN = 20  # kinds of kernels that a plan lists
_LOOPS = "while/body|closed_call|eval_jaxpr|checkpoint|rematted_computation"
_WRAPPERS = re.compile(rf"jit\(<unnamed function>\)/|(?:{_LOOPS})/")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Milliseconds that each resource is busy in a step."""

    compute_ms: float
    memory_ms: float
    network_ms: float
    between_ms: float  # of the network between TPU slices
    kernels_ms: float  # all kernels one after another; if they are not known, the longer of compute and memory
    clips_per_s: float
    assumes: str = TOGETHER

    @property
    def step_ms(self) -> float:
        """Time of the kernels, or of a network if that is longer."""
        return max(self.kernels_ms, self.network_ms, self.between_ms)

    @property
    def bound_by(self) -> str:
        """The resource that limits the step: "network", "network between slices", "compute" or "memory"."""
        if self.step_ms > self.kernels_ms:
            return "network" if self.network_ms == self.step_ms else "network between slices"
        return "compute" if self.compute_ms >= self.memory_ms else "memory"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        figures = {name: round(value, 4) for name, value in vars(self).items() if isinstance(value, float)}
        return {"step_ms": round(self.step_ms, 4), "bound_by": self.bound_by, **figures, "assumes": self.assumes}


def estimate(step: StepResources, topology: Topology, batch_size: int, slower: float = 1.0) -> Estimate | None:
    """The estimated time of a step; None for a CPU, of which there are no figures here.

    Args:
      step: what it takes of one device.
      topology: the devices.
      batch_size: clips on all devices together.
      slower: measured time over estimated time of a run on such a chip; all times are multiplied by it.
    """
    chip = topology.chip
    if chip is None:
        return None
    cost = step.cost
    slow = between_slices(step.collectives)
    received = sum(one.count * one.received for one in step.collectives if not one.between_slices)
    whole = Kernel("", 1, cost.flops, cost.bf16_flops, cost.bytes)
    compute, memory = _seconds(whole, chip)
    waited = (one for one in cost.kernels if not one.meanwhile)
    kernels = sum(one.times * max(_seconds(one, chip)) for one in waited) or max(compute, memory)
    network = received / received_per_second(chip, topology.shape)
    between = sum(one.count * one.received for one in slow) / chip.between if slow else 0.0
    seconds = (compute, memory, network, between, kernels)
    compute_ms, memory_ms, network_ms, between_ms, kernels_ms = (1e3 * slower * one for one in seconds)
    clips_per_s = 1e3 * batch_size / max(kernels_ms, network_ms, between_ms)
    assumes = ONE_BY_ONE if cost.kernels else TOGETHER
    return Estimate(compute_ms, memory_ms, network_ms, between_ms, kernels_ms, clips_per_s, assumes)


def longest_kernels(step: StepResources, topology: Topology, slower: float = 1.0) -> list[dict[str, Any]]:
    """The kernels that take longest, those of the same origin (such as all layers) together."""
    chip = topology.chip
    if chip is None:
        return []
    groups: dict[str, dict[str, Any]] = {}
    for one in step.cost.kernels:
        if one.meanwhile:
            continue
        name = _WRAPPERS.sub("", one.source)
        group = groups.setdefault(name, {"from": name, "count": 0, "ms": 0.0, "compute_ms": 0.0, "memory_ms": 0.0})
        compute, memory = _seconds(one, chip)
        group["count"] += one.times
        for key, seconds in (("ms", max(compute, memory)), ("compute_ms", compute), ("memory_ms", memory)):
            group[key] += 1e3 * slower * one.times * seconds
    longest = sorted(groups.values(), key=lambda group: -group["ms"])[:SHOWN]
    return [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in one.items()} for one in longest
    ]


def _seconds(kernel: Kernel, chip: Chip) -> tuple[float, float]:
    """Seconds of (arithmetic, memory traffic) of one execution."""
    flops = kernel.bf16_flops if chip.maker == "tpu" else kernel.flops
    return flops / chip.flops, kernel.bytes / chip.bandwidth
