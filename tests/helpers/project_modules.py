"""The modules of the project, read from their folders."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("benchmarks", "configs", "data_pipeline", "harvest_jax", "launch")


def module_name(path: Path) -> str:
    """harvest_jax/weights/__init__.py -> harvest_jax.weights."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for package in PROJECT for path in sorted((ROOT / package).rglob("*.py"))}
