"""The transformer block of all towers: CLIP's pre-norm block, scanned over the layers.

Parameters are float32; matrix products are computed in `dtype`, layer norms and the softmax in float32.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from harvest_jax.model.config import GATED, NORM_EPS
from harvest_jax.model.cpu_attention import attend_on_cpu

UNROLLED = 4  # up to so many layers the scan is unrolled: the demo's backward pass takes a fifth less time on a CPU
PRODUCT = "product"  # name of a matrix product, bias included, for activation recomputation
ATTENTION = "attention"  # collection of attention weights: computed only where a caller makes it mutable
_products = jax.checkpoint_policies.save_only_these_names(PRODUCT)


def _keep_products(primitive: Any, *arrays: Any, **parameters: Any) -> bool:
    """What `remat=dots` keeps in memory: matrix products, and the output of attention if that is a single kernel.

    A product is kept with its bias: a GPU adds the bias in the kernel of the product; adding it later is another pass.
    """
    return primitive.name.startswith("dot_product_attention_fwd") or _products(primitive, *arrays, **parameters)


# Activation recomputation: saves memory, costs compute. What a block keeps for the backward pass besides its input:
# "full" nothing; "dots" the matrix products, so that norms, the activation and, without a fused kernel, the inside of
# attention are recomputed.
REMAT = {"full": None, "dots": _keep_products}


def quick_gelu(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """x * sigmoid(1.702 x), CLIP's activation."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """The exact GELU, with the error function, torch's default."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """The GELU by its formula with tanh, SigLIP's."""
    return jax.nn.gelu(x, approximate=True)


_ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu, "gelu_tanh": gelu_tanh, GATED: jax.nn.silu}
# Cosines and sines of the angles by which queries and keys are turned; None: they are not.
Turn = tuple[Float[Array, "b n 1 a"], Float[Array, "b n 1 a"]] | None


class LayerNorm(nn.Module):
    """Layer norm over the last axis, computed in float32, returned in the input's dtype."""

    eps: float = NORM_EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        norm = nn.LayerNorm(epsilon=self.eps, dtype=jnp.float32, name="norm")
        nn.share_scope(self, norm)
        return norm(x.astype(jnp.float32)).astype(x.dtype)


class Projection(nn.Module):
    """`nn.DenseGeneral` over the last axes, computed as a product of two matrices.

    DenseGeneral multiplies tensors of more axes; XLA transposes their gradients on a CPU, which took a tenth of the
    video tower's time. Parameters have DenseGeneral's names, shapes and initial values.

    With `split`, each entry of the first axis of `features` is a product of its own, and a list is returned: slicing
    one large product would copy it, forward and backward.
    """

    features: tuple[int, ...]
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer
    inputs: int = 1  # axes of x that are contracted
    split: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Any:
        rest, inner = x.shape[: -self.inputs], x.shape[-self.inputs :]
        flat = math.prod(inner), math.prod(self.features)
        start = lambda key, shape: self.kernel_init(key, flat, jnp.float32).reshape(shape)  # noqa: E731
        kernel = self.param("kernel", start, (*inner, *self.features))
        bias = self.param("bias", nn.initializers.zeros, self.features)
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        x, parts = x.reshape(-1, flat[0]), self.features[0] if self.split else 1
        kernel, bias = kernel.reshape(flat[0], parts, -1), bias.reshape(parts, -1)
        shape = (*rest, *self.features[self.split :])
        made = [checkpoint_name(x @ kernel[:, i] + bias[i], PRODUCT).reshape(shape) for i in range(parts)]
        return made if self.split else made[0]


