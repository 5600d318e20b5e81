"""What a user decides about the shards of a split."""

import dataclasses

from data_pipeline.decode.spec import TIME_LIMIT, DecodeSpec
from harvest_jax.errors import ConfigError

SHARD_MB = 256.0  # of a shard: few enough files, small enough to copy and to check


@dataclasses.dataclass(frozen=True)
class Options:
    """Everything that decides the bytes of a split, together with its rows.

    Attributes:
      spec: frames, their size, limits.
      shards: number of files; None: as many as `shard_mb` needs.
      shard_mb: size of a file in 10**6 bytes.
      time_limit: seconds of processor time to decode one clip.
    """

    spec: DecodeSpec = dataclasses.field(default_factory=DecodeSpec)
    shards: int | None = None
    shard_mb: float = SHARD_MB
    time_limit: float = TIME_LIMIT

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
          ConfigError: a number out of its range.
        """
        if self.shards is not None and self.shards < 1:
            raise ConfigError(f"--shards {self.shards}: at least 1")
        if not 1 <= self.shard_mb <= 1e5:
            raise ConfigError(f"--shard_mb {self.shard_mb:g} is outside 1..100000")
        if not self.time_limit > 0:
            raise ConfigError(f"--time_limit {self.time_limit:g}: more than 0 seconds")
