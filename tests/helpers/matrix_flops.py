"""FLOPs of the products of matrices in a traced program: exact, before any compiler, at any size in seconds.

XLA's cost analysis counts the body of a loop once, whatever the number of turns; here a scan counts as often as it
turns. What feeds no output is left out, as the compiler leaves it out.
"""

import math
from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def matrix_flops(closed: ClosedJaxpr) -> float:
    """FLOPs (a multiply-add as two) of all `dot_general` that the outputs of a program depend on.

    Args:
      closed: of `jax.make_jaxpr(function)(*arguments)`; ShapeDtypeStructs will do.

    Raises:
      NotImplementedError: a product of matrices hides in a loop whose number of turns is not known before it runs.
    """
    return _count(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0]


def _count(jaxpr: Jaxpr, used_outputs: Sequence[bool]) -> tuple[float, list[bool]]:
    """(FLOPs that the used outputs need, which inputs they need)."""
    used = {var for var, wanted in zip(jaxpr.outvars, used_outputs, strict=True) if wanted and _is_variable(var)}
    total = 0.0
    for equation in reversed(jaxpr.eqns):
        wanted = [var in used for var in equation.outvars]
        if not any(wanted) and not equation.effects:
            continue
        flops, needs = _equation(equation, wanted)
        total += flops
        used |= {var for var, need in zip(equation.invars, needs, strict=True) if need and _is_variable(var)}
    return total, [var in used for var in jaxpr.invars]


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, Literal)


def _equation(equation: Any, wanted: list[bool]) -> tuple[float, list[bool]]:
    name, params, all_inputs = equation.primitive.name, equation.params, [True] * len(equation.invars)
    if name == "dot_general":
        left = equation.invars[0].aval.shape
        (contracted, _), _ = params["dimension_numbers"]
        inner = math.prod(left[axis] for axis in contracted)
        return 2.0 * inner * math.prod(equation.outvars[0].aval.shape), all_inputs
    if name == "scan":
        return _scan(params, wanted)
    inside = [jaxpr for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":  # one branch runs: the dearest
        return max(_count(jaxpr, wanted)[0] for jaxpr in inside), all_inputs
    if name == "while":
        if any(_count(jaxpr, [True] * len(jaxpr.outvars))[0] for jaxpr in inside):
            raise NotImplementedError("a product of matrices in a while loop")
        return 0.0, all_inputs
    if len(inside) == 1 and len(inside[0].outvars) == len(wanted):  # a call: jit, remat, custom derivatives
        flops, needs = _count(inside[0], wanted)
        return flops, needs if len(needs) == len(all_inputs) else all_inputs
    return sum((_count(jaxpr, [True] * len(jaxpr.outvars))[0] for jaxpr in inside), 0.0), all_inputs


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [jaxpr for item in value for jaxpr in _jaxprs(item)] if isinstance(value, tuple | list) else []


def _scan(params: dict[str, Any], wanted: list[bool]) -> tuple[float, list[bool]]:
    """A carried value is needed if it comes out or if the next turn needs it."""
    body = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])
    if "ft_in" in params:  # since JAX 0.12: trees of constants, carried values and what is looped over
        constants, carried, _ = (len(list(tree.vals)) for tree in params["ft_in"].unpack())
    else:
        constants, carried = params["num_consts"], params["num_carry"]
    wanted = list(wanted)
    while True:
        flops, needs = _count(body, wanted)
        grown = [a or b for a, b in zip(wanted[:carried], needs[constants : constants + carried], strict=True)]
        if grown == wanted[:carried]:
            return params["length"] * flops, needs
        wanted[:carried] = grown
