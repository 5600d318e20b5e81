"""What training minimises: the config names one of these objectives, and the step takes it."""

from harvest_jax.config.run import RunConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.objectives.labelled import Classification, VideoQuestions
from harvest_jax.train.objectives.objective import Gather, Inputs, Objective
from harvest_jax.train.objectives.post_pretraining import PostPretraining

_OBJECTIVES: dict[str, type[PostPretraining] | type[Classification] | type[VideoQuestions]] = {
    "post_pretraining": PostPretraining,
    "classification": Classification,
    "videoqa": VideoQuestions,
}


def objective_of(model: Harvest, run: RunConfig, gather: Gather = lambda tree: tree) -> Objective:
    """The objective that `config.objective` names.

    Args:
      model: whose outputs it reads.
      run: the checked config.
      gather: makes arrays that are split over devices whole on each.
    """
    return _OBJECTIVES[run.objective.name](model, run, gather)


def inputs_of(run: RunConfig) -> Inputs:
    """The arrays that the objective reads of a batch, besides patches and positions."""
    return _OBJECTIVES[run.objective.name].inputs(run)
