"""The scores of all rows of an index for a query, and the best of them: exact, with a first look at 8-bit integers.

The integers give each score with an error of at most |left| + |factor * codes| * |what the query's integers leave out|
(the Cauchy-Schwarz inequality), where `left` is stored with each row. So the rows that may be among the best are known
for certain, and only these are read in full.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float32, Int

from harvest_jax.machine import available_cores
from harvest_jax.search.rows import Rows, blocks

_SMALL = 20_000  # rows; of so few all are scored in full
_BLOCK = 512  # rows whose float32 form stays in a core's cache

try:
    import simsimd
except ImportError:  # extra `search`
    simsimd = None

Integers = Callable[[np.ndarray, np.ndarray], np.ndarray]


def exact_scores(
    rows: Rows, numbers: Int[np.ndarray, " m"], query: Float32[np.ndarray, " d"]
) -> Float32[np.ndarray, " m"]:
    """Cosines of some rows and a query."""
    scores = np.empty(len(numbers), np.float32)
    for part in blocks(len(numbers), _BLOCK):
        values = rows.exact[numbers[part]].astype(np.float32)
        scores[part] = values @ query / np.linalg.norm(values, axis=1)  # in float16 they are not quite of unit length
    return scores


def best_rows(
    rows: Rows, query: Float32[np.ndarray, " d"], top: int, allowed: Bool[np.ndarray, " n"] | None = None
) -> tuple[Int[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
    """The rows with the highest cosines, and these; of equal ones the first rows come first.

    Args:
      rows: unit vectors.
      query: unit length.
      top: how many; fewer if there are not so many.
      allowed: the rows to look at; None: all.
    """
    numbers = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    if len(numbers) > max(_SMALL, 4 * top):
        numbers = _may_be_best(rows, query, top, allowed)
    scores = exact_scores(rows, numbers, query)
    order = np.lexsort((numbers, -scores))[:top]
    return numbers[order], scores[order]


def _may_be_best(rows: Rows, query: np.ndarray, top: int, allowed: np.ndarray | None) -> np.ndarray:
    """Rows among which the best ones certainly are."""
    factor = np.float32(max(float(np.abs(query).max()) / 127, 1e-9))
    codes = np.rint(query / factor).astype(np.int8)
    left = float(np.linalg.norm(query - codes * factor))
    about = integer_products(rows.codes, codes)
    about *= rows.scales[:, 0]
    about *= factor
    # |factor * codes| of a row is 1 at most, but for what is left out of it; rounding to float16 is far below 2e-3
    error = rows.scales[:, 1] * (1 + left) + np.float32(left + 2e-3)
    least, most = about - error, about + error
    if allowed is not None:
        least[~allowed] = most[~allowed] = -np.inf
    bound = np.partition(least, len(least) - top)[len(least) - top]
    return np.flatnonzero(most >= bound)


def integer_products(codes: np.ndarray, query: np.ndarray) -> Float32[np.ndarray, " n"]:
    """The products of rows of 8-bit integers with one."""
    if simsimd is not None:
        found = simsimd.cdist(query[None], np.asarray(codes), metric="dot", threads=available_cores())
        return np.asarray(found, np.float32)[0]
    return _by_blocks(codes, query)


def _by_blocks(codes: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Without the extra: in float32, which holds these integers exactly, a piece at a time."""
    result = np.empty(len(codes), np.float32)
    wanted, threads = query.astype(np.float32), available_cores()

    def part(first: int) -> None:
        buffer = np.empty((_BLOCK, codes.shape[1]), np.float32)
        for begin in range(first * _BLOCK, len(codes), threads * _BLOCK):
            count = min(_BLOCK, len(codes) - begin)
            np.copyto(buffer[:count], codes[begin : begin + count])
            np.dot(buffer[:count], wanted, out=result[begin : begin + count])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, range(threads)))
    return result
