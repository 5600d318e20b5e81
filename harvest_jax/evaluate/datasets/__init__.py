"""The benchmarks, one small file for each dataset. A module has `BENCHMARKS`, a tuple of `benchmark.Benchmark`."""
