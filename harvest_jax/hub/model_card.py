"""A model card from a folder's own evidence: what its config.json says, and results that have the model's digest.

What the folder does not know is written as unknown, so that nobody takes it for checked.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.api import load
from harvest_jax.errors import DataError
from harvest_jax.evaluate.report.grids import report
from harvest_jax.evaluate.report.result_files import Found, read_results
from harvest_jax.evaluate.report.show import markdown
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.terminal import printable
from harvest_jax.version import __version__
from harvest_jax.weights.export_model import CARD
from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json
from harvest_jax.weights.files.weights_digest import DIGEST
from harvest_jax.weights.folder import load_config

UNKNOWN = "unknown"
TAGS = ["clip", "jax", "video"]


def own_results(folder: Path, paths: Sequence[Path]) -> Found:
    """The results of `harvest eval` that were made with exactly this model: those with its digest.

    Args:
      folder: a model folder.
      paths: files and folders of results; where none is named, `results` in the folder and beside it.

    Returns:
      the results, and a line for each that was left out.

    Raises:
      DataError: a file that was named is no result, or the folder cannot be used.
    """
    looked = list(paths) or [path for path in (folder / "results", folder.parent / "results") if path.is_dir()]
    if not looked:
        return Found([], [])
    found, own = read_results(looked), load(folder).digest
    others = [result for result in found.results if result.weights != own]
    said = [f"{len(others)} results of other models were left out"] if others else []
    return Found([result for result in found.results if result.weights == own], [*found.left_out, *said])


def model_card(
    folder: Path,
    results: Found,
    name: str,
    license_id: str | None = None,
    library: str = "harvest_jax",
    repo: str | None = None,
) -> str:
    """The text of a README.md for a model folder.

    Args:
      folder: a model folder.
      results: of `own_results`.
      name: heading, such as the repository's name.
      license_id: that the user gives to the weights, in the hub's words ("apache-2.0"); None: unknown.
      library: that opens the files which the card is for, in the hub's words.
      repo: where the model folder will be on the hub.

    Raises:
      DataError: what config.json says of the weights' origin cannot be read.
    """
    content = read_json(folder / CONFIG)
    config, origin = load_config(folder), content.get("origin") or {}
    try:
        training, start = _training(origin), _starting_weights(origin, folder)
        lines = _described_start(start)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / CONFIG}: its origin is not one that this package writes: {error!r:.100}") from error
    head: dict[str, Any] = {"license": license_id or UNKNOWN, "library_name": library, "tags": TAGS}
    repos = [entry["hub"]["repo"] for entry in start if "hub" in entry]
    if repos:
        head["base_model"] = repos[-1]
    parts = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items()) + "---",
        f"# {name}",
        f"Written by harvest_jax {__version__} from what the model folder itself says. Nobody has checked or completed "
        "it; what the folder does not know is marked as unknown.",
        _facts(config, content),
        *([f"## Use\n\n```sh\nharvest weights import hf://{repo} --out model\n```"] if repo else []),
        "## Training\n\n" + training,
        "## Starting weights\n\n" + "\n".join(lines),
        "## Results\n\n" + _results(results),
        "## Unknown to the folder\n\n- what the training clips show, and under which licence they are\n"
        "- for what the model was meant, its limits, and whether it is safe to use for anything\n"
        + ("" if license_id else "- the licence of these weights\n"),
    ]
    return "\n\n".join(parts)


def _facts(config: HarvestConfig, content: Mapping[str, Any]) -> str:
    video, text = config.video, config.text
    numbers = sum(math.prod(shape) for shape in parameter_shapes(config).values())
    kind = f"video tower, {video.num_frames} frames" if video.num_frames > 1 else "image tower (one frame)"
    rows = [
        (kind, f"{video.layers} layers of width {video.width}, {video.heads} heads; {video.image_size} pixels a side, "
         f"patches of {video.patch_size}"),
        ("text tower", f"{text.layers} layers of width {text.width}, {text.heads} heads; {text.context_length} tokens "
         f"of a vocabulary of {text.vocab_size}"),
        ("embedding", f"{video.embed_dim} numbers"),
        ("activation", f"{video.activation}, {text.activation}"),
        ("decoder of masked words", f"{config.decoder.layers} layers" if config.decoder else "none"),
        ("preprocessing", f"{config.preprocessing.resize}, mean {list(config.preprocessing.mean)}, "
         f"std {list(config.preprocessing.std)}"),
        ("parameters", f"{numbers:,}"),
        ("SHA-256 of the model folder's weights", str(content.get(DIGEST, UNKNOWN))),
        ("written by harvest_jax", str(content.get("version", UNKNOWN))),
    ]  # fmt: skip
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _training(origin: Mapping[str, Any]) -> str:
    """What `origin` says of how the weights were made."""
    if "mixed" in origin:
        one, other, alpha = (origin["mixed"][key] for key in ("first", "second", "alpha"))
        mix = f"{1 - alpha:g} times {_code(one)} plus {alpha:g} times {_code(other)}"
        return f"None: the weights are a mix, {mix} (WiSE-FT). How these were trained is unknown to the folder."
    if before := _before(origin):
        return _training(before)
    if "config" not in origin:
        told = {key: value for key, value in origin.items() if not isinstance(value, dict)}
        return f"Unknown. The folder says of itself: {_code(json.dumps(told))}." if told else "Unknown."
    run = origin["config"]
    data, train, model = (run.get(part, {}) for part in ("data", "train", "model"))
    shards = [Path(part).name for part in str(data.get("shards", "")).split(",") if part]
    rows = {
        "objective": run.get("objective", {}).get("name"),
        "steps": origin.get("workdir_step"),
        "batch size": train.get("batch_size"),
        "learning rate": train.get("learning_rate"),
        "share of patches kept": model.get("keep_ratio"),
        "seed": run.get("seed"),
        "shards (names of folders)": ", ".join(map(_code, shards)) or None,
    }
    lines = [f"| {name} | {UNKNOWN if value is None else value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines, "", "All settings are in config.json."])


def _before(origin: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an imported folder said of itself, or the training whose checkpoint was imported."""
    found: Mapping[str, Any] = origin.get("origin") or origin.get("training") or {}
    return found


