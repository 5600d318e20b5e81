"""The collectives of a compiled program: what devices send each other in a step."""

import dataclasses
import math
import re
from typing import Any

from harvest_jax.plan.hlo import Array, Computation, HloModule, Instruction

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
SHOWN = 100  # characters of an origin; the origin of a merged collective names all that were merged
_EXPLICIT = re.compile(r"replica_groups=\{\{([\d, ]+)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[")
_SENT = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{('[^}]*)\}")  # device_ids=(...) may stand between


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction; sizes are of one execution and one device."""

    kind: str
    count: int  # executions a step
    group: int  # devices of a group
    arrays: tuple[Array, ...]  # each whole: what is gathered, what is reduced
    source: str  # the path of JAX functions it comes from
    between_slices: bool = False  # over the network between TPU slices; `group` is the number of slices

    @property
    def bytes(self) -> int:
        """Bytes of the whole arrays: the result of an all-gather, the operand of an all-reduce."""
        return sum(array.bytes for array in self.arrays)

    @property
    def received(self) -> float:
        """Bytes that each device receives with ring algorithms, which receive the least."""
        if self.kind in ("collective-permute", "collective-broadcast", "one-to-one"):
            return float(self.bytes)
        once = self.bytes * (self.group - 1) / self.group
        return 2 * once if self.kind == "all-reduce" else once

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        largest = max(self.arrays, key=lambda array: array.bytes)
        return {
            "kind": self.kind,
            "count": self.count,
            "bytes": self.bytes,
            "group": self.group,
            "between_slices": self.between_slices,
            "arrays": len(self.arrays),
            "largest": f"{largest.dtype}[{','.join(map(str, largest.shape))}]",
            "from": self.source.removeprefix("jit(<unnamed function>)/")[:SHOWN],
        }


def collectives(module: HloModule, devices: int, slices: int = 1) -> tuple[Collective, ...]:
    """All collectives of a program, with the number of executions; the largest total first.

    Between slices a TPU program has no collectives: each chip sends its part to the host, whose runtime exchanges it
    with the hosts of the other slices. Such a part counts as a collective of the slices.

    A TPU program may split one collective over several fusions. They are marked as a chain and have one channel; here
    they are one collective, executed as often as the fusion that runs least often.
    """
    found: dict[Any, Collective] = {}
    for computation, instruction, times in module.running():
        kind = instruction.opcode.removesuffix("-start")
        sent = _SENT.search(instruction.attributes) if kind == "send" else None
        if sent:
            kind = sent[1].lower().replace("_", "-")
            array = instruction.arrays[0]
            if kind == "all-gather":
                array = dataclasses.replace(array, shape=(slices, *array.shape))
            source = _origin(instruction, computation)
            one = Collective(kind, times, slices, (array,), source, between_slices=True)
            found[computation.name, instruction.name] = one
            continue
        if kind not in KINDS:
            continue
        group = group_size(instruction.attributes, devices)
        arrays = [array for name in instruction.operands for array in computation.instructions[name].arrays]
        if kind == "all-gather":
            arrays = [_gathered(array, group, instruction.attributes) for array in arrays]
        if kind == "all-reduce" and computation.name.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"  # on TPUs an all-reduce fused with a slice
        one = Collective(kind, times, group, tuple(arrays), _source(instruction, computation, module))
        chained = "chain_id=" in instruction.attributes and re.search(r"channel_id=(\d+)", instruction.attributes)
        key = (kind, chained[1]) if chained else (computation.name, instruction.name)
        if key not in found or one.count < found[key].count:
            found[key] = one
    running = [one for one in found.values() if one.group > 1 and one.bytes]
    return tuple(sorted(running, key=lambda one: (-one.count * one.received, one.kind, one.source)))


def by_kind(found: tuple[Collective, ...]) -> dict[str, dict[str, int]]:
    """Sums over the collectives of a kind: instructions, executions, bytes of whole arrays, bytes received."""
    sums: dict[str, dict[str, int]] = {}
    for one in found:
        entry = sums.setdefault(one.kind, {"instructions": 0, "count": 0, "bytes": 0, "received_bytes": 0})
        entry["instructions"] += 1
        entry["count"] += one.count
        entry["bytes"] += one.count * one.bytes
        entry["received_bytes"] += round(one.count * one.received)
    return sums


def between_slices(found: tuple[Collective, ...]) -> tuple[Collective, ...]:
    """Those over the network between slices."""
    return tuple(one for one in found if one.between_slices)


def group_size(attributes: str, devices: int) -> int:
    """Devices in one group, from the three ways in which XLA writes groups; all of them where it writes none."""
    explicit = _EXPLICIT.search(attributes)
    if explicit:
        return len(explicit[1].split(","))
    iota = _IOTA.search(attributes)
    if iota:
        return int(iota[2])
    mesh = _MESH.search(attributes)
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        # an axis may be named in part, as 'axis':(before)size
        parts = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[name] for name, _, part in parts)
    return devices


def _gathered(array: Array, group: int, attributes: str) -> Array:
    """A device's part to the whole."""
    found = re.search(r"dimensions=\{(\d+)", attributes)
    axis = int(found[1]) if found else 0
    shape = tuple(size * group if index == axis else size for index, size in enumerate(array.shape))
    return dataclasses.replace(array, shape=shape)


def _origin(instruction: Instruction, computation: Computation) -> str:
    """The origin of what is sent: the first that is known on the way back through the first operands."""
    while not instruction.op_name and instruction.operands and instruction.operands[0] in computation.instructions:
        instruction = computation.instructions[instruction.operands[0]]
    return instruction.op_name


def _source(instruction: Instruction, computation: Computation, module: HloModule) -> str:
    """Its own origin, else that of the fusion that holds it."""
    if instruction.op_name:
        return instruction.op_name
    for other in module.computations.values():
        for caller in other.instructions.values():
            if f"calls=%{computation.name}," in f"{caller.attributes}," and caller.op_name:
                return caller.op_name
    return ""
