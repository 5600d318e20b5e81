"""What the log says of the speed of a run: clips a second, MFU, the wait for data, memory."""

import contextlib
import functools
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import ConfigError
from harvest_jax.files import write_atomically
from harvest_jax.machine import resident_bytes
from harvest_jax.train.events import Events
from harvest_jax.train.flops import step_flops
from harvest_jax.train.matmul import matmul_rate
from harvest_jax.train.program import TrainProgram

log = logging.getLogger(__name__)

RATE_SECONDS = 0.3  # of measuring the device
HOST_EVERY = 30.0  # seconds between two looks at the host's memory: the kernel walks all of its pages


class Meter:
    """Counts the steps since the last line of measurements."""

    def __init__(self, program: TrainProgram, events: Events, step: int, rate: float = 0.0) -> None:
        """Begin after `step` steps.

        Args:
          program: of the run.
          events: counts the time.
          step: that the attempt begins with.
          rate: FLOP/s of one device (`device_rate`); 0: not known, then there is no MFU.
        """
        self._program = program
        self._events = events
        self._rate = rate
        self._since = self._step = step
        self._flops = 0.0
        self._flops_of_clip = functools.cache(lambda *of: _flops(program, *of))
        self._host = float("-inf"), 0  # when the host's memory was looked at, and what it was

    @contextlib.contextmanager
    def step(self, all_patches: bool, arrays: Mapping[str, Any], compiles: bool) -> Iterator[None]:
        """Around the call of a step's program with a batch; `compiles`: the call compiles it first."""
        with self._events.spend("compile") if compiles else contextlib.nullcontext():
            yield
        self._step += 1
        self._events.step = self._step
        if self._rate:
            tokens = arrays["ids"].shape[1] if "ids" in arrays else 0
            self._flops += self._program.run.train.batch_size * self._flops_of_clip(all_patches, tokens)

    def measurements(self) -> dict[str, float]:
        """Of the steps since the last call; an evaluation in between does not count. Asks no device for a result.

        Returns:
          clips_per_s, step_ms, data_wait (share of the time); mfu (share of the devices' measured rate), if it is
          known; device_bytes (most in use since the start, of the fullest device of this process), where the device
          tells it; host_bytes (this process and its loader processes).
        """
        taken = self._step - self._since
        spent = self._events.mark("steps", first=self._since, step=self._step)
        elapsed = sum(spent.values()) - spent.get("evaluate", 0.0)
        clips = taken * self._program.run.train.batch_size
        values = {
            "clips_per_s": clips / elapsed,
            "step_ms": 1e3 * elapsed / taken,
            "data_wait": spent.get("data_wait", 0.0) / elapsed,
        }
        if self._rate and self._flops:
            values["mfu"] = self._flops / elapsed / (self._rate * self._program.mesh.size)
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
        if max(peaks):
            values["device_bytes"] = float(max(peaks))
        if time.monotonic() - self._host[0] > HOST_EVERY:
            self._host = time.monotonic(), resident_bytes()
        self._since, self._flops = self._step, 0.0
        return values | {"host_bytes": float(self._host[1])}


def device_rate(workdir: Workdir, dtype: str) -> float:
    """FLOP/s of the default device (`matmul_rate`), measured at the first start in a workdir on this kind of device.

    Returns:
      the rate; 0 if it cannot be measured, with a warning: a training does not fail of it.
    """
    kind = jax.local_devices()[0].device_kind
    known: dict[str, dict[str, float]] = {}
    try:
        known = json.loads(workdir.rates.read_bytes())
        return float(known[kind][dtype])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        rate = matmul_rate(dtype, RATE_SECONDS)
        kinds = known if isinstance(known, dict) else {}
        kinds = kinds | {kind: (kinds.get(kind) or {}) | {dtype: rate}}
        write_atomically(workdir.rates, json.dumps(kinds, indent=2).encode() + b"\n")
    except (OSError, TypeError, jax.errors.JaxRuntimeError) as error:
        log.warning("there is no MFU: the rate of the device was not measured: %s", error)
        return 0.0
    return rate


def _flops(program: TrainProgram, all_patches: bool, tokens: int) -> float:
    """FLOPs of one clip in a step whose captions have so many tokens; 0 where they are not known."""
    try:
        return step_flops(program.run, program.config, all_patches, tokens or None)["total"]
    except ConfigError:  # another objective
        return 0.0
