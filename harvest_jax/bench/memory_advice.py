"""Which config fields to change where a step does not fit the memory."""

from harvest_jax.config.run import RunConfig

CHUNK = 1024  # captions of a contrastive loss in parts


def memory_advice(run: RunConfig, devices: int, all_patches: bool = False) -> list[str]:
    """Overrides ("train.accumulate=4") that save memory and leave the batch, valid for the batch and the devices.

    Args:
      run: the checked config.
      devices: over which the batch is split.
      all_patches: it is the last stage, in which nothing is dropped, that does not fit.
    """
    train, remat, found = run.train, run.model.remat, []
    field = "unmasked_accumulate" if all_patches else "accumulate"
    parts = range(getattr(train, field) + 1, train.batch_size // devices + 1)
    accumulate = next((count for count in parts if train.batch_size % (count * devices) == 0), None)
    if accumulate:
        found.append(f"train.{field}={accumulate}")
    if remat != "full":
        found.append(f"model.remat={'dots' if remat == 'none' else 'full'}")
    if train.loss_chunk == 0 and train.batch_size > CHUNK:
        chunk = next(size for size in range(CHUNK, 0, -1) if train.batch_size % size == 0)
        found += [f"train.loss_chunk={chunk}"] if chunk > 1 else []
    return found
