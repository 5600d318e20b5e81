"""Video-language models from CLIP by efficient post-pretraining, in JAX/Flax for TPU and GPU.

>>> model = harvest_jax.load("runs/demo/export")
>>> scores = model.encode_video(["a.mp4"]) @ model.encode_text(["a dog jumps over a log"]).T
"""

from typing import TYPE_CHECKING, Any

from harvest_jax.version import __version__

if TYPE_CHECKING:
    from harvest_jax.api import Model, load

__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the model code, and with it JAX, at its first use: commands that need none start faster."""
    if name in ("Model", "load"):
        from harvest_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'harvest_jax' has no attribute {name!r}")
