"""CLIP to video-language model by efficient post-pretraining: JAX/Flax, for TPU and GPU.

>>> model = harvest_jax.load("runs/demo/export")
>>> scores = model.encode_video(["a.mp4"]) @ model.encode_text(["a dog jumps over a log"]).T
"""

from typing import TYPE_CHECKING, Any

from harvest_jax.version import __version__

if TYPE_CHECKING:
    from harvest_jax.api import Model, load

__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the model code (and jax) when it is first asked for, so that the shard commands start quickly."""
    if name in ("Model", "load"):
        from harvest_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'harvest_jax' has no attribute {name!r}")
