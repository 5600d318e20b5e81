"""A small world for `harvest search`: films of one colour, and a model that embeds colours and the words for them."""

import hashlib
import os
import types

import numpy as np

from harvest_jax.encode import write_video

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "grey": (90, 90, 90)}


def film(path, colour, frames=4):
    """Write a film of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.full((frames, 32, 48, 3), COLOURS[colour], np.uint8))
    return path


def names(found):
    """The names of the videos that a search printed, best first."""
    return [os.path.basename(line.split("\t")[2]) for line in found.out.splitlines()]


class ColourModel:
    """Embeds a clip as its mean colour and words as the colour they name; counts the clips."""

    num_frames = 2
    config = types.SimpleNamespace(
        video=types.SimpleNamespace(image_size=32),
        text=types.SimpleNamespace(context_length=8, fixed_length=False),
        preprocessing=types.SimpleNamespace(resize="crop"),
    )
    tokenizer = types.SimpleNamespace(encode=str.split, around=2)
    embedded = 0

    def __init__(self, folder):
        self.digest = hashlib.sha256(str(folder).encode()).hexdigest()

    def encode_clips(self, clips):
        assert clips.shape[1:] == (2, 32, 32, 3)
        ColourModel.embedded += len(clips)
        return self._unit(clips.mean(axis=(1, 2, 3)))

    def encode_text(self, texts):
        return self._unit(np.array([COLOURS[texts.split()[0]]], np.float32))

    @staticmethod
    def _unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
