"""The columns of a table: protocols, each with what tells it from the others of the same benchmark."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.evaluate.report.result_files import ResultFile
from harvest_jax.terminal import printable

_MOST_SHOWN = 6  # differing fields


@dataclasses.dataclass(frozen=True)
class ProtocolColumn:
    """One protocol.

    Attributes:
      title: names of the set.
      task: of `METRICS`.
      protocol_hash: its identity.
      differs: the fields in which it differs from other protocols of the same set and task, with its own values.
    """

    title: str
    task: str
    protocol_hash: str
    differs: tuple[str, ...]


def protocol_columns(results: Sequence[ResultFile]) -> list[ProtocolColumn]:
    """Every protocol once, by task, then by the name of the set."""
    first: dict[str, ResultFile] = {}
    names: dict[str, set[str]] = {}
    for result in results:
        first.setdefault(result.protocol_hash, result)
        names.setdefault(result.protocol_hash, set()).add(printable(result.set_name, 60))
    tasks = list(METRICS)
    columns = []
    for found, result in first.items():
        # The name of a file is not part of the protocol, so that one protocol can have several.
        alike = [one for one in first if first[one].task == result.task and names[one] & names[found]]
        differs = differing([first[one].protocol for one in alike])[alike.index(found)]
        columns.append(ProtocolColumn(" / ".join(sorted(names[found])), result.task, found, differs))
    return sorted(columns, key=lambda column: (tasks.index(column.task), column.title, column.differs))


def differing(protocols: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """For each protocol the fields in which the protocols differ, as "frames=4"; digests are cut short."""
    flat = [_flat(protocol) for protocol in protocols]
    fields = sorted({name for one in flat for name in one})
    apart = [name for name in fields if len({one.get(name) for one in flat}) > 1]
    return [
        (
            *(f"{printable(name)}={_shown(one.get(name))}" for name in apart[:_MOST_SHOWN]),
            *([f"{len(apart) - _MOST_SHOWN} more"] if len(apart) > _MOST_SHOWN else []),
        )
        for one in flat
    ]


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Path of each leaf -> its JSON."""
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, part in value.items():
            found |= _flat(part, f"{name}.{key}" if name else str(key))
        return found
    return {name: json.dumps(value, sort_keys=True)}


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    text = printable(json.loads(value)) if value.startswith('"') else printable(value)
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if is_digest else printable(text, 60)
