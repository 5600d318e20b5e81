"""Models small enough to compile in seconds, with all parts of a model."""

import dataclasses

from harvest_jax.model.config import DecoderConfig, HarvestConfig, TextConfig, VideoConfig

FRAMES = 3
SMALL = HarvestConfig(
    name="small",
    video=VideoConfig(image_size=8, patch_size=4, num_frames=FRAMES, width=16, layers=2, heads=2, embed_dim=12),
    text=TextConfig(vocab_size=40, context_length=10, width=16, layers=2, heads=2, embed_dim=12),
    decoder=DecoderConfig(layers=2, width=16, heads=2, memory_width=16, vocab_size=40),
)
TINY = dataclasses.replace(  # one layer of each kind: a step compiles in half the time
    SMALL,
    video=dataclasses.replace(SMALL.video, layers=1),
    text=dataclasses.replace(SMALL.text, layers=1),
    decoder=dataclasses.replace(SMALL.decoder, layers=1),
)
WIDE = HarvestConfig(  # products of matrices take most of the time; one layer of each kind compiles in seconds
    name="wide",
    video=VideoConfig(image_size=32, patch_size=8, num_frames=4, width=192, layers=1, heads=2, embed_dim=64),
    text=TextConfig(vocab_size=512, context_length=32, width=128, layers=1, heads=2, embed_dim=64),
    decoder=DecoderConfig(layers=1, width=128, heads=2, memory_width=192, vocab_size=512),
)
