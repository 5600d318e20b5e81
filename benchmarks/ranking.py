"""Cost of ranking: seconds of CPU and memory of a retrieval evaluation's figures, from embeddings.

    python benchmarks/ranking.py --videos 5000 --dual_softmax 100

Prints a line of JSON: `cpu_seconds`, `seconds`, `peak_mb` (most resident memory, less what the program and the
embeddings took before), `process_mb` (most resident memory of the whole process, Linux's VmHWM), `matrix_mb` (what the
float32 matrix of cosines would take), and an estimate of the CPU seconds of a larger set, because time grows with the
number of pairs.
--scores constant gives every pair the same score, which makes all ranks open.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

from harvest_jax.evaluate.tasks import retrieval


def embeddings(videos: int, captions: int, width: int, scores: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Video and caption embeddings, and the video of each caption."""
    rng = np.random.default_rng(0)
    owner = np.arange(captions) % videos
    if scores == "constant":
        return np.ones((videos, width), np.float32), np.ones((captions, width), np.float32), owner
    video = rng.normal(size=(videos, width)).astype(np.float32)
    text = video[owner] + 3 * rng.normal(size=(captions, width)).astype(np.float32)
    return video, text, owner


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=0, help="0: as many as videos")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--scores", choices=("model", "constant"), default="model")
    parser.add_argument("--dual_softmax", type=float, default=0.0)
    parser.add_argument("--estimate", type=int, default=100_000, help="videos and captions of the estimate")
    args = parser.parse_args()
    captions = args.captions or args.videos
    video, text, owner = embeddings(args.videos, captions, args.width, args.scores)
    before, began, cpu_began = resident_mb(), time.perf_counter(), time.process_time()
    metrics = retrieval.score(video, text, owner, np.zeros(args.videos, bool), args.dual_softmax)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    pairs = args.videos * captions
    most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {
        "videos": args.videos,
        "captions": captions,
        "scores": args.scores,
        "dual_softmax": args.dual_softmax,
        "R@1": round(metrics["t2v"]["R@1"], 2),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(most_mb - before),
        "process_mb": round(most_mb),
        "matrix_mb": round(4 * pairs / 2**20),
        f"estimated_cpu_seconds_{args.estimate}": round(cpu * args.estimate**2 / pairs),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
