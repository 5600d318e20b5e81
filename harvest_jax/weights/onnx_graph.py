"""A traced function of JAX as an ONNX graph, for the operations that the towers consist of.

One symbolic dimension is allowed: the rows of a batch. Parameters are constants of the graph. What depends on constants
alone is computed here, so that tables of positions and masks become constants too; loops over layers are unrolled.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import Literal
from onnx import helper, numpy_helper

from harvest_jax.version import __version__

OPSET, IR_VERSION = 18, 8  # of files; onnxruntime 1.14 is the first that reads them
QUANTISED = 4096  # numbers from which on a matrix is stored in int8

Shape = tuple[Any, ...]  # whole numbers, and symbolic dimensions of JAX

INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
SAME = ("name", "copy", "copy_p", "stop_gradient", "optimization_barrier")
ELEMENTWISE = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow", "neg": "Neg",
    "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "logistic": "Sigmoid", "erf": "Erf",
    "sin": "Sin", "cos": "Cos", "sign": "Sign", "lt": "Less", "le": "LessOrEqual", "gt": "Greater",
    "ge": "GreaterOrEqual", "eq": "Equal", "and": "And", "or": "Or", "not": "Not",
}  # fmt: skip
COMPOSED = ("rsqrt", "square", "erfc", "integer_pow", "ne", "select_n", "convert_element_type")
REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"}


@dataclasses.dataclass(frozen=True)
class Value:
    """A constant, or a tensor of the graph by name.

    An axis of `shape` may have the length 1 where the traced value is longer: it is repeated when that is needed.
    """

    shape: Shape
    const: np.ndarray | None = None
    name: str = ""


def onnx_model(
    function: Callable[..., jax.Array], params: Any, argument: jax.ShapeDtypeStruct, names: tuple[str, str], int8: bool
) -> onnx.ModelProto:
    """`function(params, argument)` as a model with one input and one output.

    Args:
      function: gives one array, whose first axis is the batch.
      params: nested dict of float32 arrays, which become constants.
      argument: shape and dtype of the input; its first dimension is symbolic, the others are numbers.
      names: of input and output.
      int8: matrices are stored as int8 with a float32 scale for each column (of a table of vectors: each row).

    Raises:
      NotImplementedError: the function uses an operation, or a form of one, that is not translated.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    traced = jax.jit(function).trace(shapes, argument).jaxpr
    graph = _Graph(names[0], argument.shape[0], int8)
    arguments = [_constant(leaf) for leaf in jax.tree.leaves(params)]
    arguments.append(Value(tuple(argument.shape), name=names[0]))
    [found] = graph.run(traced.jaxpr, [_constant(const) for const in traced.consts], arguments)
    result: Any = traced.out_avals[0]
    ends: tuple[Any, Any] = argument, result
    graph.node("Identity", [graph.whole(found, result.shape)], names[1])
    described = [
        helper.make_tensor_value_info(name, _dtype(one.dtype), ["batch", *map(int, one.shape[1:])])
        for name, one in zip(names, ends, strict=True)
    ]
    body = helper.make_graph(graph.nodes, names[1], described[:1], described[1:], list(graph.initializers.values()))
    return helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="harvest_jax",
        producer_version=__version__,
    )


