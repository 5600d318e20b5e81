"""Sentences around class names, and prompts with a masked answer."""

import re

import numpy as np
import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.evaluate import prompts
from tests.helpers.annotations import ANNOTATIONS

CLASS_NAMES = ANNOTATIONS / "classnames"
PROMPT = "Question: {question} Answer: {mask}"


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


def test_the_prompt_has_the_mask_after_the_answer_and_the_end_after_it(tokenizer):
    ids, slot, cut = prompts.prompt_ids(tokenizer, PROMPT, "what is it?", 20)
    words = tokenizer.encode("question: what is it? answer:")
    assert ids.dtype == np.int32
    assert ids[: len(words) + 1].tolist() == [tokenizer.sot, *words]
    assert slot == len(words) + 1
    assert ids[slot + 1 :].tolist() == [tokenizer.eot] + [0] * (20 - slot - 2)
    assert not cut


def test_words_after_the_mask_stay(tokenizer):
    ids, slot, _ = prompts.prompt_ids(tokenizer, "{question} it {mask} now", "does", 10)
    assert ids[:slot].tolist() == [tokenizer.sot, *tokenizer.encode("does it")]
    assert ids[slot + 1 : slot + 3].tolist() == [*tokenizer.encode("now"), tokenizer.eot]


def test_a_long_question_loses_its_own_last_words_only(tokenizer):
    question = "what " * 40
    ids, slot, cut = prompts.prompt_ids(tokenizer, PROMPT, question, 16)
    assert cut
    assert slot == 14
    assert ids[-1] == tokenizer.eot
    assert tokenizer.decode(ids[:slot]) == "question : what what what what what what what what what answer :"


def test_a_prompt_must_fit_and_hold_both_places(tokenizer):
    with pytest.raises(ConfigError, match="leaves no room"):
        prompts.prompt_ids(tokenizer, PROMPT, "what", 7)
    for prompt in ("Question: {question}", "{mask}", "{question} {mask} {mask}", "{question} {question} {mask}"):
        with pytest.raises(ConfigError, match="once each"):
            prompts.split_prompt(prompt)
    with pytest.raises(ConfigError, match="before"):
        prompts.split_prompt("{mask} {question}")
