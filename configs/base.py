"""Every field of a run, one comment each. Other configs import this one and override.

harvest train --config configs/base.py --workdir runs/x --config.data.shards=shards/webvid
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The whole tree with the defaults that `docs/method.md` explains (our choices where the paper's are unknown)."""
    config = ConfigDict()
    config.seed = 0  # of the parameters, the data order, the dropping and the masking
    config.distributed = False  # call jax.distributed.initialize() first (the launch scripts set it)

    config.model = model = ConfigDict()
    model.size = "B/16"  # demo, B/32, B/16, L/14, L/14@336, H/14
    model.num_frames = 8  # frames a clip
    model.keep_ratio = 0.1  # share of the video patches that the tower sees in training; 1.0 drops nothing
    model.drop_scope = "clip"  # clip: over all patches; frame: as many in each; tube: same cells in all; motion: where
    # frames differ, patches are kept more often
    model.temporal_init = "zeros"  # zeros: an imported CLIP stays exact; ramp: see docs/decisions.md
    model.decoder_layers = 4  # cross-attention blocks of the masked-word decoder; 0 with train.mlm_weight=0: none
    model.dtype = "bfloat16"  # of the computation; parameters, norms, softmax and losses stay float32
    model.attention = "auto"  # cudnn (its fused kernels) or xla; auto: cudnn on GPUs in bfloat16
    model.remat = "none"  # computed again in the backward pass, against memory: none, dots (all but products), full
    model.init_from = ""  # folder of a model (harvest train writes one) to start from; empty: random

    config.text = text = ConfigDict()
    text.length = 32  # tokens a caption is cut or padded to (CLIP's table has 77)
    text.mask_ratio = 0.15  # share of the words' tokens that are masked
    text.contrastive = "masked"  # caption that meets the video: masked (one text pass) or clean (two)

    config.data = data = ConfigDict()
    data.shards = ""  # folder written by `harvest shards`; several, with commas between them, are mixed
    data.weights = ()  # their shares of every batch, e.g. (3, 1); empty: each in proportion to its clips
    data.split = "train"
    data.sampling = "random"  # frame within each of num_frames equal segments: random or middle
    data.crop = "random"  # random or center square crop of the model's image size
    data.min_scale = 0.5  # random crop: least share of the largest square's area; 1.0: all of it
    data.flip = False  # mirror half of the clips (captions with left and right forbid it)
    data.workers = 0  # loader processes; -1: one for each core; 0 reads in threads of this process
    data.prefetch = 2  # batches made ahead
    data.bad_records = 0  # damaged records that a run gets over, the next one in their place; one more ends it

    config.train = train = ConfigDict()
    train.steps = 1000
    train.batch_size = 256  # clips over all devices; each is a negative of all others
    train.accumulate = 1  # pieces a batch is computed in, against memory; all negatives stay
    train.learning_rate = 1e-5  # peak; linear warm-up, then cosine to 0
    train.warmup_steps = 100
    train.weight_decay = 0.2  # on matrices only: no biases, norms, embeddings, logit_scale
    train.b1 = 0.9
    train.b2 = 0.98
    train.eps = 1e-6
    train.clip_norm = 0.0  # global gradient norm limit; 0 leaves it
    train.contrastive_loss = "softmax"  # softmax: CLIP's; sigmoid: SigLIP's, which adds a logit_bias
    train.contrastive_weight = 1.0
    train.loss_chunk = 0  # captions that the contrastive loss looks at together, against memory; 0: all of the batch
    train.mlm_weight = 1.0
    train.unmasked_steps = 0  # of `steps`, the last ones, in which the tower sees all patches
    train.unmasked_learning_rate = 1e-7  # their peak
    train.unmasked_accumulate = 1  # their pieces: all patches take 1 / keep_ratio times the memory and more
    train.lr_multipliers = (("text/.*", 0.0), (".*", 1.0))  # first regex that fits a parameter's path; 0 freezes it
    train.log_every = 20  # steps
    train.save_every = 1000  # steps
    train.keep_checkpoints = 2

    config.mesh = mesh = ConfigDict()
    mesh.data = -1  # devices along the batch; -1: all that fsdp leaves
    mesh.fsdp = 1  # devices over which parameters and optimizer state are split
    return config
