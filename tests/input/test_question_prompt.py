"""Prompts with a masked answer."""

import numpy as np
import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.input.question_prompt import prompt_ids, split_prompt

PROMPT = "Question: {question} Answer: {mask}"


def test_the_prompt_has_the_mask_after_the_answer_and_the_end_after_it(tokenizer):
    ids, slot, cut = prompt_ids(tokenizer, PROMPT, "what is it?", 20)
    words = tokenizer.encode("question: what is it? answer:")
    assert ids.dtype == np.int32
    assert ids[: len(words) + 1].tolist() == [tokenizer.sot, *words]
    assert slot == len(words) + 1
    assert ids[slot + 1 :].tolist() == [tokenizer.eot] + [0] * (20 - slot - 2)
    assert not cut


def test_words_after_the_mask_stay(tokenizer):
    ids, slot, _ = prompt_ids(tokenizer, "{question} it {mask} now", "does", 10)
    assert ids[:slot].tolist() == [tokenizer.sot, *tokenizer.encode("does it")]
    assert ids[slot + 1 : slot + 3].tolist() == [*tokenizer.encode("now"), tokenizer.eot]


def test_a_long_question_loses_its_own_last_words_only(tokenizer):
    question = "what " * 40
    ids, slot, cut = prompt_ids(tokenizer, PROMPT, question, 16)
    assert cut
    assert slot == 14
    assert ids[-1] == tokenizer.eot
    assert tokenizer.decode(ids[:slot]) == "question : what what what what what what what what what answer :"


def test_a_prompt_must_fit_and_hold_both_places(tokenizer):
    with pytest.raises(ConfigError, match="leaves no room"):
        prompt_ids(tokenizer, PROMPT, "what", 7)
    for prompt in ("Question: {question}", "{mask}", "{question} {mask} {mask}", "{question} {question} {mask}"):
        with pytest.raises(ConfigError, match="once each"):
            split_prompt(prompt)
    with pytest.raises(ConfigError, match="before"):
        split_prompt("{mask} {question}")
