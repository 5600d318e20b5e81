"""Code that mypy does not read (benchmarks/, launch/colab/): what it imports exists, and its calls fit."""

import ast
import importlib
import inspect
from typing import Any

import pytest

from tests.helpers.project_modules import MODULES, PROJECT, ROOT

FILES = sorted(str(path.relative_to(ROOT)) for top in ("benchmarks", "launch") for path in (ROOT / top).rglob("*.py"))


def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def project_imports(tree: ast.Module) -> list[tuple[str, str | None, str]]:
    """(module, name in it or None, local name) of every import of the project, inside functions too."""
    found: list[tuple[str, str | None, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, None, alias.asname or alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name, alias.asname or alias.name) for alias in node.names]
    return [item for item in found if item[0].split(".")[0] in PROJECT]


def names_in(module: str) -> set[str]:
    """What a module defines or imports, without running it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("file", FILES)
def test_what_it_imports_exists(file):
    for module, name, _ in project_imports(parsed(file)):
        folder = ROOT.joinpath(*module.split("."))
        assert module in MODULES or folder.is_dir(), f"{file} imports {module}"
        assert name is None or f"{module}.{name}" in MODULES or (folder / name).is_dir() or name in names_in(module), (
            f"{file} imports {name} of {module}"
        )


def library(tree: ast.Module) -> dict[str, Any]:
    """What the imports from the two packages bind, by local name."""
    found: dict[str, Any] = {}
    for module, name, local in project_imports(tree):
        if module.split(".")[0] not in ("harvest_jax", "data_pipeline"):
            continue  # benchmarks/ may need torch
        if name is None:
            importlib.import_module(module)
            found[local] = importlib.import_module(module.split(".")[0] if local == module.split(".")[0] else module)
        elif f"{module}.{name}" in MODULES:
            found[local] = importlib.import_module(f"{module}.{name}")
        else:
            found[local] = getattr(importlib.import_module(module), name)
    return found


@pytest.mark.parametrize("file", FILES)
def test_calls_of_the_library_fit_its_functions(file):
    tree = parsed(file)
    known = library(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called: Any = None
        if isinstance(call.func, ast.Name):
            called = known.get(call.func.id)
        elif isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            owner = known.get(call.func.value.id)
            called = getattr(owner, call.func.attr) if inspect.ismodule(owner) else None
        if not (inspect.isfunction(called) or inspect.isclass(called)):
            continue
        if any(isinstance(argument, ast.Starred) for argument in call.args):
            continue
        named = [keyword.arg for keyword in call.keywords]
        given = {name: None for name in named if name}
        try:
            signature = inspect.signature(called)
            (signature.bind_partial if None in named else signature.bind)(*call.args, **given)
        except ValueError:  # an exception class without arguments of its own
            continue
        except TypeError as error:
            pytest.fail(f"{file}: {ast.unparse(call)}: {error}")
