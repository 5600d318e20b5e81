"""A loss that stays far above its start is said in one line, and nothing else is."""

import json
import logging
import math

from harvest_jax.train.loss_watch import WRITES, LossWatch


def warned(caplog, losses, metrics):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        watch = LossWatch(metrics)
        for step, loss in enumerate(losses, 1):
            watch.write(step, {"loss": loss, "grad_norm": 1.0})
            watch.write(step, {"eval/x": 1000.0})
    return caplog.messages


def test_once_and_only_if_it_stays(caplog, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    (message,) = warned(caplog, [9.2, 8.0, *[680.0] * 40], metrics)
    assert message.startswith("the loss is 680 at step 7, far above its start (9.2), and has stayed above 28.6 since")
    assert not warned(caplog, [9.2, *[680.0] * (WRITES - 1), 7.0] * 3, metrics)
    assert not warned(caplog, [0.01, *[0.9] * 40], metrics)
    assert not warned(caplog, [9.2, *[math.nan] * 40], metrics)


def test_the_start_is_that_of_the_first_attempt(caplog, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(f"{json.dumps({'step': step, 'loss': loss})}\n" for step, loss in ((1, 9.2), (2, 680))))
    (message,) = warned(caplog, [680.0] * 10, metrics)
    assert "far above its start (9.2)" in message