def attend(
    query: Float[Array, "b m h d"],
    key: Float[Array, "b n h d"],
    value: Float[Array, "b n h d"],
    implementation: str = "xla",
    causal: bool = False,
) -> Float[Array, "b m h d"]:
    """Scaled dot-product attention with the softmax in float32, by XLA, by cuDNN's fused kernel, or as suits a CPU.

    cuDNN's backward pass needs even numbers of queries and keys: a row of zeros is added to an odd number, and an
    added key is masked. (JAX up to 0.10 at least refuses every odd number in training. cuDNN needs even numbers only
    with a bias; there is none here.)

    Args:
      query: [b, m, heads, head_dim].
      key: [b, n, heads, head_dim].
      value: as `key`.
      implementation: "xla", "cudnn" or "cpu" (`attend_on_cpu`).
      causal: query i sees keys up to i.

    Returns:
      [b, m, heads, head_dim] of the query's dtype.
    """
    if implementation == "cpu":
        return attend_on_cpu(query, key, value, causal)
    queries, keys = query.shape[1], key.shape[1]
    lengths: dict[str, Any] = {}
    if implementation == "cudnn" and (queries % 2 or keys % 2):
        query, key, value = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (query, key, value))
        lengths["key_value_seq_lengths"] = jnp.full(query.shape[:1], keys, jnp.int32)
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=causal,
        implementation=implementation,  # type: ignore[call-overload]
        **lengths,
    )
    return mixed[:, :queries]


def turned(x: Float[Array, "b n h d"], turn: Turn) -> Float[Array, "b n h d"]:
    """Each head's channel i and channel i + d/2 turned by the token's angle i, in float32; as it is without angles."""
    if turn is None:
        return x
    (cos, sin), half, wide = turn, x.shape[-1] // 2, x.astype(jnp.float32)
    a, b = jax.lax.slice_in_dim(wide, 0, half, axis=-1), jax.lax.slice_in_dim(wide, half, None, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention; queries, keys and values share one parameter array.

    If the collection `ATTENTION` is mutable, the weights of the first token (the class token of a video) over all
    tokens are stored in it: float32 [b, heads, n]. Those of all tokens would not fit in memory for a long video.
    """

    heads: int
    dtype: DTypeLike
    causal: bool = False
    implementation: str = "xla"
    inner_norm: float | None = None  # epsilon of a norm before the last matrix; None: no norm

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], turn: Turn = None) -> Float[Array, "b n d"]:
        width = x.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        shape = (3, self.heads, width // self.heads)
        query, key, value = Projection(shape, self.dtype, init, split=True, name="qkv")(x)  # b n heads head_dim each
        query, key = turned(query, turn), turned(key, turn)
        if self.is_mutable_collection(ATTENTION) and not self.is_initializing():
            scores = jnp.einsum("bhd,bnhd->bhn", query[:, 0], key, preferred_element_type=jnp.float32)
            weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5)
            self.sow(ATTENTION, "first_token", weights, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        mixed = attend(query, key, value, self.implementation, self.causal)
        if self.inner_norm is not None:  # over all heads together
            mixed = LayerNorm(self.inner_norm, name="norm")(mixed.reshape(x.shape)).reshape(mixed.shape)
        return Projection((width,), self.dtype, init, inputs=2, name="out")(mixed)


class CrossAttention(nn.Module):
    """Multi-head attention from text positions to video tokens."""

    heads: int
    dtype: DTypeLike
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "b m d"], memory: Float[Array, "b n d"]) -> Float[Array, "b m d"]:
        width = x.shape[-1]
        init = nn.initializers.xavier_uniform()
        shape = (self.heads, width // self.heads)
        query = Projection(shape, self.dtype, init, name="query")(x)
        key = Projection(shape, self.dtype, init, name="key")(memory)
        value = Projection(shape, self.dtype, init, name="value")(memory)
        mixed = attend(query, key, value, self.implementation)
        return Projection((width,), self.dtype, init, inputs=2, name="out")(mixed)


class AttentionPooling(nn.Module):
    """tokens [B, N, W] -> [B, W]: a learned query attends to all tokens, then x += mlp(norm(x)).

    SigLIP's MAP head (big_vision `models/vit.py`, MAPHead): there is no norm before the attention, and the query itself
    is not added to what it gathers.
    """

    heads: int
    dtype: DTypeLike
    implementation: str
    activation: str
    mlp_width: int
    eps: float

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        batch, count, width = tokens.shape
        init, shape = nn.initializers.xavier_uniform(), (self.heads, width // self.heads)
        query = self.param("query_embedding", nn.initializers.normal(width**-0.5), (width,))
        kernel = self.param("qkv_kernel", init, (width, 3, *shape)).reshape(width, 3, width).astype(self.dtype)
        bias = self.param("qkv_bias", nn.initializers.zeros, (3, *shape)).reshape(3, width).astype(self.dtype)
        asked = (query.astype(self.dtype) @ kernel[:, 0] + bias[0]).reshape(1, 1, *shape)
        flat = tokens.reshape(-1, width)
        key, value = ((flat @ kernel[:, i] + bias[i]).reshape(batch, count, *shape) for i in (1, 2))
        mixed = attend(jnp.broadcast_to(asked, (batch, 1, *shape)), key, value, self.implementation)
        x = Projection((width,), self.dtype, init, inputs=2, name="out")(mixed)
        mlp = Mlp(self.dtype, 1, self.activation, self.mlp_width, name="mlp")
        return (x + mlp(LayerNorm(self.eps, name="norm")(x)))[:, 0]


class Mlp(nn.Module):
    """Two linear layers with an activation between them; the hidden width is by default four times the width.

    GATED: the activation of another linear layer is multiplied with the first one's result.
    """

    dtype: DTypeLike
    depth: int = 1  # layers of the tower, for CLIP's initial scale of the second matrix
    activation: str = "quick_gelu"
    hidden: int = 0  # 0: four times the width
    inner_norm: float | None = None  # epsilon of a norm before the last matrix; None: no norm

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        width = x.shape[-1]
        wide = nn.initializers.normal((2 * width) ** -0.5)
        back = nn.initializers.normal(width**-0.5 * (2 * self.depth) ** -0.5)
        inside, activate = (self.hidden or 4 * width,), _ACTIVATIONS[self.activation]
        hidden = Projection(inside, self.dtype, wide, name="c_fc")(x)
        if self.activation == GATED:
            hidden = activate(Projection(inside, self.dtype, wide, name="c_gate")(x)) * hidden
        else:
            hidden = activate(hidden)
        if self.inner_norm is not None:
            hidden = LayerNorm(self.inner_norm, name="norm")(hidden)
        return Projection((width,), self.dtype, back, name="c_proj")(hidden)


class Block(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)). Returns (x, None), as `nn.scan` needs it."""

    heads: int
    layers: int
    dtype: DTypeLike
    causal: bool
    implementation: str
    activation: str
    mlp_width: int = 0  # 0: four times the width
    eps: float = NORM_EPS
    inner_norms: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], turn: Turn) -> tuple[Float[Array, "b n d"], None]:
        inner = self.eps if self.inner_norms else None
        attention = SelfAttention(self.heads, self.dtype, self.causal, self.implementation, inner, name="attn")
        x = x + attention(LayerNorm(self.eps, name="ln_1")(x), turn)
        mlp = Mlp(self.dtype, self.layers, self.activation, self.mlp_width, inner, name="mlp")
        return x + mlp(LayerNorm(self.eps, name="ln_2")(x)), None