def _starting_weights(origin: Mapping[str, Any], folder: Path) -> list[Mapping[str, Any]]:
    """The origins of the folders that the weights came through, the last one first, as far as they can be followed."""
    found: list[Mapping[str, Any]] = []
    seen = {folder.resolve()}
    while True:
        if "imported_from" in origin:
            found.append(origin)
            origin = _before(origin)
            continue
        start = origin.get("config", {}).get("model", {}).get("init_from")
        if not start:
            return found
        before = Path(start)
        if not (before / CONFIG).is_file() or before.resolve() in seen:
            return [*found, {"init_from": before.name}]
        seen.add(before.resolve())
        origin = read_json(before / CONFIG).get("origin") or {}
        found.append({"init_from": before.name, "made_by": origin.get("made_by"), "license": _stated_license(before)})


def _stated_license(folder: Path) -> str | None:
    """The licence in the head of the folder's README.md, in the hub's form; None if it states none."""
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace")[:10_000] if card.is_file() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license: *[\"']?([\w.-]+)", head[1], re.MULTILINE) if head else None
    return stated[1] if stated and stated[1] != UNKNOWN else None


def _described_start(start: Sequence[Mapping[str, Any]]) -> list[str]:
    if not start:
        return [f"Random, or {UNKNOWN}: the folder names none."]
    lines = []
    for entry in start:
        if "init_from" in entry:
            lines.append(f"- the training began from the model folder {_code(entry['init_from'])}")
            if entry.get("made_by"):
                lines.append(f"  - it says that it was made by {_code(entry['made_by'])}")
            if entry.get("license"):
                lines.append(f"  - licence, as its README.md states it: {printable(entry['license'])}")
            continue
        kind = f"{entry.get('family', UNKNOWN)}, {entry.get('kind', UNKNOWN)}"
        lines.append(f"- imported from {_code(entry['imported_from'])} ({printable(kind)})")
        if "hub" in entry:
            lines.append(f"  - repository {_code(entry['hub']['repo'])}, commit {_code(entry['hub']['commit'])}")
            lines.append(f"  - licence, as that repository states it: {printable(entry['hub']['license'] or UNKNOWN)}")
    if not (start[-1].get("license") or start[-1].get("hub", {}).get("license")):
        lines.append(f"- the licence of the first of them: {UNKNOWN}")
    return lines


def _code(text: object) -> str:
    """A name from a file, so that it can be nothing but a name in Markdown."""
    return f"`{printable(text).replace('`', chr(39))}`"


def _results(found: Found) -> str:
    if not found.results:
        return "None: no result of `harvest eval` with the digest of this model was at hand."
    hashes = [f"- {result.task}, {result.set_name}: `{result.protocol_hash}`" for result in found.results]
    tables = markdown(report(found.results)).removeprefix("# Results\n\n").replace("## ", "### ")
    return "\n".join([tables, "Protocols (SHA-256):", "", *hashes])
