"""From frames and token ids to embeddings and answers: what `harvest_jax.load` runs and what StableHLO files hold.

Matrix products are computed in full float32. By default a TPU would round their factors to bfloat16 and an NVIDIA GPU
to TF32, and embeddings would depend on the machine in the third digit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from harvest_jax.input.patches import patchify
from harvest_jax.model.harvest import Harvest, Params, l2_normalise

PRECISION = "highest"


Cells = Int[np.ndarray, " n"]


def patches_at(
    clips: UInt8[Array, "b t s s 3"], patch_size: int, cells: Cells | None
) -> tuple[UInt8[Array, "b n p"], Int[Array, "b n"]]:
    """The patches at some cells of the (frame, row, column) grid, the same ones of each clip, and these cells.

    None is every cell.
    """
    patches = patchify(clips, patch_size)
    if cells is None:
        cells = np.arange(patches.shape[1], dtype=np.int32)
    else:
        patches = patches[:, cells]
    return patches, jnp.broadcast_to(cells, patches.shape[:2])  # type: ignore[return-value]


def video_embedding(
    harvest: Harvest, params: Params, clips: UInt8[Array, "b t s s 3"], cells: Cells | None = None
) -> Float[Array, "b d"]:
    """Embed clips of the model's own size; an image model embeds each frame and averages the normalised embeddings.

    Args:
      harvest: the model.
      params: its parameters; only "video" is used.
      clips: RGB; T is the model's number of frames, or any number for an image model.
      cells: patches that are looked at, of an image model those of each frame; None is all.

    Returns:
      float32, L2-normalised.
    """
    video = harvest.config.video
    with jax.default_matmul_precision(PRECISION):
        if video.num_frames > 1:
            return l2_normalise(harvest.encode_video(params, *patches_at(clips, video.patch_size, cells))["embedding"])
        count, frames = clips.shape[:2]
        single = clips.reshape(count * frames, 1, *clips.shape[2:])
        embedded = l2_normalise(harvest.encode_video(params, *patches_at(single, video.patch_size, cells))["embedding"])
        return l2_normalise(embedded.reshape(count, frames, -1).mean(axis=1))


def class_attention(
    harvest: Harvest, params: Params, clips: UInt8[Array, "b t s s 3"], cells: Cells | None = None
) -> Float[Array, "b weights"]:
    """Where the class token looks in every layer; that of an image model in each frame by itself.

    Args:
      harvest, params, clips, cells: as for `video_embedding`.

    Returns:
      float32 [B, layers * T * h * w], mean over the heads, 0 at patches that are not looked at.
    """
    video, count = harvest.config.video, len(clips)
    with jax.default_matmul_precision(PRECISION):
        clips = clips.reshape(-1, video.num_frames, *clips.shape[2:])  # of an image model: single frames
        patches, positions = patches_at(clips, video.patch_size, cells)
        weights = harvest.class_attention(params, patches, positions)
    grid = jnp.zeros((*weights.shape[:2], video.num_frames * video.cells_per_frame))
    grid = grid.at[..., positions[0]].set(weights)
    return grid.reshape(count, -1, *grid.shape[1:]).swapaxes(1, 2).reshape(count, -1)


def text_embedding(harvest: Harvest, params: Params, ids: Int[Array, "b l"]) -> Float[Array, "b d"]:
    """Embed captions.

    Args:
      harvest: the model.
      params: its parameters; only "text" is used.
      ids: int32 token ids, at most as many as the model's context length.

    Returns:
      float32, L2-normalised.
    """
    with jax.default_matmul_precision(PRECISION):
        return l2_normalise(harvest.encode_text(params, ids)["embedding"])


def answer_logits(
    harvest: Harvest,
    params: Params,
    clips: UInt8[Array, "b t s s 3"],
    ids: Int[Array, "b l"],
    slot: Int[Array, " b"],
    cells: Cells | None = None,
) -> Float[Array, "b vocab"]:
    """The decoder's logits for one hidden token of each text, given its clip.

    Args:
      harvest: a model with a decoder.
      params: its parameters.
      clips: RGB, of the model's own size and number of frames.
      ids: int32 token ids; the one at `slot` is replaced by the mask embedding.
      slot: int32, position in the text.
      cells: as for `video_embedding`.

    Returns:
      float32 logits over the vocabulary.
    """
    with jax.default_matmul_precision(PRECISION):
        memory = harvest.encode_video(params, *patches_at(clips, harvest.config.video.patch_size, cells))["tokens"]
        masked = jnp.arange(ids.shape[1])[None, :] == slot[:, None]
        tokens = harvest.encode_text(params, ids, masked)["tokens"]
        query = jnp.take_along_axis(tokens, slot[:, None, None], axis=1)
        return harvest.decode(params, query, memory)[:, 0]


def class_logits(
    harvest: Harvest, params: Params, clips: UInt8[Array, "b t s s 3"], cells: Cells | None = None
) -> Float[Array, "b classes"]:
    """The logits of a head on the video tower; an image model's are the mean over the frames.

    Args:
      harvest: a model with such a head.
      params: its parameters; "video" and "head" are used.
      clips: RGB; T is the model's number of frames, or any number for an image model.
      cells: as for `video_embedding`.

    Returns:
      float32 logits over the head's classes.
    """
    video, count = harvest.config.video, len(clips)
    with jax.default_matmul_precision(PRECISION):
        clips = clips.reshape(-1, video.num_frames, *clips.shape[2:])
        logits = harvest.classify(params, harvest.encode_video(params, *patches_at(clips, video.patch_size, cells)))
        return logits.reshape(count, -1, logits.shape[-1]).mean(axis=1)


def head_answer_logits(
    harvest: Harvest,
    params: Params,
    clips: UInt8[Array, "b t s s 3"],
    ids: Int[Array, "b l"],
    slot: Int[Array, " b"],
    cells: Cells | None = None,
) -> Float[Array, "b classes"]:
    """The logits of a head for answers; arguments as for `answer_logits`, float32 logits over the head's answers."""
    with jax.default_matmul_precision(PRECISION):
        video = harvest.encode_video(params, *patches_at(clips, harvest.config.video.patch_size, cells))
        masked = jnp.arange(ids.shape[1])[None, :] == slot[:, None]
        return harvest.answer(params, video, harvest.encode_text(params, ids, masked), slot)
