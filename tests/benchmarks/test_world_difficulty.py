"""The difficulty of the generated world: what its readers get."""

from benchmarks.world_difficulty import commonest_answers, difficulty, never_trained
from harvest_jax.synthetic.choices import FACTORS
from harvest_jax.synthetic.rows import choice_at
from harvest_jax.synthetic.sample import any_scene, dice_of


def test_no_reader_is_below_chance_and_one_right_sentence_is_left_when_all_is_known():
    found = difficulty(10 * len(FACTORS), seed=0)
    assert set(found) == set(FACTORS)
    for figures in found.values():
        assert figures["n"] == 10
        assert figures["chance"] <= figures["words"] <= 100
        assert figures["chance"] <= figures["order_blind"] <= 100
        assert figures["ceiling"] == 100
    assert found["direction"]["words"] == found["direction"]["order_blind"] == 50
    assert found["texture"]["words"] == found["texture"]["chance"]


def test_what_is_never_trained_is_what_tests_show():
    assert all(never_trained(choice_at(0, number).scene) for number in range(60))
    training = [any_scene(dice_of(0, "train", number), False) for number in range(60)]
    acting = [scene for scene in training if scene.action != "stands still"]
    assert not any(map(never_trained, acting))


def test_the_commonest_answer_is_a_share_of_each_kind():
    found = commonest_answers(70, seed=0)
    assert sum(figures["n"] for figures in found.values()) == 70
    assert all(0 < figures["commonest"] < 100 for figures in found.values())