class _Graph:
    """Nodes and constants while equations are translated."""

    def __init__(self, argument: str, batch: Any, int8: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._argument, self._batch, self._int8 = argument, batch, int8
        self._numbers = itertools.count()
        self._small: dict[tuple[Any, ...], str] = {}

    def run(self, jaxpr: Any, consts: Sequence[Value], arguments: Sequence[Value]) -> list[Value]:
        """The values of a jaxpr's outputs; equations that no output needs are left out."""
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))
        needed = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
        kept = []
        for equation in reversed(jaxpr.eqns):
            if needed.intersection(equation.outvars):
                kept.append(equation)
                needed.update(atom for atom in equation.invars if not isinstance(atom, Literal))

        def read(atom: Any) -> Value:
            if not isinstance(atom, Literal):
                return values[atom]
            kind: Any = atom.aval
            return _constant(np.asarray(atom.val, kind.dtype))

        for equation in reversed(kept):
            made = self._equation(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, made, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def node(self, operation: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node; gives the name of its output."""
        name = output or f"v{next(self._numbers)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def whole(self, value: Value, shape: Shape) -> str:
        """The name of the value with no axis left to repeat."""
        name = self._name(value)
        return name if _same(value.shape, shape) else self.node("Expand", [name, self._sizes(shape)])

    def _name(self, value: Value) -> str:
        return value.name if value.const is None else self._stored(value.const)

    def _stored(self, array: np.ndarray, int8_axis: int | None = None) -> str:
        """A constant of the graph; in int8 if it is large and an axis is given, which has a scale for each index."""
        if self._int8 and int8_axis is not None and array.size >= QUANTISED:
            scale = np.abs(array).max(axis=1 - int8_axis) / 127
            scale = np.where(scale == 0, 1, scale).astype(np.float32)
            whole = np.rint(array / np.expand_dims(scale, 1 - int8_axis)).astype(np.int8)
            return self.node("DequantizeLinear", [self._stored(whole), self._stored(scale)], axis=int8_axis)
        small = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 else None
        if small in self._small:
            return self._small[small]
        name = f"c{next(self._numbers)}"
        self.initializers[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        if small is not None:
            self._small[small] = name
        return name

    def _sizes(self, shape: Shape) -> str:
        """A vector with these sizes, for nodes that take one; a symbolic size is a multiple of the batch."""
        if all(isinstance(size, int) for size in shape):
            return self._stored(np.array(shape, np.int64))
        rows = self.node("Shape", [self._argument], start=0, end=1)
        parts = []
        for size in shape:
            if isinstance(size, int):
                parts.append(self._stored(np.array([size], np.int64)))
                continue
            factor = size // self._batch
            if not isinstance(factor, int):
                raise NotImplementedError(f"the size {size} is no multiple of {self._batch}")
            parts.append(rows if factor == 1 else self.node("Mul", [rows, self._stored(np.array([factor], np.int64))]))
        return self.node("Concat", parts, axis=0)

    def _shaped(self, name: str, before: Shape, after: Shape) -> str:
        """A tensor in another shape, of which at most one size is symbolic."""
        if _same(before, after):
            return name
        sizes = [size if isinstance(size, int) else -1 for size in after]
        if sizes.count(-1) > 1:
            raise NotImplementedError(f"the shape {after} has several symbolic sizes")
        return self.node("Reshape", [name, self._stored(np.array(sizes, np.int64))])

    def _equation(self, equation: Any, inputs: list[Value]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        if name in INLINED:
            inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
            return self.run(inner.jaxpr, [_constant(const) for const in inner.consts], inputs)
        if name == "scan":
            return self._scan(params, inputs)
        if name in SAME:
            return inputs
        shapes = [tuple(atom.aval.shape) for atom in equation.invars]
        shape = tuple(equation.outvars[0].aval.shape)
        folded = _folded(equation, inputs, shapes, shape)
        if folded is not None:
            return [folded]
        if name in ELEMENTWISE or name in COMPOSED:
            return [Value(_lengths(inputs, shape), name=self._elementwise(name, params, inputs))]
        if name == "broadcast_in_dim":
            return [self._broadcast(inputs[0], shape, [int(axis) for axis in params["broadcast_dimensions"]])]
        if name == "squeeze":
            left = [size for axis, size in enumerate(inputs[0].shape) if axis not in params["dimensions"]]
            axes = self._stored(np.array(params["dimensions"], np.int64))
            return [Value(tuple(left), name=self.node("Squeeze", [self._name(inputs[0]), axes]))]
        if name == "transpose":
            order = [int(axis) for axis in params["permutation"]]
            turned = self.node("Transpose", [self._name(inputs[0])], perm=order)
            return [Value(tuple(inputs[0].shape[axis] for axis in order), name=turned)]
        if name == "dot_general":
            return [Value(shape, name=self._product(params["dimension_numbers"], inputs, shapes, shape))]
        if name == "gather":
            return [Value(shape, name=self._gather(params, inputs, shapes))]
        parts = [self.whole(value, own) for value, own in zip(inputs, shapes, strict=True)]
        return [Value(shape, name=self._other(name, params, parts, shapes, shape))]

    def _other(self, name: str, params: dict[str, Any], parts: list[str], shapes: list[Shape], shape: Shape) -> str:
        if name == "reshape" and params["dimensions"] is None:
            return self._shaped(parts[0], shapes[0], shape)
        if name == "concatenate":
            return self.node("Concat", parts, axis=int(params["dimension"]))
        if name in REDUCTIONS:
            axes = self._stored(np.array([int(axis) for axis in params["axes"]], np.int64))
            return self.node(REDUCTIONS[name], [parts[0], axes], keepdims=0)
        if name == "argmax" and len(params["axes"]) == 1:
            found = self.node("ArgMax", parts, axis=int(params["axes"][0]), keepdims=0)
            return self.node("Cast", [found], to=_dtype(params["index_dtype"]))
        if name == "slice":
            strides = params["strides"] or (1,) * len(shape)
            cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
            cut = {
                axis: one
                for axis, (one, size) in enumerate(zip(cuts, shapes[0], strict=True))
                if not _same(one, (0, size, 1))
            }
            if cut and all(isinstance(number, int) for one in cut.values() for number in one):
                starts, limits, steps = zip(*cut.values(), strict=True)
                vectors = (np.array(one, np.int64) for one in (starts, limits, tuple(cut), steps))
                return self.node("Slice", [parts[0], *map(self._stored, vectors)])
        raise NotImplementedError(f"{name} with {params} is not translated to ONNX")

    def _elementwise(self, name: str, params: dict[str, Any], inputs: list[Value]) -> str:
        names = [self._name(value) for value in inputs]
        if name in ELEMENTWISE:
            return self.node(ELEMENTWISE[name], names)
        if name == "convert_element_type":
            return self.node("Cast", names, to=_dtype(params["new_dtype"]))
        if name == "rsqrt":
            return self.node("Reciprocal", [self.node("Sqrt", names)])
        if name == "square":
            return self.node("Mul", names * 2)
        if name == "erfc":
            return self.node("Sub", [self._stored(np.array(1, np.float32)), self.node("Erf", names)])
        if name == "integer_pow":
            return self.node("Pow", [*names, self._stored(np.array(params["y"], np.float32))])
        if name == "ne":
            return self.node("Not", [self.node("Equal", names)])
        if len(names) != 3:
            raise NotImplementedError("select_n with more than two cases is not translated to ONNX")
        return self.node("Where", [names[0], names[2], names[1]])  # select_n takes the case of False first

    def _broadcast(self, value: Value, shape: Shape, dimensions: Sequence[int]) -> Value:
        """Axes of length 1 where the value is repeated; it is repeated when that is needed."""
        lengths: list[Any] = [1] * len(shape)
        for own, axis in zip(value.shape, dimensions, strict=True):
            lengths[axis] = own
        if value.const is not None:
            return _constant(value.const.reshape(lengths))
        return Value(tuple(lengths), name=self._shaped(value.name, value.shape, tuple(lengths)))

    def _product(self, numbers: Any, inputs: list[Value], shapes: list[Shape], shape: Shape) -> str:
        """MatMul of [..., M, K] and [..., K, N]: axes of each kind are brought together and joined."""
        (left, right), (left_batch, right_batch) = numbers
        names = []
        for value, own, summed, batch, first in (
            (inputs[0], shapes[0], left, left_batch, True),
            (inputs[1], shapes[1], right, right_batch, False),
        ):
            free = [axis for axis in range(len(own)) if axis not in (*summed, *batch)]
            order = [int(axis) for axis in (*batch, *(free if first else summed), *(summed if first else free))]
            joined = [math.prod(own[axis] for axis in axes) for axes in (free, summed)]
            merged = (*(own[axis] for axis in batch), *(joined if first else joined[::-1]))
            if value.const is not None and _same(value.shape, own):
                array = value.const.transpose(order).reshape(merged)
                names.append(self._stored(array, int8_axis=1 if array.ndim == 2 and not first else None))
                continue
            name = self.whole(value, own)
            if order != sorted(order):
                name = self.node("Transpose", [name], perm=order)
            names.append(self._shaped(name, tuple(own[axis] for axis in order), merged))
            sizes = merged
            if first:
                rows = sizes[:-1]
        if inputs[0].const is not None and _same(inputs[0].shape, shapes[0]):
            raise NotImplementedError("a product whose first factor is a constant is not translated to ONNX")
        columns = math.prod(shapes[1][axis] for axis in range(len(shapes[1])) if axis not in (*right, *right_batch))
        return self._shaped(self.node("MatMul", names), (*rows, columns), shape)

    def _gather(self, params: dict[str, Any], inputs: list[Value], shapes: list[Shape]) -> str:
        """Three forms: rows of a table, one row for each row of the batch, one index of an axis."""
        table, places, numbers = inputs[0], inputs[1], params["dimension_numbers"]
        kept = [size for axis, size in enumerate(shapes[0]) if axis not in numbers.collapsed_slice_dims]
        slices = [size for axis, size in enumerate(params["slice_sizes"]) if axis not in numbers.collapsed_slice_dims]
        axes = numbers.collapsed_slice_dims
        if len(axes) == 1 and numbers.start_index_map == axes and shapes[1][-1] == 1:
            of_each_row = numbers.operand_batching_dims == numbers.start_indices_batching_dims == (0,)
            if of_each_row and axes == (1,) and _same(tuple(kept[1:]), tuple(slices[1:])):
                indices = self.node("Cast", [self.whole(places, shapes[1])], to=_dtype(np.int64))
                return self.node("GatherND", [self.whole(table, shapes[0]), indices], batch_dims=1)
            if not numbers.operand_batching_dims and _same(tuple(kept), tuple(slices)):
                offsets = tuple(numbers.offset_dims)
                last = offsets == tuple(range(len(shapes[1]) - 1, len(shapes[1]) - 1 + len(kept)))
                if (axes == (0,) and last) or len(shapes[1]) == 1:
                    indices = self._shaped(self.whole(places, shapes[1]), shapes[1], shapes[1][:-1])
                    if table.const is not None and len(kept) == 1 and axes == (0,) and _same(table.shape, shapes[0]):
                        rows = self._stored(table.const, int8_axis=0)
                    else:
                        rows = self.whole(table, shapes[0])
                    return self.node("Gather", [rows, indices], axis=int(axes[0]))
        raise NotImplementedError(f"gather with {params} is not translated to ONNX")

    def _scan(self, params: dict[str, Any], inputs: list[Value]) -> list[Value]:
        """A loop over layers whose parameters are constants."""
        fixed, carried = params["num_consts"], params["num_consts"] + params["num_carry"]
        rows = inputs[carried:]
        if params["reverse"] or any(value.const is None for value in rows):
            raise NotImplementedError("scan over anything but constants is not translated to ONNX")
        inner, state = params["jaxpr"], inputs[fixed:carried]
        consts = [_constant(const) for const in inner.consts]
        for layer in range(params["length"]):
            own = [_constant(value.const[layer]) for value in rows if value.const is not None]
            state = self.run(inner.jaxpr, consts, [*inputs[:fixed], *state, *own])
            if len(state) != params["num_carry"]:
                raise NotImplementedError("scan with outputs of each layer is not translated to ONNX")
        return state


def _folded(equation: Any, inputs: list[Value], shapes: list[Shape], shape: Shape) -> Value | None:
    """The result of an operation on constants, as JAX computes it; None if it cannot be computed here."""
    arrays = [value.const for value in inputs if value.const is not None]
    if len(arrays) < len(inputs):
        return None
    name = equation.primitive.name
    whole = all(_same(value.shape, own) for value, own in zip(inputs, shapes, strict=True))
    if name in ELEMENTWISE or name in COMPOSED or name == "rem":  # axes that are repeated may stay so
        arrays = list(np.broadcast_arrays(*arrays))
    elif name == "gather" and not whole and equation.params["dimension_numbers"].collapsed_slice_dims == (0,):
        table, places = arrays
        if len(shapes[0]) == 2:
            return _constant(table[places[..., 0]])
        return None
    elif name == "broadcast_in_dim" or not whole or not all(isinstance(size, int) for size in shape):
        return None
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return _constant(equation.primitive.bind(*arrays, **equation.params))


def _constant(array: Any) -> Value:
    array = np.asarray(array)
    return Value(tuple(array.shape), const=array)


def _lengths(inputs: list[Value], shape: Shape) -> Shape:
    """The shape of an elementwise result: an axis that every operand only repeats stays to be repeated."""
    return tuple(
        1 if all(len(value.shape) < len(shape) or _same((value.shape[axis],), (1,)) for value in inputs) else size
        for axis, size in enumerate(shape)
    )


def _same(one: Shape, other: Shape) -> bool:
    """Whether two shapes are equal; a symbolic size equals no number."""
    return len(one) == len(other) and all(
        isinstance(a, int) == isinstance(b, int) and a == b for a, b in zip(one, other, strict=True)
    )


def _dtype(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