def stack(block: type[nn.Module], layers: int, remat: str, unroll: bool) -> Any:
    """A module of `layers` blocks in sequence; its parameters have a leading axis over the layers.

    Args:
      block: a module `(x, fixed) -> (x, None)`.
      layers: their number.
      remat: "none", or a key of `REMAT`.
      unroll: compile every block on its own. Otherwise one block is compiled, in a loop, which copies what the backward
        pass needs into arrays over all layers. Up to `UNROLLED` layers are always unrolled.
    """
    unroll = unroll or layers <= UNROLLED
    if remat != "none":  # in a loop XLA cannot merge the recomputation with the forward pass
        block = nn.remat(block, prevent_cse=unroll, policy=REMAT[remat])
    return nn.scan(
        block,
        variable_axes={"params": 0, ATTENTION: 0},
        split_rngs={"params": True},
        length=layers,
        in_axes=nn.broadcast,
        unroll=layers if unroll else 1,
    )


class Transformer(nn.Module):
    """`layers` blocks; see `stack`."""

    layers: int
    heads: int
    dtype: DTypeLike
    causal: bool = False
    implementation: str = "xla"
    remat: str = "none"
    unroll: bool = False
    activation: str = "quick_gelu"
    mlp_width: int = 0
    eps: float = NORM_EPS
    inner_norms: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], turn: Turn = None) -> Float[Array, "b n d"]:
        blocks = stack(Block, self.layers, self.remat, self.unroll)
        x, _ = blocks(
            self.heads,
            self.layers,
            self.dtype,
            self.causal,
            self.implementation,
            self.activation,
            self.mlp_width,
            self.eps,
            self.inner_norms,
            name="blocks",
        )(x, turn)
        return x
