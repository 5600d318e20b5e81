"""Keep an index current while files come, change and go."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from harvest_jax.errors import ConfigError
from harvest_jax.search.folder import is_media

QUIET_MS = 2000  # no further change for so long, at most five times as long, and the folder is read


def changes(folder: Path) -> Iterator[None]:
    """One item for each time that videos or pictures below a folder changed, came or went.

    Raises:
      ConfigError: the library is not installed.
    """
    try:
        import watchfiles
    except ImportError:
        raise ConfigError("--watch needs the library watchfiles: pip install 'harvest_jax[search]'") from None

    def counts(_: watchfiles.Change, path: str) -> bool:
        return is_media(Path(path).name) or not Path(path).suffix  # a folder that was moved

    for _ in watchfiles.watch(
        folder,
        watch_filter=counts,
        debounce=5 * QUIET_MS,
        step=QUIET_MS,
        ignore_permission_denied=True,
    ):
        yield


def keep_current(rounds: Iterable[None], bring_up_to_date: Callable[[], None]) -> None:
    """Call a function for every round; the first is before any change, so that none between is missed."""
    bring_up_to_date()
    for _ in rounds:
        bring_up_to_date()
