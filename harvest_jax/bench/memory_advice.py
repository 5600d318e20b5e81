"""Which config fields to change where a step does not fit the memory."""

from harvest_jax.config.run import RunConfig

CHUNK = 1024  # captions of a contrastive loss in parts


def memory_advice(run: RunConfig, devices: int) -> list[str]:
    """Overrides ("train.accumulate=4") that save memory and leave the batch, valid for the batch and the devices."""
    train, remat, found = run.train, run.model.remat, []
    parts = range(train.accumulate + 1, train.batch_size // devices + 1)
    accumulate = next((count for count in parts if train.batch_size % (count * devices) == 0), None)
    if accumulate:
        found.append(f"train.accumulate={accumulate}")
    if remat != "full":
        found.append(f"model.remat={'dots' if remat == 'none' else 'full'}")
    if train.loss_chunk == 0 and train.batch_size > CHUNK:
        chunk = next(size for size in range(CHUNK, 0, -1) if train.batch_size % size == 0)
        found += [f"train.loss_chunk={chunk}"] if chunk > 1 else []
    return found
