r"""Post-pretraining of CLIP ViT-L/14: as `harvest_b16.py`, with the larger towers.

    harvest train --config harvest_l14 --workdir runs/l14 \
        --config.data.shards=shards/webvid --config.model.init_from=weights/clip_l14

Hardware: 8 GPUs with 80 GB, or a TPU slice of at least 32 chips. The video tower sees 206 tokens of a clip instead of
158 and has 3.6 times the parameters: about 4.5 times the arithmetic of B/16 for the same schedule. This code has not
been measured at this size yet. We do not know whether the paper trained an L/14. ViCLIP's recipe (InternVideo
`run_freeze.sh`) is the nearest for this size; it uses a batch of 32,768 and a learning rate of 4e-4.
"""

from ml_collections import ConfigDict

from configs import harvest_b16


def get_config() -> ConfigDict:
    """`harvest_b16` with the changes for this size."""
    config = harvest_b16.get_config()
    config.model.size = "L/14"
    config.mesh.fsdp = 8
    return config
