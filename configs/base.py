r"""Every field of a training run, with a comment each. Other configs import this one and change some fields.

harvest train --config base --workdir runs/x --config.data.shards=shards/webvid \
    --config.model.init_from=weights/clip_b16
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """All fields with their defaults, which `docs/method.md` explains (ours where the paper's are unknown)."""
    config = ConfigDict()
    config.seed = 0  # of random parameters, the order of the data, which patches are dropped and which words are masked
    config.distributed = False  # several processes: call jax.distributed.initialize() first (the launch scripts set it)

    config.model = model = ConfigDict()
    model.size = "B/16"  # demo, world, B/32, B/16, L/14, L/14@336, H/14
    model.num_frames = 8  # frames of a clip that the video tower sees
    model.keep_ratio = 0.1  # share of the video patches that the video tower sees in training; 1.0 drops none
    model.drop_scope = "clip"  # where patches are kept. clip: anywhere in the clip; frame: equally many in each frame;
    # tube: at the same positions in all frames; motion: more often where frames differ
    model.temporal_init = "zeros"  # table of frames of an image model. zeros: the model is unchanged at the start;
    # ramp: frames differ from the start (docs/decisions.md)
    model.decoder_layers = 4  # cross-attention blocks of the masked-word decoder; 0: none (needs train.mlm_weight=0)
    model.dtype = "bfloat16"  # of the computation: float32 or bfloat16; parameters, norms, softmax, losses: float32
    model.attention = "auto"  # cudnn (fused kernels), xla, or auto: cudnn on GPUs in bfloat16,
    # blocks of heads on a CPU, else xla
    model.remat = "none"  # activation recomputation: saves memory, costs compute. none;
    # dots: all but matrix products; full: all
    model.init_from = ""  # model folder to start from, of `harvest weights import` or `harvest train`; empty: random

    config.text = text = ConfigDict()
    text.length = 32  # tokens that a caption is cut or padded to; CLIP's text tower takes up to 77, SigLIP's exactly 64
    text.mask_ratio = 0.15  # share of a caption's word tokens that are masked
    text.contrastive = "masked"  # caption of the contrastive loss: masked (one pass of the text tower) or clean (two)

    config.data = data = ConfigDict()
    data.shards = ""  # folder written by `harvest shards`; several, separated by commas, are mixed
    data.weights = ()  # weights of the mixed folders, e.g. (3, 1); empty: each in proportion to its number of clips
    data.split = "train"  # of the shards
    data.sampling = "random"  # which frame of each of num_frames equal segments: random or middle
    data.crop = "random"  # square crop: random or center
    data.min_scale = 0.5  # random crop: smallest area, as a share of the largest square's area
    data.flip = False  # mirror half of the clips; wrong where captions say left or right
    data.workers = 0  # loader processes; -1: one for each CPU core; 0: threads of the training process
    data.prefetch = 2  # batches that are prepared ahead
    data.bad_records = 0  # Damaged records to tolerate. Each is replaced by the next record; one more stops the run.

    config.train = train = ConfigDict()
    train.steps = 1000
    train.batch_size = 256  # clips of a step, on all devices together; each is a negative of all others
    train.accumulate = 1  # parts that a batch is computed in, one after another: saves memory; all negatives stay
    train.learning_rate = 1e-5  # its peak: linear warm-up, then `decay` to 0
    train.warmup_steps = 100  # of the learning rate
    train.decay = "cosine"  # how the learning rate falls after the warm-up: cosine or linear
    train.weight_decay = 0.2  # on matrices only; not on biases, norms, embeddings and logit_scale
    train.b1 = 0.9  # AdamW
    train.b2 = 0.98
    train.eps = 1e-6
    train.clip_norm = 0.0  # largest global norm of the gradient; 0: no limit
    train.contrastive_loss = "softmax"  # softmax (CLIP's) or sigmoid (SigLIP's, which adds a logit_bias)
    train.contrastive_weight = 1.0  # of the contrastive loss in the sum; 0: without
    train.loss_chunk = 0  # captions that the contrastive loss handles at a time: saves memory; 0: the whole batch
    train.mlm_weight = 1.0  # of the masked-word loss in the sum; 0: without
    train.unmasked_steps = 0  # the last steps of `steps`, in which the video tower sees all patches
    train.unmasked_learning_rate = 1e-7  # peak learning rate of those steps
    train.unmasked_accumulate = 1  # `accumulate` of those steps; all patches take over 1 / keep_ratio times the memory
    train.lr_multipliers = (("text/.*", 0.0), (".*", 1.0))  # first regular expression that matches a parameter's
    # path; 0 freezes the parameter
    train.log_every = 20  # steps between two lines of metrics
    train.save_every = 1000  # steps between two checkpoints
    train.keep_checkpoints = 2  # the newest ones; older ones are deleted, except the best (eval.metric)
    train.keep_every = 0  # checkpoints that are never deleted: at multiples of it, such as 20 * save_every; 0: none

    config.objective = objective = ConfigDict()  # what is learnt; configs/finetune/ has configs of fine-tuning
    objective.name = "post_pretraining"  # post_pretraining: contrastive loss and masked words, by the weights of
    # `train`; classification: labels; videoqa: answers to questions
    objective.head = "linear"  # of classification, on the video tower. linear: on the class token; attentive: a
    # cross-attention block over all tokens
    objective.label_column = "label"  # column of the shards that holds the labels of classification
    objective.classes = ""  # file of class names, or of answers; empty: those that the training split has
    objective.max_classes = 0  # only the most frequent answers, the others are left out of the loss; 0: all
    objective.prompt = "Question: {question} Answer: {mask}"  # text around a question
    objective.answer_from = "head"  # head: a classifier over the answers; mask: the word at {mask}, by the decoder
    objective.dropout = 0.5  # of the answers' classifier

    config.eval = eval = ConfigDict()  # scores while the run trains; they change nothing in the training
    eval.every = 0  # evaluate after so many steps or epochs, before the first step and after the last; 0: never
    eval.unit = "steps"  # steps, or epochs (passes over as many clips as the shards hold)
    eval.config = ""  # the words after `harvest eval --config`: "eval/retrieval --config.data.shards=DIR
    # --config.data.split=val"; several: "['WORDS', 'WORDS']"
    eval.metric = ""  # the score by which the best checkpoint is kept, such as t2v/R@1; empty: none is
    eval.export = "last"  # which checkpoint becomes the model folder export/: last or best
    eval.allow_missing = False  # evaluate although videos are not there: they count as wrong

    config.log = log = ConfigDict()  # where measurements go besides metrics.jsonl; none of it stops a run
    log.sinks = "auto"  # auto (TensorBoard, where it is installed), or names with commas: tensorboard, wandb, mlflow,
    # trackio; empty: none

    config.mesh = mesh = ConfigDict()
    mesh.dcn_data = (
        -1
    )  # TPU slices (or GPU machines) between which only gradients and embeddings travel; -1: the slices
    mesh.data = -1  # devices over which the batch of a slice is split; -1: all devices of the slice / fsdp
    mesh.fsdp = 1  # devices over which parameters and optimizer state are split; 1: not split
    return config
