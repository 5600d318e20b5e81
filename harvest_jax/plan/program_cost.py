"""Arithmetic and memory traffic of a compiled program, loops counted as often as they run."""

import dataclasses
import functools
import math
import re

import numpy as np

from harvest_jax.plan.collectives import KINDS
from harvest_jax.plan.hlo import Array, Computation, HloModule, Instruction, called_computations

# Instructions that move no memory themselves: views, and operations whose computations are counted instead.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all"}
_FREE |= {"add-dependency", "optimization-barrier", "partition-id", "replica-id", "opt-barrier", "domain"}
_LIBRARY = re.compile(r'custom_call_target="__(cublas)\$|custom_call_target="__cudnn\$fmha(\w*)"')
_FREE_TARGETS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")  # custom calls for layout on TPUs
# bf16 products that a float32 product of this precision is made of on a TPU (XLA's 6-pass and 3-pass algorithms)
_PASSES = {"highest": 6, "high": 3}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One instruction that the device executes as a unit; the figures are of one execution."""

    source: str  # the path of JAX functions it comes from
    times: int  # executions a step
    flops: float  # of matrix products; a multiply-add is two
    bf16_flops: float  # the same, with a float32 product at higher precision counted as its bf16 products
    bytes: float  # from and to memory
    meanwhile: bool = False  # runs at the same time as others: a collective or an asynchronous copy


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """One execution of the program on one device: the sums over its kernels."""

    flops: float
    bf16_flops: float
    bytes: float
    kernels: tuple[Kernel, ...] = ()  # empty: not known
    unknown_loops: tuple[str, ...] = ()  # counted once, because their trip count could not be read


def program_cost(module: HloModule) -> ProgramCost:
    """The cost of all instructions that run. Of elementwise instructions only the memory traffic counts."""
    found = []
    for computation, instruction, times in module.running():
        if computation.name in module.fused:
            continue
        flops, weighted = _arithmetic(instruction, computation, module)
        moved = moved_bytes(instruction, computation, module)
        if flops or moved:
            meanwhile = instruction.opcode.endswith("-start") or instruction.opcode in KINDS
            found.append(Kernel(instruction.op_name or instruction.opcode, times, flops, weighted, moved, meanwhile))
    total = {name: sum(one.times * getattr(one, name) for one in found) for name in ("flops", "bf16_flops", "bytes")}
    return ProgramCost(**total, kernels=tuple(found), unknown_loops=module.unknown_loops)


def _arithmetic(instruction: Instruction, computation: Computation, module: HloModule) -> tuple[float, float]:
    """(FLOPs, FLOPs as bf16 products) of an instruction; of a fusion, of the computation inside."""
    if instruction.opcode in ("dot", "convolution"):
        flops = product_flops(instruction, computation)
        return flops, flops * _passes(instruction, computation)
    if instruction.opcode == "custom-call":
        flops = library_flops(instruction, computation)
        return flops, flops
    if instruction.opcode != "fusion":
        return 0.0, 0.0
    inner = module.computations[called_computations(instruction)[0]]
    parts = [_arithmetic(one, inner, module) for one in inner.instructions.values()]
    return sum(flops for flops, _ in parts), sum(weighted for _, weighted in parts)


def library_flops(instruction: Instruction, computation: Computation) -> float:
    """FLOPs of a call of cuBLAS or cuDNN's attention, whose backward pass recomputes the scores; 0 for other calls."""
    found = _LIBRARY.search(instruction.attributes)
    if found is None:
        return 0.0
    left, right = (computation.instructions[name].arrays[0].shape for name in instruction.operands[:2])
    if found[1] == "cublas":
        axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        contracted = [left[int(axis)] for axis in re.findall(r"\d+", axes[1])] if axes else []
        return 2.0 * math.prod(instruction.arrays[0].shape) * math.prod(contracted)
    batch, queries, heads, width = left
    products = 5 if found[2].endswith("Backward") else 2
    return products * 2.0 * batch * heads * queries * right[1] * width


def product_flops(instruction: Instruction, computation: Computation) -> float:
    """FLOPs of a dot or a convolution (compilers for TPUs turn dots into convolutions), without padding."""
    left, right = (computation.instructions[name].arrays[0] for name in instruction.operands[:2])
    result = instruction.arrays[0]
    if instruction.opcode == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        contracted = [left.shape[int(axis)] for axis in axes[1].split(",") if axis] if axes else []
        return 2.0 * math.prod(result.shape) * math.prod(contracted)
    return 2.0 * _convolution_products(left, right, result, instruction.attributes)


