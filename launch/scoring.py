"""Results of `harvest eval` that know what they were made of, so that they are made again when that has changed."""

import dataclasses
import functools
import hashlib
import json
import sys
from pathlib import Path

from harvest_jax.files import sha256_of, write_atomically

from .processes import run_one


@dataclasses.dataclass(frozen=True)
class Scoring:
    """One evaluation of one model. Beside its result lies `NAME.made_from`, a digest of what it follows from.

    Attributes:
      config: of `harvest eval`.
      model: a model folder.
      overrides: field=value.
      out: the result file.
    """

    config: str
    model: Path
    overrides: tuple[str, ...]
    out: Path

    @property
    def arguments(self) -> list[str]:
        """What `harvest eval` is called with."""
        options = [f"--config.{field}" for field in self.overrides]
        return ["--config", self.config, "--model", str(self.model), "--out", str(self.out), *options]

    @property
    def current(self) -> bool:
        """Whether the result is there, and made by these words of this model on these shards."""
        if not self.out.is_file() or not self._record.is_file() or not self.model.is_dir():
            return False
        return self._record.read_text("utf-8") == self._made_from()

    def make(self) -> int:
        """Run the evaluation; its exit status as shells report it."""
        self._record.unlink(missing_ok=True)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        status = run_one([sys.executable, "-m", "harvest_jax", "eval", *self.arguments])
        if not status:
            write_atomically(self._record, self._made_from().encode())
        return status

    @property
    def _record(self) -> Path:
        return self.out.with_suffix(".made_from")

    def _made_from(self) -> str:
        """Digest (hex) of the words, the model's files, and the shards: their checksums, or their path without them."""
        fields = dict(override.split("=", 1) for override in self.overrides)
        checksums = Path(fields.get("data.shards", "")) / f"checksums-{fields.get('data.split', '')}.txt"
        if checksums.is_file():
            fields["data.shards"] = _sha256(checksums, checksums.stat().st_mtime_ns)
        files = sorted(path for path in self.model.iterdir() if path.is_file())
        model = {path.name: _sha256(path, path.stat().st_mtime_ns) for path in files}
        return hashlib.sha256(json.dumps([self.config, fields, model], sort_keys=True).encode()).hexdigest()


@functools.cache
def _sha256(path: Path, changed: int) -> str:
    """Of a file's bytes, read once for each time that it was changed."""
    del changed
    return sha256_of(path)
