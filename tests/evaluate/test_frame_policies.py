"""What a model sees by each policy, in views and crops, from files and from shards; what protocols say of it."""

import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode import pool
from harvest_jax.config.files import load_dict
from harvest_jax.errors import ConfigError, NonFiniteError
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.clips.embeddings import embed_videos
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.clips.frame_readers import ClipFrames, VideoSpan
from harvest_jax.evaluate.scores.cosines import unit_vectors
from tests.helpers.colour_evaluation import CONFIGS, ColourModel, DecoderInThisProcess, evaluate, manifest, write_shards
from tests.helpers.video_files import numbered_frames, read_number, write_video

ROWS = [{"video": f"{name}.mp4", "caption": f"a {name} square"} for name in ("long", "short", "brief")]
SIDE = 48


class NumberModel(ColourModel):
    """Keeps the numbers in the frames that it saw, and the kind of call."""

    def __init__(self, model_frames):
        super().__init__()
        self.config.video.image_size, self.config.video.num_frames = SIDE, model_frames
        self.seen, self.calls = [], set()

    def _embed(self, clips):
        assert clips.shape[2:] == (SIDE, SIDE, 3)
        real = [clip for clip in clips if clip.any()]  # black ones fill up a call
        self.batches.append(len(real))
        self.seen += [[read_number(frame) for frame in clip] for clip in real]
        return self.unit(clips.mean(axis=(1, 2, 3)))

    def encode_video(self, videos):
        self.calls.add("repeats frames up to the model's number")
        return self._embed(videos)

    def encode_clips(self, clips):
        self.calls.add("as they are")
        return self._embed(clips)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Ten pictures a second: 7.5, 3.0 and 0.2 seconds, twice as wide as high."""
    folder = tmp_path_factory.mktemp("numbered")
    for name, first, count in (("long", 0, 75), ("short", 100, 30), ("brief", 200, 2)):
        write_video(folder / f"{name}.mp4", numbered_frames(300, SIDE, 2 * SIDE)[first : first + count])
    return folder


@pytest.fixture(params=[4])
def model(request, monkeypatch):
    number_model = NumberModel(request.param)
    monkeypatch.setattr(pool, "VideoDecoder", DecoderInThisProcess)
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: number_model)
    return number_model


image_model = pytest.mark.parametrize("model", [1], indirect=True)
DEFAULT = [[9, 28, 46, 65], [103, 111, 118, 126], [200, 200, 201, 201]]
SEEN = {
    "": DEFAULT,
    "frames=2": [[18, 56], [107, 122], [200, 201]],
    "sampling=linspace_inclusive": [[0, 24, 49, 74], [100, 109, 119, 129], [200, 200, 200, 201]],
    "sampling=fps": [[0, 20, 40, 70], [100, 110, 120], [200]],
    "sampling=fps sampling_fps=0.5": [[0, 20, 40, 60], [100, 120], [200]],
    "sampling=fps frames=2": [[0, 70], [100, 120], [200]],
    "views=2": [
        *[[4, 23, 42, 60], [14, 32, 51, 70]],
        *[[101, 109, 116, 124], [105, 113, 120, 128]],
        *[[200, 200, 201, 201], [200, 200, 201, 201]],
    ],
    "sampling=fps views=2": [[0, 20, 40, 70], [5, 25, 45, 65], [100, 110, 120], [105, 115, 125], [200], [201]],
}


@pytest.mark.parametrize("fields", SEEN)
def test_the_frames_of_files(numbered, model, tmp_path, fields):
    words = [*manifest(numbered, tmp_path, ROWS), *(f"--config.{field}" for field in fields.split())]
    result = evaluate("retrieval", words, tmp_path)
    assert sorted(model.seen) == sorted(SEEN[fields])
    assert model.calls == {"repeats frames up to the model's number"}
    views = 2 if "views" in fields else 1
    different = [len({n for seen in SEEN[fields] if seen[0] // 100 == clip for n in seen}) for clip in range(3)]
    assert result["inputs"]["distinct_frames"]["max"] == max(different)
    assert result["inputs"]["distinct_frames"]["mean"] == pytest.approx(np.mean(different))
    wanted = (2 if "frames=2" in fields else 4) * views
    fewer = sum(count < wanted for count in different)
    if fewer:
        note = f"{fewer} of 3 clips have fewer than {wanted} different frames"
        end = f" at {'0.5' if '0.5' in fields else '1'} a second" if "fps" in fields else ": some repeat"
        assert f"{note}{end}" in result["warnings"]
    else:
        assert not any("different frames" in warning for warning in result["warnings"])


@image_model
def test_an_image_model_sees_each_frame_once_and_as_many_as_wanted(numbered, model, tmp_path):
    words = [*manifest(numbered, tmp_path, ROWS), "--config.sampling=fps", "--config.frames=12"]
    result = evaluate("retrieval", words, tmp_path)
    assert sorted(model.seen) == [list(range(0, 80, 10)), [100, 110, 120], [200]]
    assert model.calls == {"as they are"}
    assert result["protocol"]["frames"] == 12


def test_three_crops_are_the_ends_and_the_middle_of_the_length(numbered, model, tmp_path):
    words = manifest(numbered, tmp_path, ROWS[:1])
    evaluate("retrieval", [*words, "--config.crops=3"], tmp_path)
    assert model.seen[:2] == [DEFAULT[0], DEFAULT[0]]  # left and centre hold the number, right does not
    assert model.seen[2] != DEFAULT[0]
    assert len(model.seen) == 3


STORED_SEEN = {  # of eight middles of 75: 4, 14, 23, 32, 42, 51, 60, 70
    "": [[14, 32, 51, 70]],
    "sampling=linspace_inclusive": [[4, 23, 42, 70]],
    "sampling=fps": [[4, 23, 42, 70]],  # nearest to 0, 2, 4 and 7 s
    "views=2": [[4, 23, 42, 60], [14, 32, 51, 70]],
}


@pytest.mark.parametrize("fields", STORED_SEEN)
def test_the_frames_of_shards_are_those_of_the_stored_ones(numbered, model, tmp_path, fields):
    words = write_shards(tmp_path / "shards", numbered, [("m", "long", ("red",), {})], short_side=SIDE)
    result = evaluate("retrieval", [*words, *(f"--config.{field}" for field in fields.split())], tmp_path)
    assert sorted(model.seen) == STORED_SEEN[fields]
    policy = fields.partition("sampling=")[2] or "segment_middle"
    source = result["protocol"]["frame_source"]
    assert source["sampling"] == f"{policy} of the stored frames, which are segment_middle of the clip"
    assert source.get("views") == (2 if "views" in fields else None)


def test_three_crops_of_stored_frames(numbered, model, tmp_path):
    words = write_shards(tmp_path / "shards", numbered, [("m", "long", ("red",), {})], short_side=SIDE)
    result = evaluate("retrieval", [*words, "--config.crops=3"], tmp_path)
    assert model.seen[:2] == [STORED_SEEN[""][0]] * 2
    assert model.seen[2] != STORED_SEEN[""][0]
    assert len(model.seen) == 3
    assert result["protocol"]["frame_source"]["crops"] == 3
    assert result["inputs"]["distinct_frames"]["max"] == 4


def test_a_default_protocol_says_nothing_of_views_crops_and_resizing(numbered, model, tmp_path):
    words = manifest(numbered, tmp_path, ROWS)
    said = evaluate("retrieval", words, tmp_path)["protocol"]
    assert said["frame_source"] == {"from": "video files", "sampling": "segment_middle", "decoder": "FFmpeg"}
    assert not {"views", "crops", "resize", "sampling"} & said.keys()


def test_every_choice_is_another_protocol(numbered, model, tmp_path):
    words = manifest(numbered, tmp_path, ROWS[:1])
    choices = ["", *list(SEEN)[2:], "crops=3", "crops=3 views=2", "resize=crop", "resize=squash"]
    results = [evaluate("retrieval", [*words, *(f"--config.{one}" for one in c.split())], tmp_path) for c in choices]
    assert len({result["protocol_hash"] for result in results}) == len(choices)
    said = results[choices.index("crops=3 views=2")]["protocol"]["frame_source"]
    assert (said["views"], said["crops"]) == (2, 3)
    assert results[-1]["protocol"]["resize"] == "squash"
    explicit = (
        "--config.sampling=segment_middle --config.views=1 --config.crops=1 --config.resize= --config.sampling_fps=1"
    )
    again = evaluate("retrieval", [*words, *explicit.split()], tmp_path)
    assert again["protocol_hash"] == results[0]["protocol_hash"]


def test_resize_replaces_the_models_own(numbered, model, tmp_path, monkeypatch):
    words = manifest(numbered, tmp_path, ROWS[:1])
    shown = {}
    for own, given in (("crop", ""), ("squash", ""), ("crop", "squash"), ("squash", "crop")):
        model.config.preprocessing.resize = own
        clips = []
        monkeypatch.setattr(
            model, "_embed", lambda c, clips=clips: clips.append(c) or model.unit(c.mean(axis=(1, 2, 3)))
        )
        evaluate("retrieval", [*words, f"--config.resize={given}"], tmp_path)
        shown[own, given] = np.concatenate(clips)
    assert np.array_equal(shown["crop", ""], shown["squash", "crop"])
    assert np.array_equal(shown["squash", ""], shown["crop", "squash"])
    assert not np.array_equal(shown["crop", ""], shown["squash", ""])


ERRORS = {
    "sampling=middle": "sampling='middle' must be one of segment_middle, linspace_inclusive, fps",
    "crops=2": "crops=2: it must be 1 (the centre) or 3 (along the longer side)",
    "crops=4": "crops=4 is outside 1..3",
    "views=0": "views=0 is outside 1..64",
    "sampling=fps sampling_fps=0": "sampling_fps=0.0 is outside 0.01..1000.0",
    "sampling_fps=2": "sampling_fps=2 has no use with sampling=segment_middle: give fps",
    "resize=stretch": "resize='stretch' must be one of",
    "resize=squash crops=3": "crops=3 cut pictures, and resize='squash' does not",
    "sampling=linspace_inclusive views=2": "views=2 are shifted in time, which linspace_inclusive",
    "frames=512 views=3": "512 frames x 3 views x 1 crops are 1,536 pictures of a clip, more than 1,024",
    "frames=5": "frames=5, but this model takes 4 frames a clip",
}


@pytest.mark.parametrize("fields", ERRORS)
def test_what_cannot_be_is_one_line(numbered, model, tmp_path, capsys, fields):
    words = [*manifest(numbered, tmp_path, ROWS), *(f"--config.{field}" for field in fields.split())]
    evaluate("retrieval", words, tmp_path, code=ConfigError.exit_code)
    lines = capsys.readouterr().err.splitlines()
    assert ERRORS[fields] in lines[-1]
    assert not model.seen


def test_limits_that_depend_on_the_model_are_one_line(numbered, model, tmp_path, capsys):
    words = manifest(numbered, tmp_path, ROWS)
    model.config.preprocessing.resize = "squash"
    evaluate("retrieval", [*words, "--config.crops=3"], tmp_path, code=ConfigError.exit_code)
    assert "this model squashes them: give --config.resize=crop, or crops=1" in capsys.readouterr().err
    model.num_frames = 16
    evaluate(
        "retrieval",
        [*words, "--config.views=64", "--config.frames=0", "--config.crops=3", "--config.resize=crop"],
        tmp_path,
        code=ConfigError.exit_code,
    )
    assert "16 frames x 64 views x 3 crops are 3,072 pictures" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["views=2", "crops=3"])
def test_questions_are_answered_from_one_view(numbered, model, tmp_path, capsys, field):
    words = [*manifest(numbered, tmp_path, ROWS), "--config.answers=test_set", f"--config.{field}"]
    evaluate("videoqa", words, tmp_path, code=ConfigError.exit_code)
    assert "this task reads answers, and views and crops average embeddings" in capsys.readouterr().err


class Given:
    """A reader of given views."""

    def __init__(self, clips):
        self.clips = clips

    def read(self, num_frames, image_size, resize, sampling, known=None):
        return ((number, ClipFrames(views, 1)) for number, views in enumerate(self.clips))

    def digest(self, number):
        return None

    def absent(self):
        return {}

    def described(self):
        return {}

    def preparation(self):
        return {}


def averaged(model, clips, fields, count=None):
    config = load_dict(str(CONFIGS / "retrieval.py"), ["data.manifest=x.csv", "frames=4", "batch_size=3", *fields])
    spans = tuple(VideoSpan(str(number)) for number in range(count or len(clips)))
    data = EvaluationSet("x", "manifest", "", (), spans, Given(clips))
    return embed_videos(model, data, evaluation.check(config), lambda *_: None)


def test_the_embedding_of_a_clip_is_the_unit_mean_of_its_views_whatever_the_batches(model):
    rng = np.random.default_rng(0)
    clips = [[rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8) for _ in range(6)] for _ in range(5)]
    model.unit = lambda x: np.asarray(x, np.float32) - 100  # lengths that must not decide
    found = averaged(model, clips, ["views=2", "crops=3"])
    assert model.batches == [3] * 10
    for row, views in zip(found.values, clips, strict=True):
        mean = unit_vectors(np.stack(views).mean(axis=(1, 2, 3)).astype(np.float32) - 100, "video").mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_clips_of_several_lengths_come_in_batches_of_their_own(model):
    clips = [[np.full((count, SIDE, SIDE, 3), 10 * count, np.uint8)] for count in (4, 1, 4, 1, 4, 2, 4)]
    found = averaged(model, clips, ["sampling=fps"])
    assert model.batches == [3, 2, 1, 1]
    wanted = np.stack([model.unit(clip[0].mean(axis=(0, 1, 2))) for clip in clips])
    np.testing.assert_allclose(found.values, wanted, atol=1e-6)


def test_few_clips_wait_for_others_of_their_length(model):
    """Twelve clips of twelve lengths and batches of three: each would wait to the end."""
    read, most = [], []
    clips = [[np.ones((count, SIDE, SIDE, 3), np.uint8)] for count in range(1, 13)]
    real = model.encode_video
    model.encode_video = lambda videos: most.append(len(read) - len(model.batches)) or real(videos)
    averaged(model, (read.append(1) or clip for clip in clips), ["sampling=fps"], len(clips))
    assert model.batches == [1] * 12
    assert max(most) == 2 * 3 + 1


def test_a_view_whose_embedding_is_not_finite_is_an_error(model):
    model.unit = lambda x: np.full((len(x), 3), np.nan, np.float32)
    clips = [[np.zeros((4, SIDE, SIDE, 3), np.uint8)] * 2]
    with pytest.raises(NonFiniteError, match="zero or not finite"):
        averaged(model, clips, ["views=2"])
