"""What a query costs in an index of many windows: the exact best ten of N rows, and other ways to find them.

    python -m benchmarks.search --windows 1000000 --width 512 --folder /tmp/big_index

The rows are random unit vectors near a common direction, as the embeddings of one model are. They are written to the
files of an index once. Each way is timed over the same queries, one after the other, in turns. simsimd is the extra
`search`; usearch, faiss-cpu and numkong are timed if they are installed.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harvest_jax.machine import available_cores
from harvest_jax.search import scores
from harvest_jax.search.rows import RowFiles, Rows, coded

CHUNK = 20_000


def made(folder: Path, count: int, width: int) -> Rows:
    """The rows, mapped; written if they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = RowFiles(folder, 0, width)
    done = folder / f"{count}x{width}"
    if not done.exists():
        rng = np.random.default_rng(0)
        for first in range(0, count, CHUNK):
            files.write(first, coded(vectors(rng, min(CHUNK, count - first), width)))
        done.touch()
    return files.mapped(count)


def vectors(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Unit vectors whose cosines are about 0.3 +- 1 / sqrt(width)."""
    values = rng.standard_normal((count, width), dtype=np.float32) / np.sqrt(width)
    values[:, 0] += 0.65
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def float_blocks(rows: Rows, query: np.ndarray) -> np.ndarray:
    """Best ten by converting all float16 rows to float32, a block at a time."""
    result = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), 1024):
        result[first : first + 1024] = rows.exact[first : first + 1024].astype(np.float32) @ query
    return np.argpartition(-result, 10)[:10]


def ways(rows: Rows, only: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The ways to find the best ten rows of a query, by name; those whose name contains a text."""
    cores = available_cores()
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    library = scores.simsimd

    def ours(query: np.ndarray, with_library: bool) -> np.ndarray:
        scores.simsimd = library if with_library else None
        try:
            return scores.best_rows(rows, query, 10)[0]
        finally:
            scores.simsimd = library

    if library is not None:
        found["int8 first (simsimd), then float32"] = lambda query: ours(query, True)
    found["int8 first (NumPy), then float32"] = lambda query: ours(query, False)
    found["float16 to float32 in blocks (NumPy)"] = lambda query: float_blocks(rows, query)
    try:
        from usearch.index import MetricKind, search

        exact = np.asarray(rows.exact)
        found["usearch, exact, float16"] = lambda query: (
            search(exact, query.astype(np.float16), 10, MetricKind.IP, exact=True, threads=cores).keys
        )
    except ImportError:
        pass
    try:
        if only not in "faiss, exact, float16 (rows in memory)":  # it copies all rows
            raise ImportError
        import faiss

        faiss.omp_set_num_threads(cores)
        index = faiss.IndexScalarQuantizer(
            rows.exact.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        for first in range(0, len(rows), CHUNK):
            index.add(rows.exact[first : first + CHUNK].astype(np.float32))
        found["faiss, exact, float16 (rows in memory)"] = lambda query: index.search(query[None], 10)[1][0]
    except ImportError:
        pass
    return {name: way for name, way in found.items() if only in name}


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--folder", type=Path, required=True, help="the rows are kept here")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--only", default="", help="ways whose name contains this; the memory printed is then that of this way"
    )
    args = parser.parse_args()
    rows = made(args.folder, args.windows, args.width)
    queries = vectors(np.random.default_rng(1), args.repeats + 1, args.width)
    found = ways(rows, args.only)
    wanted = [set(scores.best_rows(rows, query, 10)[0].tolist()) for query in queries]
    taken: dict[str, list[float]] = {name: [] for name in found}
    equal = dict.fromkeys(found, 0)
    for query, best in zip(queries, wanted, strict=True):
        for name, way in found.items():
            begin = time.perf_counter()
            numbers = way(query)
            taken[name].append(1e3 * (time.perf_counter() - begin))
            equal[name] += set(np.asarray(numbers).tolist()) == best
    for name, milliseconds in taken.items():
        line = {
            "way": name,
            "first_ms": round(milliseconds[0], 1),
            "least_ms": round(min(milliseconds[1:]), 1),
            "median_ms": round(statistics.median(milliseconds[1:]), 1),
            "same_ten": f"{equal[name]}/{len(queries)}",
        }
        print(json.dumps(line), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(part.nbytes for part in (rows.exact, rows.codes, rows.scales))
    print(json.dumps({"windows": len(rows), "cores": available_cores(), "index_bytes": size, "peak_memory": peak}))


if __name__ == "__main__":
    main()
