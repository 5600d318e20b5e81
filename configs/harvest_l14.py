r"""Post-pretraining of CLIP ViT-L/14: as `harvest_b16.py`, with the larger towers.

    harvest train --config configs/harvest_l14.py --workdir runs/l14 \\
        --config.data.shards=shards/webvid --config.model.init_from=weights/clip_l14

Hardware: 8 GPUs with 80 GB, or a TPU slice of 32 chips and up. 206 tokens a clip instead of 158 in a tower of 3.6 times
the parameters: about 4.5 times the arithmetic of B/16 for the same schedule. What to expect of this code on a given
machine has not been measured yet at this size. Whether the paper trained an L/14 is not known to us; ViCLIP's recipe
(InternVideo `run_freeze.sh`) is the nearest for this size, and uses a batch of 32,768 and a rate of 4e-4.
"""

from ml_collections import ConfigDict

from configs import harvest_b16


def get_config() -> ConfigDict:
    """Differences from `harvest_b16`."""
    config = harvest_b16.get_config()
    config.model.size = "L/14"
    config.mesh.fsdp = 8
    return config
