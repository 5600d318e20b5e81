"""Evaluations of videos of one colour each, by a model that sees colours and reads their names."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from data_pipeline.shards import shard_format
from harvest_jax import cli
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.pixels.frame_sampling import Sampling
from tests.helpers.shard_files import write_records

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs" / "eval"
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (220, 220, 20)}


MIDDLES = Sampling()


class DecoderInThisProcess:
    """`VideoDecoder` without its worker processes, which have tests of their own and take a second to start."""

    def __init__(self, num_frames, short_side, workers=1, fit="", sampling=MIDDLES):
        self.spec = DecodeSpec(num_frames=num_frames, short_side=short_side, fit=fit)
        self.sampling = sampling

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def decode_all(self, spans):
        for clip in self.decode_views(spans):
            yield clip if isinstance(clip, VideoRejected) else clip.frames

    def decode_views(self, spans):
        for path, start, end in spans:
            try:
                yield decode_clip(Path(path), self.spec, start, end, self.sampling)
            except VideoRejected as fault:
                yield fault


class ColourModel:
    """Sees the mean colour of all frames; reads colour words; answers with the colour that is nearest."""

    name = "colours"
    num_frames = 4
    logit_scale = 20.0
    digest = "colours"

    def __init__(self):
        self.origin = {"made_by": "a test"}
        self.config = SimpleNamespace(
            to_dict=lambda: {"name": "colours"},
            video=SimpleNamespace(image_size=16, num_frames=4),
            text=SimpleNamespace(context_length=24, fixed_length=False),
            decoder=SimpleNamespace(),
            preprocessing=SimpleNamespace(resize="crop"),
        )
        self.tokenizer = Tokenizer()
        self.clips_seen = 0
        self.batches = []

    @staticmethod
    def unit(x):
        x = np.asarray(x, np.float32) - 100
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def encode_video(self, videos):
        assert videos.dtype == np.uint8
        assert videos.shape[1:] == (self.frames_expected, 16, 16, 3)
        real = int(videos.any(axis=(1, 2, 3, 4)).sum())  # the others fill up the batch
        self.clips_seen += real
        self.batches.append(real)
        return self.unit(videos.mean(axis=(1, 2, 3)))

    frames_expected = 4

    def encode_clips(self, clips):
        return self.encode_video(clips)

    def encode_text(self, texts):
        found = [[colour for word, colour in COLOURS.items() if word in text] or [(120, 90, 101)] for text in texts]
        return self.unit([np.mean(colours, axis=0) for colours in found])

    def answer_logits(self, videos, ids, slot):
        assert np.all(ids[np.arange(len(ids)), slot] == 0)
        self.batches.append(len(videos))
        logits = np.zeros((len(videos), self.tokenizer.vocab_size), np.float32)
        cosines = self.unit(videos.mean(axis=(1, 2, 3))) @ self.unit(list(COLOURS.values())).T
        for i, word in enumerate(COLOURS):
            logits[:, self.tokenizer.encode(word)[0]] = cosines[:, i]
        return logits


def manifest(videos, tmp_path, rows, name="set.jsonl"):
    """A manifest in a folder of its own; the videos are found through data.root."""
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [f"--config.data.manifest={path}", f"--config.data.root={videos}"]


def evaluate(task, words, tmp_path, code=0):
    out = tmp_path / "out" / "result.json"
    assert (
        cli.main(["eval", "--config", str(CONFIGS / f"{task}.py"), "--model", "m", "--out", str(out), *words]) == code
    )
    return json.loads(out.read_text("utf-8")) if code == 0 else None


def captioned(*names):
    return [{"video": f"{name}.mp4", "caption": f"a {name} square"} for name in names]


def write_shards(folder, videos, rows, num_frames=8, short_side=32):
    """Real shards of the split "test": (id, video, captions, extra)."""
    raws = []
    for name, video, captions, extra in rows:
        clip = decode_clip(videos / f"{video}.mp4", DecodeSpec(num_frames=num_frames, short_side=short_side))
        jpegs = tuple(shard_format.encode_jpeg(frame) for frame in clip.frames)
        seconds = tuple(clip.seconds.tolist())
        record = shard_format.Record(name, captions, jpegs, seconds, clip.width, clip.height, extra)
        raws.append(shard_format.encode(record))
    write_records(folder, "test", raws)
    return [f"--config.data.shards={folder}"]


def question(name, asked, answer, **more):
    return {"id": f"{name} {asked}", "video": f"{name}.mp4", "question": asked, "answer": answer, **more}
