"""A loss that stays far above its start: training diverges, though every number is still finite."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

FACTOR, MARGIN = 3.0, 1.0  # a loss is far above its start from FACTOR x start + MARGIN on
WRITES = 5  # so many measurements in a row


class LossWatch:
    """Takes the measurements like a file of the log does; warns once."""

    def __init__(self, metrics: Path):
        """`metrics` is the run's log: an earlier attempt may have measured the start."""
        self._start = _first_loss(metrics)
        self._above: list[int] = []  # the steps of the measurements that were far above, in a row
        self._warned = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Look at the loss after a step, if it was measured."""
        loss = values.get("loss")
        if loss is None or not math.isfinite(loss):  # not finite: the run ends
            return
        if self._start is None:
            self._start = loss
        bound = FACTOR * self._start + MARGIN
        self._above = [*self._above, step] if loss > bound else []
        if len(self._above) == WRITES and not self._warned:
            self._warned = True
            log.warning(
                "the loss is %.4g at step %d, far above its start (%.4g), and has stayed above %.4g since step %d: "
                "training diverges. A lower train.learning_rate or train.clip_norm=1 may help, in another --workdir",
                *(loss, step, self._start, bound, self._above[0]),
            )

    def close(self) -> None:
        """Nothing is held back."""


def _first_loss(metrics: Path) -> float | None:
    try:
        with open(metrics, encoding="utf-8") as lines:
            for line in lines:
                loss = json.loads(line).get("loss")
                if loss is not None:
                    return float(loss)
    except (OSError, ValueError):  # a fresh run; a broken log is no reason to fail
        pass
    return None
