"""`harvest weights`: its actions, and with them what they need of the hub and of results."""

import argparse
import logging
from pathlib import Path

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.files import address_fault
from harvest_jax.weights import command as weights
from harvest_jax.weights.command import HUB

# the hub's names of libraries, by format
LIBRARIES = {"hf": "transformers", "hf_video": "transformers", "open_clip": "open_clip", "onnx": "onnx"}
_PUSH = """DIR is a model folder, which gets a model card (README.md) unless it has one, or a folder that
`harvest weights export` wrote, with its card. The repository is made if it is not there. For the token see the
documentation of huggingface_hub: `hf auth login` once, or HF_TOKEN. No file of DIR is changed.

  harvest weights push runs/b16/export my-name/harvest-b16 --license mit --private"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest weights`."""
    commands = weights.add_arguments(parser)
    push = weights.add_action(commands, "push", "write a model to a repository of the Hugging Face Hub", _PUSH)
    push.add_argument("folder", type=Path, metavar="DIR", help="model folder, or one that harvest weights export wrote")
    push.add_argument("repo", metavar="REPO", help="ORGANISATION/NAME, with @BRANCH another branch than main")
    push.addresses = (HUB,)
    push.add_argument("--private", action="store_true", help="if the repository is made: not for everybody to see")
    for one in (commands.choices["export"], push):
        one.add_argument(
            "--results", type=Path, nargs="+", default=[], metavar="PATH", help="results of harvest eval for the card"
        )
        one.add_argument(
            "--license", metavar="ID", help="licence of the weights, as the hub writes it (default: unknown)"
        )


def run(args: argparse.Namespace) -> int:
    """Run the action and print in a few lines what was done."""
    if args.action == "push":
        print("\n".join(_push(args)))
        return 0
    if args.action == "import" and args.source.startswith(HUB):
        from harvest_jax.hub.transfers import download

        if fault := address_fault(str(args.out)):
            raise ConfigError(fault)
        found = download(args.source)
        args.source, args.hub = str(found.path), found.origin
    if args.action == "export":
        library = LIBRARIES.get(args.format, "harvest_jax")
        args.card = _card(args, args.folder.name, library) if args.folder.is_dir() else None
    return weights.run(args)


def _card(args: argparse.Namespace, name: str, library: str = "harvest_jax", repo: str | None = None) -> str:
    from harvest_jax.hub.model_card import model_card, own_results
    from harvest_jax.weights.folder import load_config

    load_config(args.folder)  # says what it is if it is no model folder
    results = own_results(args.folder, args.results)
    for line in results.left_out if args.results else ():
        logging.getLogger(__name__).warning("%s", line)
    return model_card(args.folder, results, name, args.license, library, repo)


def _push(args: argparse.Namespace) -> list[str]:
    from harvest_jax.checkpoint.workdir import Workdir
    from harvest_jax.hub.transfers import TOKENIZER, HubAddress, push
    from harvest_jax.weights.export_model import CARD
    from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json
    from harvest_jax.weights.folder import WEIGHTS, open_parameters
    from harvest_jax.weights.mistaken_path import not_a_model_folder

    folder: Path = args.folder
    address = HubAddress.parse(args.repo)
    ours = (folder / CONFIG).is_file() and isinstance(read_json(folder / CONFIG).get("model"), dict)
    if not folder.is_dir() or Workdir(folder).exists or not (ours or (folder / CARD).is_file()):
        raise not_a_model_folder(folder)
    files: dict[str, Path | bytes]
    if ours:
        open_parameters(folder)  # whole, and with its digest
        files = {name: folder / name for name in (CONFIG, WEIGHTS, TOKENIZER, CARD) if (folder / name).is_file()}
        if CARD not in files:
            files[CARD] = _card(args, address.repo.rpartition("/")[2], repo=address.repo).encode()
    else:
        files = {path.relative_to(folder).as_posix(): path for path in _plain_files(folder)}
    if (args.license or args.results) and not isinstance(files[CARD], bytes):
        raise ConfigError(f"--license and --results are for a card that is made, and {folder / CARD} is there already")
    done = push(folder, files, args.repo, args.private)
    said = [f"{folder}: {', '.join(sorted(files))}", f"written to {done}"]
    if ours and '": "/' in (folder / CONFIG).read_text(encoding="utf-8"):
        said.append(f"note: {CONFIG}, which is now there too, names folders of this machine")
    return said


def _plain_files(folder: Path) -> list[Path]:
    """The files below a folder, hidden ones left out.

    Raises:
      DataError: one is a link.
    """
    shown = lambda path: not any(part.startswith(".") for part in path.relative_to(folder).parts)  # noqa: E731
    found = [path for path in sorted(folder.rglob("*")) if shown(path)]
    for path in found:
        if path.is_symlink():
            raise DataError(f"{path} is a link: links are not written to the hub")
    return [path for path in found if path.is_file()]
