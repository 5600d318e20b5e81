"""What the pages name exists: link targets, files, commands with their options, config fields, make targets.

And the site that is made of them has every page, and a page for every command (tests/docs/ reads the site itself).
"""

import contextlib
import functools
import importlib
import io
import re
import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from harvest_jax import cli
from harvest_jax.config.files import find_config, load_dict

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "launch").rglob("*.md")),
    ]
}
SITE = runpy.run_path(str(ROOT / "docs" / "conf.py"))
CONFIGS = [path for path in (ROOT / "configs").rglob("*.py") if path.name != "__init__.py"]
BLOCK = re.compile(r"^```\w*\n(.*?)^```|((?:^    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"\bharvest ([a-z]+)(?: (import|export|mix|push|step|loader))?(?= |$)|\bpython -m (launch\.\w+)(?= |$)"
)
OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*)(?![\w.-])")  # --config.FIELD has a check of its own
FIELD = re.compile(
    r"--config\.([a-z][\w.]*)|^((?:model|text|data|train|objective|mesh)\.(?!safetensors|apply)[a-z]\w*)(?==|$)"
)
PATH = re.compile(r"(?<![\w./-])(?:[\w.*-]+/[\w./*-]*|\w+\.py\b)")
TOPS = ("harvest_jax", "data_pipeline", "configs", "launch", "benchmarks", "tests", "docs")
OTHER_PROGRAMS = {"--job_endpoint", "--dask_partition_size", "--dask_client_address"}  # Beam's, Dask's


def without_blocks(text: str) -> str:
    return BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def spans(text: str) -> list[str]:
    """The pieces of code within the text; one may run over the end of a line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_blocks(text))]


def lines_of_code(text: str) -> list[str]:
    """The lines of all blocks, continued lines joined and comments left out, and the pieces of code in the text."""
    blocks = ["".join(match.groups(default="")).replace("\\\n", " ") for match in BLOCK.finditer(text)]
    return [line.split(" #")[0] for block in blocks for line in block.splitlines()] + spans(text)


@functools.cache
def help_of(command: str, action: str = "") -> str:
    """What `harvest COMMAND [ACTION] --help` or `python -m launch.NAME --help` prints."""
    main = importlib.import_module(command).main if command.startswith("launch.") else cli.main
    words = [] if command.startswith("launch.") else [command, *([action] if action else [])]
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0, f"no command {' '.join(words)}"
    return printed.getvalue()


def fields(config: ConfigDict, prefix: str = "") -> set[str]:
    found = set()
    for name in config:
        group = config[name]
        found |= fields(group, f"{prefix}{name}.") if isinstance(group, ConfigDict) else {f"{prefix}{name}"}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_project_exist(page):
    """A path that begins with a folder of the project; or a module's, from any of its folders on, or its bare name."""
    modules = [f"/{path.relative_to(ROOT)}" for top in TOPS for path in (ROOT / top).rglob("*.py")]
    folders = {part for module in modules for part in Path(module).parts[:-1]}
    for code in lines_of_code(PAGES[page]):
        for path in PATH.findall(code):
            if path.split("/")[0] in TOPS:
                assert list(ROOT.glob(path)), path
            elif path.endswith(".py") and ("/" not in path or path.split("/")[0] in folders):
                assert any(module.endswith(f"/{path}") for module in modules), path


@pytest.mark.parametrize("page", PAGES)
def test_tests_of_the_project_exist(page):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGES[page]):
        assert f"\ndef {name}(" in (ROOT / file).read_text(), name


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_options(page):
    for line in lines_of_code(PAGES[page]):
        line = line.split(" | ")[0]
        for match in COMMAND.finditer(line):
            command, action = match[1] or match[3], match[2] or ""
            known = help_of(command, action)
            for name in re.findall(r"--config ([a-z][\w/.]*)", line):
                find_config(name)
            for option in OPTION.findall(line[match.end() :].split(" -- ")[0]):
                assert option in OPTION.findall(known), line
        if re.fullmatch(r"--[a-z]\w*( \S+)?", line):  # an option that the text names by itself
            everything = " ".join(help_of(*words) for words in ALL_COMMANDS)
            assert set(OPTION.findall(line)) <= {*OPTION.findall(everything), *OTHER_PROGRAMS}, line
        for target in re.findall(r"^make ([a-z]+)", line):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(), line


ALL_COMMANDS = [
    *((command,) for command in cli.COMMANDS),
    *(("weights", action) for action in ("import", "export", "mix", "push")),
    *(("bench", action) for action in ("step", "loader")),
    *((f"launch.{name}",) for name in ("local", "restarts", "submit", "sweep")),
]


@pytest.mark.parametrize("page", PAGES)
def test_config_fields_exist(page):
    known = set().union(*(fields(load_dict(str(path))) for path in CONFIGS))
    for line in lines_of_code(PAGES[page]):
        for match in FIELD.finditer(line):
            assert (match[1] or match[2]) in known, line


def test_the_site_has_every_page_once():
    notebooks = "launch/colab/"  # their text is for Jupyter
    assert sorted(f"{page}.md" for page in SITE["pages"]()) == [page for page in sorted(PAGES) if notebooks not in page]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_page_and_the_site_adds_all_of_its_options(command):
    added = SITE["added"](f"docs/commands/{command}")
    actions = {"weights": ("import", "export", "mix", "push"), "bench": ("step", "loader")}.get(command, ())
    for known in (help_of(command), *(help_of(command, action) for action in actions)):
        assert {option for option in OPTION.findall(known) if option != "--help"} <= set(OPTION.findall(added))


def test_llms_txt_says_of_every_page_what_it_is():
    lines = [line for line in SITE["llms_txt"]().splitlines() if line.startswith("- ")]
    assert len(lines) == len(SITE["pages"]())
    for line in lines:
        assert re.fullmatch(r"- \[[^\]]+\]\([\w/]+\.(md|html)\): [A-Z`*].{25,}[.?]", line), line
