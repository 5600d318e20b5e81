"""Benchmarks by name: what one is, which there are, how its official files are found and read."""
