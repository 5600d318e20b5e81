"""What a run and the checkpoint that it resumes from must have in common."""

import json
from typing import Any

from harvest_jax.config.run import RunConfig


def identity(run: RunConfig, data_digest: str) -> dict[str, Any]:
    """What must be the same for a resumed run to be the same run.

    Devices, loader processes and logging may change, and so may what trades memory for time (so that a run that does
    not fit its last stage can go on): these change the numbers in their last digits alone.
    """
    fields = run.to_dict()
    for section, names in {
        "model": ("init_from", "attention", "remat"),
        "data": ("shards", "workers", "prefetch", "bad_records"),
        "train": (
            *("accumulate", "loss_chunk", "unmasked_accumulate"),
            *("log_every", "save_every", "keep_checkpoints", "keep_every"),
        ),
    }.items():
        for name in names:
            del fields[section][name]
    del fields["mesh"], fields["distributed"], fields["eval"], fields["log"]
    if run.objective.name == "post_pretraining":  # which reads no other field of this section
        fields["objective"] = {"name": run.objective.name}
    else:
        del fields["objective"]["classes"]  # the workdir keeps the classes themselves
    return json.loads(json.dumps(fields | {"data_digest": data_digest}))
