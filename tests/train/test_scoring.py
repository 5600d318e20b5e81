"""When a run is scored."""

from unittest.mock import create_autospec

import pytest

from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.errors import ConfigError
from harvest_jax.train.metrics import MetricWriter
from harvest_jax.train.preemption import StopSignal
from harvest_jax.train.program import TrainProgram
from harvest_jax.train.scoring import Scoring, scored_by
from tests.helpers.train_runs import make_run

EVAL = {"eval__config": "eval/retrieval", "train__steps": 11}


def due(clips=100, **changes):
    run = make_run(**EVAL | changes)
    program = create_autospec(TrainProgram, instance=True, run=run)
    parts = [create_autospec(kind, instance=True) for kind in (Checkpointer, MetricWriter, StopSignal)]
    scoring = Scoring(program, {}, clips, None, *parts)
    return [step for step in range(12) if scoring.due(step)]


def test_steps_are_scored_before_the_first_every_so_many_and_at_the_end():
    assert due(eval__every=4) == [0, 4, 8, 11]
    assert due(eval__every=100) == [0, 11]


def test_epochs_are_passes_over_all_clips():
    assert due(clips=48, eval__every=1, eval__unit="epochs") == [0, 3, 6, 9, 11]
    assert due(clips=40, eval__every=1, eval__unit="epochs") == [0, 3, 5, 8, 10, 11]  # 16 clips a step: 48, 80, 128
    assert due(clips=40, eval__every=2, eval__unit="epochs") == [0, 5, 10, 11]
    assert due(clips=5, eval__every=1, eval__unit="epochs") == list(range(12))


def test_a_checkpoint_notes_how_its_run_is_evaluated():
    assert scored_by(make_run()) is None
    run = make_run(**EVAL, eval__every=4, eval__metric="t2v/R@1")
    assert scored_by(run) == {"config": ["eval/retrieval"], "metric": "t2v/R@1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__every": 4}, "eval.config is empty"),
        ({"eval__every": 4, "eval__config": "['eval/retrieval', ' ']"}, "eval.config is empty"),
        ({"eval__config": "eval/retrieval"}, "eval.config has no use with eval.every=0"),
        ({"eval__export": "best"}, "eval.export=best has no use with eval.every=0"),
        ({"eval__every": 4, "eval__config": "eval/retrieval", "eval__export": "best"}, "needs eval.metric"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_run(**changes)
