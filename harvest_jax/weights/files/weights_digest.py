"""The digest of a model folder's weights: SHA-256 of the file, in config.json, compared whenever the weights are read.

Whatever flips a bit of a number leaves a file that can be read: of such a file nothing else would tell.
"""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.files import sha256_of

log = logging.getLogger(__name__)

DIGEST = "weights_sha256"  # key in config.json


def check_digest(weights: Path, config: Mapping[str, Any]) -> None:
    """Compare a file of weights with the digest in the config.json beside it; without one, a warning says so.

    Raises:
      DataError: as `digest_holds`.
    """
    if not digest_holds(weights, config):
        _say_once(weights.parent)


@functools.cache
def _say_once(folder: Path) -> None:
    log.warning(
        "%s has no digest of its weights, as versions up to 0.1.0 wrote it: damage would not be noticed; "
        "`harvest weights import` writes a folder with one",
        folder,
    )


def digest_holds(weights: Path, config: Mapping[str, Any]) -> bool:
    """True if the file has the digest that config.json says; False if it says none. The whole file is read.

    Raises:
      DataError: it has another one, or cannot be read.
    """
    if DIGEST not in config:
        return False
    try:
        found = sha256_of(weights)
    except OSError as error:
        raise DataError(f"{weights} cannot be read: {error.strerror or error}") from error
    if found != config[DIGEST]:
        raise DataError(
            f"{weights} was altered or damaged: its SHA-256 is not the one in config.json; get the folder again, or "
            f"remove {DIGEST} from config.json if you changed the file on purpose"
        )
    return True
