"""FLOPs of one clip in one training step, computed from the sizes: matrix products, a multiply-add as two.

Counted are the products of the step's program, forward and backward. The gradient of weights counts only where they
train; the gradient of activations only where they depend on something that trains (so none for the pixels; the frozen
text tower has one, because its input holds the learned mask vector); logits of words only at masked positions. A loop
over layers runs one program for all of them: if any layer trains, the gradient of every layer's input counts. A short
tower is unrolled on all devices, and its first layer's input has no gradient if no embedding trains. (GPUs and TPUs
unroll all towers; of a long tower they compute up to one layer's share less than is counted.) Causal attention counts
as the whole square, as XLA computes it. Not counted: norms, activations, softmax, gathers, the optimizer.

`tests/helpers/matrix_flops.py` counts the products of the traced program. Tests compare the two, and both with the cost
analysis of the compiled program.
"""

import dataclasses
import functools
from collections.abc import Callable

from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.input.patches import num_kept
from harvest_jax.input.text_masking import num_slots
from harvest_jax.model.blocks import UNROLLED
from harvest_jax.model.config import GATED, HarvestConfig
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.train.freeze import multiplier

Trains = Callable[[str], bool]  # whether anything under a path ("video/transformer/blocks/attn") trains


def step_flops(
    run: RunConfig, config: HarvestConfig, all_patches: bool = False, text_tokens: int | None = None
) -> dict[str, float]:
    """FLOPs of one clip's share of a training step.

    Args:
      run: batch size, keep ratio, losses, what trains.
      config: the sizes (`train.model_of_run.model_config(run)`).
      all_patches: the last stage, in which nothing is dropped.
      text_tokens: of a caption, where the padding of a batch is cut; None: `text.length`.

    Returns:
      "video", "text", "decoder", "contrastive" (the share of one clip in the products of the whole batch's embeddings,
      which grows with the batch) and "total", their sum, which an MFU refers to. "recomputed" is what
      rematerialisation, accumulation and the contrastive loss compute a second time, not included in "total", with
      XLA's attention. (With a fused kernel `remat=dots` keeps its result; the scores that the kernel recomputes count
      in neither.)
    """
    if run.objective.name != "post_pretraining":
        raise ConfigError(f"objective.name={run.objective.name}: FLOPs are known of post_pretraining alone")
    video, text, train = config.video, config.text, run.train
    keep = 1.0 if all_patches else run.model.keep_ratio
    kept = num_kept(video.num_frames, video.cells_per_frame, keep, run.model.drop_scope)
    length = run.text.length if text_tokens is None else text_tokens
    slots = num_slots(run.text.length, run.text.mask_ratio)
    words = train.mlm_weight > 0 and slots > 0 and config.decoder is not None
    matched = train.contrastive_weight > 0  # whether there is a contrastive loss
    clean = words and run.text.contrastive == "clean"
    start = _Flow(_trains(config, train.lr_multipliers), run.model.remat)

    frames = start.dense("video/patch_embedding", kept, video.patch_dim, video.width)
    for name in ("class_embedding", "spatial_embedding", "temporal_embedding", "ln_pre"):
        frames = frames.parameter(f"video/{name}")
    seen = video.tokens_beside + kept
    gated = video.activation == GATED
    frames = frames.blocks("video/transformer/blocks", seen, video.width, video.layers, video.mlp_width, gated)
    # The decoder reads these tokens; the contrastive loss what is pooled of them after a norm, projected.
    video_head = frames.parameter("video/ln_post").continued()
    if video.pooling == "attention":
        inside = video.pooling_mlp_width or video.mlp_width
        video_head = video_head.pooling("video/pooling", seen, video.width, inside, train.batch_size, gated)
    if video.projection:
        video_head = video_head.dense("video/proj", 1, video.width, video.embed_dim)

    captions = start.parameter("text/token_embedding").parameter("text/positional_embedding")
    blocks = "text/transformer/blocks", length, text.width, text.layers, text.mlp_width
    masked = (captions.parameter("mask_embedding") if words else captions).blocks(*blocks).parameter("text/ln_final")
    # One pass through the text tower serves both losses, unless the contrastive text is clean.
    text_pass = captions.blocks(*blocks).parameter("text/ln_final") if clean else masked
    text_head = text_pass.continued().dense("text/text_projection", 1, text.width, text.embed_dim)

    answers = start
    if words:
        answers = answers.decoder(config, slots, seen, queries=masked.graded, memory=frames.graded)

    row = 2.0 * train.batch_size * video.embed_dim  # one clip's row in one product of all embeddings
    parts = {
        "video": frames.flops + matched * video_head.flops,
        "text": masked.flops + matched * (clean * text_pass.flops + text_head.flops),
        "decoder": answers.flops,
        "contrastive": matched * row * (1 + video_head.graded + text_head.graded),
    }
    recomputed = frames.again + masked.again + matched * clean * text_pass.again + answers.again
    if matched:  # the backward pass recomputes the similarities; the sigmoid loss also computes them for the ranks
        graded = video_head.graded or text_head.graded or start.trains("logit_scale")
        recomputed += row * (graded + (train.contrastive_loss == "sigmoid"))
    if matched and (train.unmasked_accumulate if all_patches else train.accumulate) > 1:
        # All parts are embedded first; then the towers run again where they need a gradient or words are predicted.
        recomputed += (video_head.graded or words) * frames.forward
        recomputed += (text_head.graded or (words and not clean)) * text_pass.forward
    return parts | {"total": sum(parts.values()), "recomputed": recomputed}


