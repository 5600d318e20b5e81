"""The words of `config.eval` as evaluations, and the names of scores."""

import pytest

from harvest_jax.config.run import EvalFields
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.scored_training.scorer import evaluations, flat_scores, full_name, read_words


def test_the_words_are_those_of_harvest_eval(world_shards):
    text = f"eval/retrieval --config.data.shards={world_shards} data.split=test"
    name, settings = read_words(text)
    assert (name, settings.task, settings.data.split) == ("retrieval", "retrieval", "test")
    found = evaluations(EvalFields(every=1, config=(text, text, f"eval/reversal data.shards={world_shards}")))
    assert [one.name for one in found] == ["retrieval", "retrieval-2", "reversal"]
    assert len(found[0].data.clips) == 10


def test_a_path_with_spaces_is_quoted_as_in_a_shell():
    assert read_words("eval/retrieval 'data.manifest=my clips/a.csv'")[1].data.manifest == "my clips/a.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eval/msrvt_1kb data.videos=v", "did you mean eval/msrvtt_1ka"),
        ("eval/retrieval data.shard=x", "did you mean data.shards"),
        ("eval/retrieval data.shards", "must read FIELD=VALUE"),
        ("eval/retrieval", "set data.manifest"),
        ("demo", "demo is a training config"),
        ("eval/retrieval 'data.shards=x", "as in a shell"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_its_words(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        evaluations(EvalFields(every=1, config=text))
    assert str(caught.value).startswith("eval.config=")
    assert "\n" not in str(caught.value)


def test_missing_videos_are_refused_unless_they_are_allowed(tmp_path):
    (tmp_path / "a.csv").write_text("video,caption\na.mp4,a dog\nb.mp4,a cat\n")
    text = f"eval/retrieval data.manifest={tmp_path / 'a.csv'} data.split=''"
    with pytest.raises(DataError, match=r"2 of the 2 videos .* set eval.allow_missing=True to count"):
        evaluations(EvalFields(every=1, config=text))
    assert len(evaluations(EvalFields(every=1, config=text, allow_missing=True))) == 1


def test_scores_are_the_finite_numbers_by_their_paths():
    metrics = {
        "n": 3,
        "flag": True,
        "bad": float("nan"),
        "text": "x",
        "t2v": {"R@1": 50.0, "optimistic": {"R@1": 60.0}},
        "per_type": {"a": {"acc": 1.5}},
    }
    assert flat_scores(metrics, "eval") == {"eval/n": 3.0, "eval/t2v/R@1": 50.0, "eval/per_type/a/acc": 1.5}


def test_a_metric_is_named_in_full_or_within_the_only_evaluation():
    one, two = {"r/t2v/R@1": 1.0, "r/n": 2.0}, {"r/n": 1.0, "q/n": 2.0}
    assert full_name("", ("r",), one) == ""
    assert full_name("t2v/R@1", ("r",), one) == full_name("r/t2v/R@1", ("r",), one) == "r/t2v/R@1"
    assert full_name("q/n", ("r", "q"), two) == "q/n"
    with pytest.raises(ConfigError, match=r"eval.metric=R@1 is no score of eval.config; these are: t2v/R@1, n$"):
        full_name("R@1", ("r",), one)
    with pytest.raises(ConfigError, match=r"these are: r/n, q/n$"):
        full_name("n", ("r", "q"), two)
