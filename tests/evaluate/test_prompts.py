"""Sentences around class names."""

import re

import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.evaluate import prompts
from tests.helpers.annotations import ANNOTATIONS

CLASS_NAMES = ANNOTATIONS / "classnames"


def test_prompt_sets_have_the_sizes_that_papers_state():
    assert len(set(prompts.ACTION_16)) == 16
    assert len(set(prompts.KINETICS_28)) == 28
    assert len(set(prompts.UCF_48)) == 48
    for name in prompts.SETS:
        assert all(sentence.count("{}") == 1 for sentence in prompts.templates(name))


@pytest.mark.skipif(not (CLASS_NAMES / "clip_prompts.md").is_file(), reason="no annotation files here")
@pytest.mark.parametrize(("dataset", "name"), [("Kinetics700", "kinetics_28"), ("UCF101", "ucf_48")])
def test_the_28_and_the_48_are_clips_own(dataset, name):
    text = (CLASS_NAMES / "clip_prompts.md").read_text("utf-8").partition(f"## {dataset}\n")[2]
    sentences = text.partition("templates")[2].partition("]")[0]
    assert tuple(re.findall(r"^ +'(.*)',$", sentences, re.MULTILINE)) == prompts.SETS[name]


def test_prompts_are_named_or_given():
    assert prompts.templates("a clip of {}!") == ("a clip of {}!",)
    assert prompts.templates(["{} one", "two {}"]) == ("{} one", "two {}")
    with pytest.raises(ConfigError, match="action_16, kinetics_28"):
        prompts.templates("kinetics28")
    with pytest.raises(ConfigError, match="once"):
        prompts.templates(["{} and {}"])
    with pytest.raises(ConfigError, match="empty"):
        prompts.templates([])


def test_names_and_sentences_are_put_together_sentence_by_sentence():
    assert prompts.fill(["a {}", "{} b"], ["x", "y{}"]) == ["a x", "a y{}", "x b", "y{} b"]
