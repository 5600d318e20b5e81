import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest_jax.input.text_masking import mask_slots, num_slots

EOT = 99


def caption(words: int, length: int) -> np.ndarray:
    ids = np.zeros(length, np.int32)
    ids[: words + 2] = [EOT - 1, *range(1, words + 1), EOT]
    return ids


lengths = st.integers(3, 77)
ratios = st.floats(0, 1)


@st.composite
def captions(draw):
    length = draw(lengths)
    return caption(draw(st.integers(0, length - 2)), length)


@settings(deadline=None)  # a busy machine must not fail it
@given(captions(), ratios, st.integers(0, 2**32 - 1))
def test_only_words_are_masked_as_many_as_asked(ids, ratio, seed):
    slots_there = num_slots(len(ids), ratio)
    slots, weights = mask_slots(np.random.default_rng(seed), ids, EOT, ratio, slots_there, EOT - 1)
    words = int((ids == EOT).argmax()) - 1
    used = slots[weights == 1]
    assert slots.shape == weights.shape == (slots_there,)
    assert set(weights.tolist()) <= {0.0, 1.0}
    assert used.tolist() == sorted(set(used.tolist()))  # ascending, each position once
    assert all(1 <= position <= words for position in used)  # no start, no end, no padding
    assert math.floor(ratio * words) <= len(used) <= math.ceil(ratio * words)
    assert not slots[len(used) :].any()
    assert not weights[len(used) :].any()


@settings(deadline=None)
@given(lengths, ratios)
def test_slots_suffice_for_the_longest_caption(length, ratio):
    count = num_slots(length, ratio)
    assert 0 <= count <= length - 2
    assert count >= ratio * (length - 2) - 1e-6
    assert count < ratio * (length - 2) + 1


@pytest.mark.parametrize(("length", "ratio", "slots"), [(32, 0.1, 3), (32, 0.15, 5), (77, 1.0, 75), (32, 0.0, 0)])
def test_slot_counts(length, ratio, slots):
    assert num_slots(length, ratio) == slots


@pytest.mark.parametrize("words", [1, 7, 20])
def test_expected_share_is_the_ratio_and_no_word_is_preferred(words):
    ids, ratio, draws = caption(words, 32), 0.15, 2000
    rng = np.random.default_rng(0)
    counts = np.zeros(32)
    for _ in range(draws):
        slots, weights = mask_slots(rng, ids, EOT, ratio, num_slots(32, ratio), EOT - 1)
        counts[slots[weights == 1]] += 1
    share = counts[1 : words + 1] / draws
    # Five standard errors of one word's share, of which every word's must be within.
    assert np.all(np.abs(share - ratio) < 5 * math.sqrt(ratio * (1 - ratio) / draws))
    assert not counts[words + 1 :].any()
    assert counts[0] == 0


def test_same_generator_same_mask():
    ids = caption(20, 32)
    first = mask_slots(np.random.default_rng(5), ids, EOT, 0.5, 15, EOT - 1)
    again = mask_slots(np.random.default_rng(5), ids, EOT, 0.5, 15, EOT - 1)
    other = mask_slots(np.random.default_rng(6), ids, EOT, 0.5, 15, EOT - 1)
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_specials_written_into_a_caption_are_not_masked():
    ids = np.array([98, 5, 98, 6, 99, 7, 99, 0], np.int32)  # a start and an end token inside the text
    slots, weights = mask_slots(np.random.default_rng(0), ids, EOT, 1.0, 6, EOT - 1)
    assert slots[weights == 1].tolist() == [1, 3]


def test_fewer_slots_than_masked_words():
    slots, weights = mask_slots(np.random.default_rng(0), caption(10, 12), EOT, 1.0, 4, EOT - 1)
    assert weights.tolist() == [1, 1, 1, 1]
    assert len(set(slots.tolist())) == 4


def test_ids_without_end_are_refused():
    with pytest.raises(ValueError, match="no end token"):
        mask_slots(np.random.default_rng(0), np.array([98, 5, 6], np.int32), EOT, 0.5, 1, EOT - 1)
