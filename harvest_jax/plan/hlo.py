"""The text of a compiled XLA program (HLO) as instructions, with the number of executions of each.

XLA's own cost analysis counts the body of a loop once, whatever its trip count; the layers of a tower (on CPUs) and the
parts of a batch are loops. So the text is parsed: computations, their instructions, calls, and trip counts of loops.
"""

import dataclasses
import functools
import math
import re

# Bits of one element; other types (tokens, opaque handles) count as 0.
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64}
BITS |= {"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
BITS |= {"f8e4m3fn": 8, "f8e5m2": 8, "f8e4m3": 8, "f8e3m4": 8, "f8e4m3b11fnuz": 8, "f8e4m3fnuz": 8, "f8e5m2fnuz": 8}
BITS |= {"f8e8m0fnu": 8, "f4e2m1fn": 4}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.<>$-]+) \(.*\{$")
_HEAD = re.compile(r"^\s*(ROOT )?%?([\w.<>$-]+) = ")
_TILE = re.compile(r"T\(([\d,]+)\)")
_OPCODE = re.compile(r"([\w-]+)\(")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.<>$-]+)")
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.<>$-]+)")
_CALLED_LISTS = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Array:
    """One array's type and layout."""

    dtype: str
    shape: tuple[int, ...]
    layout: str = ""  # "{1,0:T(8,128)(2,1)S(1)}": axes from the fastest on, tiles, memory space

    @property
    def on_chip(self) -> bool:
        """Whether the compiler placed it in a TPU's on-chip vector memory (memory space 1)."""
        return "S(1)" in self.layout

    @property
    def bytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * BITS.get(self.dtype, 0) // 8

    @functools.cached_property
    def stored(self) -> int:
        """Bytes in memory: on a TPU the fastest axes are padded to whole tiles."""
        tile = _TILE.search(self.layout)
        order = [int(axis) for axis in self.layout[1:].split(":")[0].rstrip("}").split(",") if axis]
        if tile is None or len(order) != len(self.shape):
            return self.bytes
        sizes = [self.shape[axis] for axis in order]  # the fastest first
        for place, side in enumerate(reversed([int(side) for side in tile[1].split(",")])):
            if place < len(sizes):
                sizes[place] = -(-sizes[place] // side) * side
        return math.prod(sizes) * BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: name = type opcode(operands), attributes."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # of the result: one, or those of a tuple in order
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @functools.cached_property
    def op_name(self) -> str:
        """The path of JAX functions that it comes from, or ""."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def bytes(self) -> int:
        """Bytes of the result in memory."""
        return sum(array.stored for array in self.arrays)


@dataclasses.dataclass(frozen=True)
class Computation:
    """One computation (function) of the program."""

    name: str
    entry: bool
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction whose result it returns."""
        return next(instruction for instruction in self.instructions.values() if instruction.root)

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters in the order of their numbers."""
        found = [(int(i.operands[0]), i.name) for i in self.instructions.values() if i.opcode == "parameter"]
        return tuple(name for _, name in sorted(found))

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each instruction's result."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                if operand in found:
                    found[operand].append(instruction)
        return found


@dataclasses.dataclass(frozen=True)
class HloModule:
    """A program."""

    computations: dict[str, Computation]
    times: dict[str, int]  # executions of each computation; 0 for reducers and for what is never called
    fused: frozenset[str]  # computations inside fusions: their intermediate results are not in memory
    unknown_loops: tuple[str, ...]  # loops whose trip count could not be read; counted once

    def running(self) -> list[tuple[Computation, Instruction, int]]:
        """(computation, instruction, number of executions) of every instruction that runs."""
        return [
            (computation, instruction, self.times[name])
            for name, computation in self.computations.items()
            if self.times[name]
            for instruction in computation.instructions.values()
        ]


def parse_module(text: str) -> HloModule:
    """The text of a compiled module (`jax.stages.Compiled.as_text()`).

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    current: Computation | None = None
    for line in text.splitlines():
        if current is None:
            head = _COMPUTATION.match(line)
            if head:
                current = Computation(head[2], bool(head[1]), {})
        elif line.startswith("}"):
            computations[current.name] = current
            current = None
        else:
            instruction = parse_instruction(line)
            if instruction is not None:
                current.instructions[instruction.name] = instruction
    return _count(computations)


def parse_instruction(line: str) -> Instruction | None:
    """One line of a computation; None if the line is something else."""
    head = _HEAD.match(line)
    if head is None:
        return None
    start = head.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    arrays = tuple(_array(*found) for found in _ARRAY.findall(line[start:end]))
    call = _OPCODE.search(line, end)
    if call is None:
        return None
    close = _closing(line, call.end() - 1)
    inside = line[call.end() : close]
    operands = (inside,) if call[1] in ("parameter", "constant") else tuple(_NAME.findall(inside))
    return Instruction(head[2], call[1], arrays, operands, line[close + 1 :], bool(head[1]))


def _closing(line: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[index], 0)
        if depth == 0:
            return index
    return len(line) - 1


def _array(dtype: str, dims: str, layout: str) -> Array:
    shape = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
    return Array(dtype, shape, layout)


def _count(computations: dict[str, Computation]) -> HloModule:
    """Count executions, callers first: XLA prints a called computation before its caller."""
    times = dict.fromkeys(computations, 0)
    fused: set[str] = set()
    unknown: list[str] = []
    entries = [name for name, computation in computations.items() if computation.entry]
    if not entries:
        raise ValueError("no entry computation in the program's text")
    times[entries[0]] = 1
    for name in reversed(computations):
        if not times[name]:
            continue
        for instruction in computations[name].instructions.values():
            trips = 1
            if instruction.opcode == "while":
                known = trip_count(instruction, computations[name], computations)
                trips = 1 if known is None else known
                unknown += [instruction.name] if known is None else []
            for called in called_computations(instruction):
                if called in times:
                    times[called] += times[name] * trips
                    if instruction.opcode == "fusion" or name in fused:
                        fused.add(called)
    return HloModule(computations, times, frozenset(fused), tuple(unknown))


def called_computations(instruction: Instruction) -> list[str]:
    """Computations that this instruction runs, without reducers (of reduce, scatter, all-reduce).

    An asynchronous operation names its computation a second time where it ends; that does not count.
    """
    if instruction.opcode.endswith(("-done", "-update")):
        return []
    found = [name for key, name in _CALLED.findall(instruction.attributes) if key != "to_apply"]
    if instruction.opcode == "call":
        found += [name for key, name in _CALLED.findall(instruction.attributes) if key == "to_apply"]
    for names in _CALLED_LISTS.findall(instruction.attributes):
        found += [name.strip().lstrip("%") for name in names.split(",") if name.strip()]
    return list(dict.fromkeys(found))


def trip_count(loop: Instruction, caller: Computation, computations: dict[str, Computation]) -> int | None:
    """The trip count of a while loop; None if it is not known.

    Some backends keep XLA's note of it. Otherwise it is read from the condition: a counter of the loop's tuple below a
    constant, as `jax.lax.scan` and `jax.lax.map` make it (from 0, in steps of 1).
    """
    known = _KNOWN_TRIPS.search(loop.attributes)
    if known:
        return int(known[1])
    condition = re.search(r"\bcondition=%?([\w.<>$-]+)", loop.attributes)
    if condition is None or condition[1] not in computations:
        return None
    test = computations[condition[1]]
    compare = test.root
    while compare.opcode in ("fusion", "copy", "bitcast"):  # a CPU fuses the comparison
        if compare.opcode == "fusion":
            inner = computations.get(called_computations(compare)[0])
            if inner is None:
                return None
            constants = [_constant(test.instructions.get(name)) for name in compare.operands]
            constants += [_constant(instruction) for instruction in inner.instructions.values()]
            found = [value for value in constants if value is not None]
            return found[0] if len(found) == 1 and inner.root.opcode == "compare" else None
        compare = test.instructions[compare.operands[0]]
    if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
        return None
    return _constant(test.instructions.get(compare.operands[1]))


def _constant(instruction: Instruction | None) -> int | None:
    """The value of an integer constant, None for anything else."""
    if instruction is None or instruction.opcode != "constant":
        return None
    value = re.fullmatch(r"-?\d+", instruction.operands[0])
    return int(value[0]) if value else None