def _trains(config: HarvestConfig, table: tuple[tuple[str, float], ...]) -> Trains:
    """Whether anything at or under a path trains, by the table of multipliers."""
    trained = [path for path in parameter_shapes(config) if multiplier(path, table) > 0]
    return functools.cache(lambda under: any(path == under or path.startswith(f"{under}/") for path in trained))


@dataclasses.dataclass(frozen=True)
class _Flow:
    """Activations at one point of the model: FLOPs so far, and whether their gradient is needed."""

    trains: Trains
    remat: str = "none"
    forward: float = 0.0
    backward: float = 0.0
    again: float = 0.0  # recomputed in the backward pass
    graded: bool = False  # whether they depend on something that trains

    @property
    def flops(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward

    def continued(self) -> "_Flow":
        """The same activations, with FLOPs counted from 0."""
        return dataclasses.replace(self, forward=0.0, backward=0.0, again=0.0)

    def parameter(self, path: str) -> "_Flow":
        """A table or a norm: no product, but if it trains, a gradient is needed up to here."""
        return dataclasses.replace(self, graded=self.graded or self.trains(path))

    def dense(self, path: str, rows: int, inner: int, outer: int) -> "_Flow":
        """A product with a matrix of parameters: rows x inner times inner x outer."""
        product = 2.0 * rows * inner * outer
        return self._with(product, product * (self.trains(f"{path}/kernel") + self.graded)).parameter(path)

    def attention(self, rows: int, width: int) -> "_Flow":
        """Self-attention, all heads: scores and mixture are two products; the backward pass has four."""
        product = 2.0 * rows * rows * width
        return self._with(2 * product, 4 * product * self.graded)

    def _with(self, forward: float, backward: float) -> "_Flow":
        return dataclasses.replace(self, forward=self.forward + forward, backward=self.backward + backward)

    def pooling(self, path: str, rows: int, width: int, mlp_width: int, batch_size: int, gated: bool) -> "_Flow":
        """Attention pooling (`model.blocks.AttentionPooling`): one query, the same of all clips, asks `rows` tokens."""
        kernel = self.trains(f"{path}/qkv_kernel")
        asks = self.trains(f"{path}/query_embedding")
        product = 2.0 * width * width
        flow = self._with(product / batch_size, product / batch_size * (kernel + asks))
        flow = flow._with(2 * rows * product, 2 * rows * product * (kernel + self.graded))  # keys and values
        graded = self.graded or kernel or asks
        scores = 2.0 * rows * width
        flow = dataclasses.replace(flow._with(2 * scores, 4 * scores * graded), graded=graded)
        return flow.dense(f"{path}/out", 1, width, width).feed_forward(path, 1, width, mlp_width, "norm", gated)

    def block(self, path: str, rows: int, width: int, mlp_width: int, gated: bool) -> "_Flow":
        """One transformer block (`model.blocks.Block`)."""
        qkv = self.parameter(f"{path}/ln_1").dense(f"{path}/attn/qkv", rows, width, 3 * width)
        mixed = qkv.attention(rows, width).parameter(f"{path}/attn/norm")
        flow = mixed.dense(f"{path}/attn/out", rows, width, width)
        flow = flow.feed_forward(path, rows, width, mlp_width, gated=gated)
        again = 0.0
        if self.remat == "full" and flow.graded:  # all but the last product, whose result no derivative needs
            again = flow.forward - self.forward - 2.0 * rows * width * (mlp_width or 4 * width)
        if self.remat == "dots":  # scores for the softmax, the mixture for the gradient of the matrix after it
            again = 2.0 * rows * rows * width * (qkv.graded + self.trains(f"{path}/attn/out/kernel"))
        return dataclasses.replace(flow, again=flow.again + again)

    def feed_forward(
        self, path: str, rows: int, width: int, mlp_width: int = 0, norm: str = "ln_2", gated: bool = False
    ) -> "_Flow":
        """The second half of a block; `mlp_width` 0 is four times the width."""
        inside = mlp_width or 4 * width
        normed = self.parameter(f"{path}/{norm}")
        flow = normed.dense(f"{path}/mlp/c_fc", rows, width, inside)
        if gated:  # of the same tokens, whose gradient two products give then
            gate = normed.continued().dense(f"{path}/mlp/c_gate", rows, width, inside)
            graded = flow.graded or gate.graded
            flow = dataclasses.replace(flow._with(gate.forward, gate.backward), graded=graded)
        return flow.parameter(f"{path}/mlp/norm").dense(f"{path}/mlp/c_proj", rows, inside, width)

    def blocks(self, path: str, rows: int, width: int, layers: int, mlp_width: int, gated: bool = False) -> "_Flow":
        """All blocks of a tower. In a loop the first block has the backward pass of the others."""
        flow = self if layers <= UNROLLED else self.parameter(path)
        for _ in range(layers):
            flow = flow.block(path, rows, width, mlp_width, gated)
        return flow

    def decoder(self, config: HarvestConfig, slots: int, rows: int, queries: bool, memory: bool) -> "_Flow":
        """The masked-word decoder (`model.mlm_decoder`): if any layer trains, every layer's input has its gradient.

        Args:
          config: of a model with a decoder.
          slots: masked words of a caption.
          rows: video tokens that they attend to.
          queries, memory: whether the tokens of the text tower and of the video tower need gradients.
        """
        assert config.decoder is not None
        width, head = config.decoder.width, "decoder/blocks/cross_attn"
        video_tokens = dataclasses.replace(self, graded=memory).parameter("decoder/ln_video")
        video_tokens = video_tokens.dense("decoder/video_proj", rows, config.decoder.memory_width, width)
        flow = dataclasses.replace(self, graded=queries).parameter("decoder/ln_text")
        flow = flow.dense("decoder/text_proj", slots, width, width)
        flow = dataclasses.replace(flow, graded=flow.graded or video_tokens.graded or self.trains("decoder/blocks"))
        product = 2.0 * slots * rows * width
        for _ in range(config.decoder.layers):
            before = flow.forward
            query = flow.parameter("decoder/blocks/ln_1").dense(f"{head}/query", slots, width, width)
            normed = video_tokens.continued().parameter("decoder/blocks/ln_memory")
            key, value = (normed.dense(f"{head}/{name}", rows, width, width) for name in ("key", "value"))
            scores = query.graded or key.graded
            backward = product * (query.graded + key.graded + value.graded + scores)
            flow = query._with(2 * product + key.forward + value.forward, backward + key.backward + value.backward)
            flow = dataclasses.replace(flow, graded=scores or value.graded)
            looked = flow.graded
            flow = flow.dense(f"{head}/out", slots, width, width).feed_forward("decoder/blocks", slots, width)
            again = 0.0  # as in `block`
            if self.remat == "full" and flow.graded:
                again = flow.forward - before - 8.0 * slots * width * width
            if self.remat == "dots":
                again = product * (looked + self.trains(f"{head}/out/kernel"))
            flow = dataclasses.replace(flow, again=flow.again + again)
        flow = flow.parameter("decoder/ln_final").dense("decoder/head_dense", slots, width, width)
        flow = flow.parameter("decoder/ln_head")
        flow = flow.dense("decoder/head_vocab", slots, width, config.decoder.vocab_size)
        return flow._with(video_tokens.forward, video_tokens.backward)
