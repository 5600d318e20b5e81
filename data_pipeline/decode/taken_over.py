"""A clip taken over from the split that is being replaced: its stored frames, with the texts of the new row.

Runs inside a worker process, before the clip would be decoded.
"""

import dataclasses
from typing import Any

from data_pipeline.decode.content import digest_of
from data_pipeline.decode.packed_clip import read_array_record
from data_pipeline.media_paths import FilePart
from data_pipeline.shards.shard_format import encode, parse_record
from harvest_jax.errors import DataError


def taken_over(
    path: str, part: FilePart, start: float | None, end: float | None, earlier: dict[str, Any], record: dict[str, Any]
) -> tuple[dict[str, Any], bytes] | None:
    """The header and the bytes of the record that decoding the clip would give; None: it has to be decoded.

    Args:
      path, part, start, end: the clip, as for `digest_of`.
      earlier: of `prepare.earlier.EarlierSplit.find`.
      record: `id`, `captions` and `extra` of the new row.
    """
    try:
        if digest_of(path, part, start, end, earlier["reads"]) != earlier["content"]:
            return None
        stored = parse_record(read_array_record(earlier["shard"], earlier["record"]))
    except (DataError, OSError):
        return None
    if stored.id != record["id"]:
        return None
    texts = {"captions": tuple(record["captions"]), "extra": record["extra"]}
    known = {name: earlier[name] for name in ("reads", "content", "damaged")}
    return {"frames": len(stored.jpegs), "taken_over": True} | known, encode(dataclasses.replace(stored, **texts))
