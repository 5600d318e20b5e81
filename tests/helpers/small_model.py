"""A model small enough to compile in a second, of three frames, with all of its parts."""

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