def _convolution_products(left: Array, right: Array, result: Array, attributes: str) -> float:
    """Multiplications without those of padding, as XLA's `HloCostAnalysis::GetConvolutionFlops` counts them."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    if labels is None:
        raise ValueError(f"a convolution without dim_labels: {attributes}")
    lhs, rhs, out = labels.groups()
    window = _window(attributes, sum(label.isdigit() for label in lhs))
    valid = 1.0
    for axis, sizes in enumerate(window):
        digit = str(axis)
        extents = left.shape[lhs.index(digit)], right.shape[rhs.index(digit)], result.shape[out.index(digit)]
        valid *= _valid_positions(*extents, *sizes)
    groups = re.search(r"batch_group_count=(\d+)", attributes)
    batch = left.shape[lhs.index("b")] / (int(groups[1]) if groups else 1)
    return valid * batch * right.shape[rhs.index("i")] * right.shape[rhs.index("o")]


def _window(attributes: str, axes: int) -> list[tuple[int, int, int, int]]:
    """(stride, padding before, dilation of the left, dilation of the right) for each axis."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in found[1].split()) if found else {}

    def sizes(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * axes

    pads = [int(pad.split("_")[0]) for pad in sizes("pad", "0_0")]
    numbers = [[int(size) for size in sizes(name, "1")] for name in ("stride", "lhs_dilate", "rhs_dilate")]
    return list(zip(numbers[0], pads, numbers[1], numbers[2], strict=True))


@functools.cache
def _valid_positions(left: int, right: int, result: int, stride: int, pad: int, spread: int, step: int) -> int:
    """Pairs of (output position, kernel position) that read an element of the left side, not padding."""
    at = np.arange(result)[:, None] * stride - pad + np.arange(right)[None, :] * step
    return int(np.count_nonzero((at >= 0) & (at < (left - 1) * spread + 1) & (at % spread == 0)))


def _passes(instruction: Instruction, computation: Computation) -> int:
    """The number of bf16 products for each product of this instruction on a TPU."""
    if any(computation.instructions[name].arrays[0].dtype != "f32" for name in instruction.operands[:2]):
        return 1
    found = re.search(r"operand_precision=\{(\w+)", instruction.attributes)
    return _PASSES.get(found[1], 1) if found else 1


def moved_bytes(instruction: Instruction, computation: Computation, module: HloModule) -> float:
    """Bytes that an instruction reads from memory and writes to it, without arrays in a TPU's on-chip memory.

    Of a sliced array only the slice is read; of an array updated in place only the update is written.
    """
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith(("-done", "-update")):
        return 0.0
    if opcode == "custom-call" and any(f'"{target}"' in instruction.attributes for target in _FREE_TARGETS):
        return 0.0
    known = [computation.instructions[name] for name in instruction.operands if name in computation.instructions]
    if opcode in ("copy-start", "slice-start"):  # (to, from, flag) and ((from), to, flag)
        to = instruction.arrays[0 if opcode == "copy-start" else 1]
        return float(to.stored * ((not to.on_chip) + bool(_off_chip(known[0].arrays))))
    if opcode == "async-start":  # the called computation is counted
        return 0.0
    if opcode == "fusion":
        inner = module.computations[called_computations(instruction)[0]]
        reads = sum(
            min(float(_off_chip(operand.arrays)), _read(inner, name, module))
            for operand, name in zip(known, inner.parameters, strict=False)
            if _off_chip(operand.arrays)
        )
        return float(reads) + _written(inner, instruction)
    reads = sum(_operand_read(instruction, operand.name, operand, module) for operand in known)
    if opcode == "dynamic-update-slice":
        return float(reads + (_off_chip(instruction.arrays) and known[1].bytes))
    if _LIBRARY.search(instruction.attributes):  # without its workspace, which is one of its results
        return float(reads + sum(array.stored for array in instruction.arrays if array.dtype not in ("s8", "u8")))
    return float(reads + _off_chip(instruction.arrays))


def _off_chip(arrays: tuple[Array, ...]) -> int:
    return sum(array.stored for array in arrays if not array.on_chip)


def _operand_read(user: Instruction, name: str, operand: Instruction, module: HloModule) -> float:
    """Bytes of `operand` that `user` reads from memory; 0 if the compiler placed it on the chip."""
    if not _off_chip(operand.arrays):
        return 0.0
    if user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] == name:
        return float(user.bytes)
    if _updated(user, name):
        return 0.0
    return float(operand.bytes)


def _read(inner: Computation, name: str, module: HloModule) -> float:
    """Bytes of parameter `name` that a fused computation reads."""
    value, total = inner.instructions[name], 0.0
    for user in inner.users[name]:
        if user.opcode in ("bitcast", "reshape"):
            total += _read(inner, user.name, module)
        elif user.opcode == "fusion":
            nested = module.computations[called_computations(user)[0]]
            parameters = [p for p, operand in zip(nested.parameters, user.operands, strict=False) if operand == name]
            total += sum(_read(nested, parameter, module) for parameter in parameters)
        elif user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] == name:
            total += user.bytes
        elif not (_updated(user, name) or user.opcode == "tuple" or _link(user)):  # these pass the array on
            return float(value.bytes)
    return total


def _written(inner: Computation, fusion: Instruction) -> float:
    """Bytes that a fusion writes; of an update in place only the update."""
    root = inner.root
    outputs = [inner.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    total = 0.0
    for output, array in zip(outputs, fusion.arrays, strict=False):
        if array.on_chip:
            continue
        while output.opcode == "bitcast" and output.operands[0] in inner.instructions:
            output = inner.instructions[output.operands[0]]
        if output.opcode == "dynamic-update-slice":
            total += inner.instructions[output.operands[1]].bytes
        elif output.opcode != "parameter" and not _link(output):
            total += array.stored
    return total


def _updated(user: Instruction, name: str) -> bool:
    """Whether `user` updates a part of array `name` in place."""
    return user.opcode == "dynamic-update-slice" and user.operands[0] == name


def _link(instruction: Instruction) -> bool:
    """Whether it is one part of a collective that is split over several fusions (`plan.collectives`)."""
    return "chain_id=" in instruction.attributes
