"""Models from and to the Hugging Face Hub, through huggingface_hub.

A revision is resolved to its commit first, and every file is read from that commit: a file that somebody replaces
meanwhile is not seen. What the hub lists of a file, its size and for large files its SHA-256, is compared with what
came. Tokens are the library's own business (HF_TOKEN, or its file): they are neither read, printed nor stored here.
"""

import contextlib
import dataclasses
import fnmatch
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.files import sha256_of
from harvest_jax.terminal import one_line, printable
from harvest_jax.version import __version__
from harvest_jax.weights.command import HUB
from harvest_jax.weights.files.open_checkpoint import DETAILS, FOLDERS

_ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+))?(?:@(?P<revision>[\w./-]+))?")
_SINGLE = (".pt", ".pth", ".bin", ".safetensors", ".msgpack", ".npz")  # endings of a checkpoint in one file
TOKENIZER = "tokenizer.json"  # of a model that brings its own
_COMMAND = "the same command can be given again"


@dataclasses.dataclass(frozen=True)
class HubAddress:
    """hf://ORGANISATION/NAME[/FILE][@REVISION]."""

    repo: str
    file: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubAddress":
        """The parts of an address.

        Raises:
          ConfigError: it is none.
        """
        found = _ADDRESS.fullmatch(text.removeprefix(HUB))
        if found is None:
            raise ConfigError(
                f"{printable(text)} is no address on the hub: write {HUB}ORGANISATION/NAME[/FILE][@REVISION]"
            )
        return cls(**found.groupdict())


@dataclasses.dataclass(frozen=True)
class Downloaded:
    """A checkpoint from the hub: where it lies now, and what config.json says of where it comes from."""

    path: Path
    origin: dict[str, Any]  # repo, commit, and licence as the repository states it (None: it does not)


def download(text: str) -> Downloaded:
    """Get the files of one checkpoint, of a single commit; those in the library's cache are not fetched again.

    Args:
      text: an address, see `HubAddress`. Of a repository with several checkpoints the file must be named.

    Raises:
      ConfigError: it is no address.
      DataError: no such repository, revision or file, several checkpoints, or a file that is not what the hub lists.
      HarvestError: the hub refuses or does not answer.
    """
    address = HubAddress.parse(text)
    with _one_line(text):
        info = _api().repo_info(address.repo, revision=address.revision, files_metadata=True)
        there = {sibling.rfilename: sibling for sibling in info.siblings or []}
        names = wanted_files(list(there), address)
        paths = {name: _fetch(address.repo, there[name], str(info.sha)) for name in names}
    first = paths[names[0]]
    card = info.card_data or {}
    origin = {"repo": address.repo, "commit": info.sha, "license": card.get("license")}
    return Downloaded(first if len(names) == 1 else first.parent, origin)


