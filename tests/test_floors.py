"""The order of the floors: a package imports from those below it, never from those above; docs/architecture.md."""

import ast
from pathlib import Path

import pytest

from tests.helpers.project_modules import MODULES, PROJECT

# From the ground up, in the order in which a clip passes through. What shares a line does not import each other.
FLOORS = [
    ("harvest_jax.errors", "harvest_jax.version"),
    (
        "harvest_jax.compiled_programs",
        "harvest_jax.files",
        "harvest_jax.machine",
        "harvest_jax.signals",
        "harvest_jax.terminal",
    ),
    ("harvest_jax.arguments", "harvest_jax.embeddings_file", "harvest_jax.pages"),
    ("harvest_jax.pixels", "harvest_jax.encode"),
    ("harvest_jax.config",),
    ("harvest_jax.synthetic",),
    ("data_pipeline.media_paths", "data_pipeline.child_process"),
    ("data_pipeline.shards",),
    ("data_pipeline.decode",),
    ("data_pipeline.sources",),
    ("data_pipeline.manifest",),
    ("data_pipeline.prepare", "data_pipeline.clips"),
    ("data_pipeline.command", "data_pipeline.tfds_builder"),
    ("data_pipeline",),
    ("harvest_jax.input",),
    ("harvest_jax.model",),
    ("harvest_jax.checkpoint",),
    ("harvest_jax.weights",),
    ("harvest_jax.train",),
    ("harvest_jax.arguments_of_videos",),
    ("harvest_jax.api",),
    ("harvest_jax.mteb_model",),
    ("harvest_jax",),  # the package's own names: load and Model
    ("harvest_jax.evaluate",),
    ("harvest_jax.hub",),
    ("harvest_jax.scored_training",),
    ("harvest_jax.search",),
    ("harvest_jax.serve",),
    ("harvest_jax.bench",),
    ("harvest_jax.plan",),
    ("harvest_jax.demo",),
    ("harvest_jax.run_report",),
    ("harvest_jax.describe",),
    ("harvest_jax.cli", "configs"),
    ("harvest_jax.__main__", "launch"),
    ("benchmarks",),
]


def floor_of(module: str) -> tuple[int, str]:
    """(number of the floor, the entry of FLOORS that the module belongs to)."""
    fitting = [
        (prefix, number)
        for number, floor in enumerate(FLOORS)
        for prefix in floor
        if module == prefix or (module.startswith(f"{prefix}.") and prefix not in ("harvest_jax", "data_pipeline"))
    ]
    assert fitting, f"{module} is on no floor: name it in FLOORS"
    prefix, number = max(fitting, key=lambda pair: len(pair[0]))
    return number, prefix


def imports(path: Path) -> set[str]:
    """The project's modules that a file imports, anywhere in it: in functions, and for type checkers, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in MODULES else node.module for part in parts}
    return {name for name in found if name in MODULES and name.split(".")[0] in PROJECT}


GRAPH = {name: imports(path) - {name} for name, path in MODULES.items()}


@pytest.mark.parametrize("module", GRAPH)
def test_no_import_runs_upwards(module):
    number, prefix = floor_of(module)
    for imported in GRAPH[module]:
        below, other = floor_of(imported)
        assert below < number or other == prefix, f"{module} (floor {number}) imports {imported} (floor {below})"


def test_no_circle_of_files():
    left = {name: {other for other in others if other != "harvest_jax"} for name, others in GRAPH.items()}
    while left:
        free = [name for name, others in left.items() if not others & left.keys()]
        assert free, f"these files import each other in a circle, or what does: {sorted(left)}"
        for name in free:
            del left[name]
