"""Sphinx: the pages of docs/ and launch/ as a site. `make docs` builds it; llms.txt lists the pages for programs.

The pages are plain Markdown that can be read on GitHub, so what only the site has is added here while it is built: the
table of contents, the options of each command (from its parser), and the reference of the Python interface (from its
docstrings).
"""

import argparse
import re
from pathlib import Path
from typing import Any

from harvest_jax import cli
from harvest_jax.version import __version__

ROOT = Path(__file__).resolve().parents[1]
HOME = "docs/index"
REFERENCE = "docs/python"
# Where a page stands in the navigation. A page that is missing here ends the build; a name without a page is left out.
CONTENTS = {
    "Start": ["docs/tutorial", "docs/demo", "docs/faq", "docs/comparison"],
    "Guides": [
        "docs/data",
        "docs/weights",
        "docs/training",
        "docs/evaluation",
        "docs/benchmarks",
        "docs/use",
        "docs/search",
        "docs/serve",
        "docs/onnx",
        "docs/stablehlo",
        "docs/world",
        "launch/README",
        "launch/prepare/README",
    ],
    "Reference": ["docs/commands", "docs/python", "docs/data_format", "docs/README"],
    "Commands": [f"docs/commands/{name}" for name in cli.COMMANDS],
    "Background": ["docs/method", "docs/architecture", "docs/decisions"],
    "Evidence": ["docs/results", "docs/performance", "docs/parity", "docs/reliability"],
    "Project": ["README", "CHANGELOG", "CONTRIBUTING", "SECURITY"],
}
SHORT = {"docs/README": "Pages and words", "launch/prepare/README": "Many machines", "README": "README"}
PYTHON = """
```{eval-rst}
.. autofunction:: harvest_jax.load

.. autoclass:: harvest_jax.Model
   :members: encode_video, encode_text, prepare, encode_clips, keeping, answer_logits, class_logits, head_answer_logits,
      over, num_frames, logit_scale, digest, classes

Errors
------

.. automodule:: harvest_jax.errors
   :members:
   :show-inheritance:

Configs
-------

.. autofunction:: harvest_jax.config.load_dict
.. autofunction:: harvest_jax.config.load
.. autofunction:: harvest_jax.config.check
```
"""

project = "harvest_jax"
release = __version__
copyright = "the authors of harvest_jax, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = HOME
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/**", "launch/**"]
exclude_patterns = ["**/.*", "launch/colab/**"]
default_role = "code"
nitpicky = True
# What is not in the reference has no page: other projects' names (their indexes are on the network) and inner types.
nitpick_ignore_regex = [("py:.*", r"(?!harvest_jax\.(Model|load|errors)).*")]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4  # as GitHub names them

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"harvest_jax {__version__}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]


def pages() -> list[str]:
    """The pages in the order of the navigation."""
    return [HOME, *(page for part in CONTENTS.values() for page in part if (ROOT / f"{page}.md").exists())]


def contents() -> str:
    """The navigation, as hidden tables of contents of the first page."""
    blocks = []
    for part, names in CONTENTS.items():
        entries = [f"{SHORT[name]} </{name}>" if name in SHORT else f"/{name}" for name in names if name in pages()]
        blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {part}", "", *entries, "```"]))
    return "\n\n".join(["", *blocks, ""])


def plain(text: str) -> str:
    """The text with Markdown's characters escaped."""
    return re.sub(r"([\\`*_<>\[\]{}#$~|])", r"\\\1", " ".join(text.split()))


def options(parser: argparse.ArgumentParser) -> str:
    """Usage, arguments and notes of a command and of those below it, as `--help` shows them."""
    formatter = parser._get_formatter()
    lines = ["", "```text", parser.format_usage().removeprefix("usage: ").rstrip(), "```", ""]
    below: dict[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below = action.choices
        elif action.help != argparse.SUPPRESS and "-h" not in action.option_strings:
            name = formatter._format_action_invocation(action)
            lines += [f"`{name}`{' (required)' * (action.required and bool(action.option_strings))}"]
            lines += [f": {plain(formatter._expand_help(action))}", ""]
    if parser.epilog:
        lines += ["```text", parser.epilog.strip("\n"), "```", ""]
    for name, command in below.items():
        lines += [f"### {' '.join(parser.prog.split()[1:])} {name}", "", plain(command.description or ""), ""]
        lines += [options(command)]
    return "\n".join(lines)


def added(page: str) -> str:
    """What the site adds to the end of a page."""
    if page == HOME:
        return contents()
    if page == REFERENCE:
        return PYTHON
    if page.startswith("docs/commands/"):
        name = page.rpartition("/")[2]
        return f"\n## Options\n\n{options(cli.build_parser(name)._commands.choices[name])}"
    return ""


def llms_txt() -> str:
    """The pages with the first sentence of each: https://llmstxt.org. The reference is a page of HTML alone."""
    lines = []
    for page in pages():
        title, _, text = (ROOT / f"{page}.md").read_text().removeprefix("# ").partition("\n")
        first = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(text.strip().split("\n\n")[0].split()))
        sentence = re.split(r"(?<=[.?])\s(?=[A-Z])", first)[0]
        lines.append(f"- [{title}]({page}.{'html' if page == REFERENCE else 'md'}): {sentence}")
    summary = "Turn CLIP into a video-language model by a short post-pretraining on captioned videos, in JAX and Flax."
    return "\n".join([f"# {project}", "", f"> {summary}", "", "## Pages", "", *lines, ""])


def readable(signature: str) -> str:
    """The signature with `Videos` for the union that it stands for, and JAX's arrays by their public name."""
    signature = re.sub(r"(?:jax\.)?jaxlib\._jax\.Array", "jax.Array", signature)
    one = "str | ~os.PathLike[str] | ~numpy.ndarray | ~jax.Array"
    return signature.replace(f"{one} | ~collections.abc.Iterable[{one}]", "Videos")


def setup(app: Any) -> None:
    """Connect the additions to Sphinx's events."""

    def add(app: Any, page: str, source: list[str]) -> None:
        source[0] += added(page)

    def shorten(*event: Any) -> tuple[str | None, str | None]:
        *_, arguments, returned = event
        return arguments and readable(arguments), returned and readable(returned)

    def write(app: Any, error: Exception | None) -> None:
        if error is None:
            out = Path(app.outdir)
            (out / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={HOME}.html">\n')
            (out / "llms.txt").write_text(llms_txt())
            for page in pages():
                options_of_commands = added(page) if page.startswith("docs/commands/") else ""
                (out / f"{page}.md").write_text((ROOT / f"{page}.md").read_text() + options_of_commands)

    app.connect("source-read", add)
    app.connect("autodoc-process-signature", shorten)
    app.connect("build-finished", write)