def push(folder: Path, files: Mapping[str, Path | bytes], text: str, private: bool) -> str:
    """Write files to a repository in one commit; the repository is made if it is not there.

    Args:
      folder: where they come from, for the message of the commit.
      files: path or content by name.
      text: ORGANISATION/NAME, with or without hf://; with @BRANCH another branch than main, which must be there.
      private: of a repository that is made.

    Returns:
      address of the commit.

    Raises:
      ConfigError: `text` names no repository.
      HarvestError: the hub refuses or does not answer.
    """
    address = HubAddress.parse(text)
    if address.file:
        raise ConfigError(f"{printable(text)} names a file: give the repository, ORGANISATION/NAME")
    with _one_line(text):
        from huggingface_hub import CommitOperationAdd

        api = _api()
        api.create_repo(address.repo, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        message = f"{folder.name} by harvest_jax {__version__}"
        done = api.create_commit(address.repo, operations, commit_message=message, revision=address.revision)
        return str(done.commit_url)


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError:
        raise ConfigError("the hub needs huggingface_hub: pip install 'harvest_jax[hub]'") from None
    logging.set_verbosity_error()  # its lines about retries; what went wrong in the end is said once
    if not sys.stderr.isatty():
        disable_progress_bars()
    endpoint = os.environ.get("HF_ENDPOINT")
    return HfApi(endpoint=endpoint, library_name="harvest_jax", library_version=__version__)


def _fetch(repo: str, listed: Any, commit: str) -> Path:
    """One file of a commit, as the hub lists it; one that differs is fetched once more."""
    api = _api()
    for again in (False, True):
        path = Path(api.hf_hub_download(repo, listed.rfilename, revision=commit, force_download=again))
        same = listed.size is None or path.stat().st_size == listed.size
        if same and (listed.lfs is None or sha256_of(path) == listed.lfs.sha256):
            return path
    raise DataError(
        f"{HUB}{repo}: {printable(listed.rfilename, 120)} is not what the hub lists for commit {commit} (its size or "
        f"SHA-256 differs): it was damaged on the way or replaced; {_COMMAND}"
    )


def wanted_files(names: Sequence[str], address: HubAddress) -> list[str]:
    """The files of one checkpoint among those of a repository, the one with the weights (or their index) first.

    Raises:
      DataError: the named file is not there; none is named and there are several checkpoints, or none.
    """
    if address.file is not None:
        if address.file not in names:
            raise DataError(f"{HUB}{address.repo} has no file {address.file}")
        return [address.file]
    for _, config, choices in FOLDERS:
        for weights in choices:
            if config in names and weights in names:
                stem, _, ending = weights.removesuffix(".index.json").rpartition(".")
                parts = fnmatch.filter(names, f"{stem}-*-of-*.{ending}") if weights.endswith(".index.json") else []
                parts = [name for name in parts if "/" not in name]
                return [weights, *(name for name in (*DETAILS, TOKENIZER) if name in names), *parts]
    files = [name for name in names if name.endswith(_SINGLE)]
    if len(files) == 1:
        return files
    told = f"several: {', '.join(files[:4])}{', ...' if len(files) > 4 else ''}" if files else "none"
    raise DataError(
        f"{HUB}{address.repo} is not one model's folder; of files that may be a checkpoint it has {told}; name one: "
        f"{HUB}{address.repo}/FILE"
    )


@contextlib.contextmanager
def _one_line(text: str) -> Iterator[None]:
    """The library's errors as ours, in one line each; they have no common class but `Exception`."""
    try:
        yield
    except HarvestError:
        raise
    except Exception as error:
        described = _described(text, error)
        if described is None:  # a full disk, or something that is no fault of the hub
            raise
        raise described from error


def _described(text: str, error: Exception) -> HarvestError | None:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    answers = [getattr(one, "response", None) for one in chain]
    status = next((answer.status_code for answer in answers if answer is not None), None)
    where = f"{printable(text)}: the hub"
    if "HFValidationError" in kinds:
        return ConfigError(f"{printable(text)} names no repository: {str(error).splitlines()[0]}")
    if "GatedRepoError" in kinds:
        return HarvestError(
            f"{where} gives this repository only to those whom its owner lets in: ask on its page, and log in"
        )
    if status in (401, 403):
        return HarvestError(
            f"{where} refuses ({status}): there is no such repository, or it is not open to you; log in with `hf auth "
            "login`, or set HF_TOKEN to a token that may do this"
        )
    if status == 404:
        return DataError(f"{where} has no such repository, revision or file (404)")
    if status == 429:
        return HarvestError(f"{where} asks to wait (429, too many requests): {_COMMAND} later")
    if status is not None:
        return HarvestError(f"{where} answers with an error ({status}): {_COMMAND} later")
    if "OfflineModeIsEnabled" in kinds:
        return HarvestError(f"{where} is not asked while HF_HUB_OFFLINE is set")
    if kinds & {"TransportError", "LocalEntryNotFoundError"} or "Consistency check failed" in str(error):
        return HarvestError(f"{where} cannot be reached, or the connection broke off: {_COMMAND}")
    if isinstance(error, ValueError):  # an answer that it does not understand, a card that the hub refuses
        return HarvestError(f"{printable(text)}: huggingface_hub gives up: {one_line(error, 200)}")
    return None
