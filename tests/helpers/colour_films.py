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


def scenes(path, *parts):
    """Write a film of several colours, each shown for some seconds, 8 pictures a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = [COLOURS[colour] for colour, seconds in parts for _ in range(round(8 * seconds))]
    write_video(path, np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), 32, 48, 3)))
    return path


def moments(found):
    """(name, start, end) of what a search printed, best first."""
    rows = [line.split("\t") for line in found.out.splitlines()]
    return [(os.path.basename(row[2]), float(row[3]), float(row[4])) for row in rows]


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
        texts = [texts] if isinstance(texts, str) else texts
        named = [[COLOURS[word] for word in text.split() if word in COLOURS] for text in texts]
        return self._unit(np.array([np.mean(colours or [COLOURS["grey"]], axis=0) for colours in named], np.float32))

    @staticmethod
    def _unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
