"""FLOPs by arithmetic, by counting the traced program, and by XLA's own analysis of the compiled one."""

import jax
import jax.numpy as jnp
import pytest

from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.model.config import harvest_config
from harvest_jax.train import program as programs
from harvest_jax.train.flops import step_flops
from harvest_jax.train.matmul import matmul_rate
from tests.helpers.matrix_flops import matrix_flops
from tests.helpers.small_model import WIDE

FIXED = (("mask_embedding", 0.0), ("text/.*", 0.0), (".*", 1.0))
ALL = ((".*", 1.0),)


def only(pattern):
    return (pattern, 1.0), (".*", 0.0)


def make_run(**changes):
    config = config_files.load_dict(str(config_files.config_file("harvest_b16.py")))
    config.train.batch_size = 16
    config.train.accumulate = 1
    config.model.attention = "xla"  # on a CPU the scores of many tokens are computed twice: no work by this count
    for field, value in changes.items():
        section, name = field.split("__")
        config[section][name] = value
    return run_config.check(config)


def traced(run, all_patches=False):
    """(FLOPs by arithmetic, FLOPs of the traced program) for a clip."""
    program = programs.train_program(run, jax.devices()[:1])
    jaxpr = jax.make_jaxpr(program.step(all_patches))(program.state, program.frozen, program.batch(all_patches))
    return step_flops(run, program.config, all_patches), matrix_flops(jaxpr) / run.train.batch_size


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__size": "L/14", "model__keep_ratio": 0.25, "model__drop_scope": "tube", "model__remat": "dots"},
        {"train__lr_multipliers": ALL, "text__length": 77, "text__mask_ratio": 0.4, "model__remat": "full"},
        {"train__lr_multipliers": FIXED, "text__contrastive": "clean", "train__accumulate": 4, "train__loss_chunk": 4},
        {"train__contrastive_loss": "sigmoid", "train__mlm_weight": 0.0, "train__accumulate": 2},
        {"train__contrastive_weight": 0.0, "text__contrastive": "clean", "model__decoder_layers": 1},
        {"train__lr_multipliers": only("decoder/blocks/cross_attn/key/.*"), "train__accumulate": 2},
        {"train__lr_multipliers": only("video/.*/mlp/.*"), "model__remat": "dots"},  # every layer of a loop is alike
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items()) or "B/16",
)
def test_arithmetic_counts_what_the_program_multiplies(changes):
    flops, counted = traced(make_run(**changes))
    assert flops["total"] + flops["recomputed"] == pytest.approx(counted, rel=1e-9)
    assert flops["total"] == sum(flops[part] for part in ("video", "text", "decoder", "contrastive"))


def test_arithmetic_counts_the_last_stage_with_all_patches():
    run = make_run(train__unmasked_steps=10, train__unmasked_accumulate=2)
    flops, counted = traced(run, all_patches=True)
    assert flops["total"] + flops["recomputed"] == pytest.approx(counted, rel=1e-9)
    assert flops["total"] > 11 * step_flops(run, harvest_config("B/16"))["total"]


def test_the_papers_setting_costs_what_the_design_says():
    """0.09 to 0.1 TFLOP a clip: three forward passes of the video tower on 157 patches, two of the text tower."""
    flops = step_flops(make_run(train__batch_size=1024), harvest_config("B/16"))
    assert 0.09e12 < flops["total"] < 0.1e12
    tokens = 158
    forward = 12 * (24 * tokens * 768**2 + 4 * tokens**2 * 768) + 2 * 157 * 768 * 768
    assert flops["video"] == pytest.approx(3 * forward - 2 * 157 * 768 * 768 + 6 * 768 * 512)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        # the unrolled tower's first layer has no gradient of its input; the frozen text tower none at all
        {"train__lr_multipliers": only("video/.*/mlp/.*"), "train__mlm_weight": 0.0, "model__keep_ratio": 1.0},
        pytest.param({"train__lr_multipliers": FIXED, "text__contrastive": "clean"}, marks=pytest.mark.slow),
        pytest.param({"train__lr_multipliers": ALL, "model__keep_ratio": 0.5}, marks=pytest.mark.slow),
    ],
    ids=["frozen text", "video MLP only, no words, all patches", "fixed mask, clean text", "all train"],
)
def test_within_ten_percent_of_xla(changes, monkeypatch):
    monkeypatch.setattr(programs, "model_config", lambda run: WIDE)
    run = make_run(**{"model__dtype": "float32", "text__length": 16, **changes})
    program = programs.train_program(run, jax.devices()[:1])
    compiled = program.jitted().lower(program.state, program.frozen, program.batch()).compile()
    flops = step_flops(run, program.config)
    counted = compiled.cost_analysis()["flops"] / run.train.batch_size
    assert 0.9 < (flops["total"] + flops["recomputed"]) / counted < 1.02


def flops_of(function, *shapes):
    return matrix_flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)))


def test_matrix_flops_of_products_and_loops():
    square = (8, 8)
    assert flops_of(jnp.matmul, (4, 8), (8, 16)) == 2 * 4 * 8 * 16
    assert flops_of(lambda a, b: jnp.einsum("bik,bkj->bij", a, b), (3, 4, 5), (3, 5, 6)) == 2 * 3 * 4 * 5 * 6
    assert flops_of(lambda a: jax.lax.scan(lambda x, _: (x @ x, None), a, length=7)[0], square) == 7 * 1024
    assert flops_of(lambda a: jax.lax.cond(a[0, 0] > 0, lambda x: x @ x, lambda x: x @ x @ x, a), square) == 2048
    assert flops_of(jax.jit(lambda a: jnp.where(a > 0, jax.checkpoint(jnp.matmul)(a, a), a)), square) == 1024
    assert flops_of(
        jax.grad(lambda a, b: jnp.sum(jax.checkpoint(lambda x: jnp.sin(x @ b) @ b)(a))), square, square
    ) == (
        4 * 1024  # sin's argument again for its derivative, the two products of the way back, sin's argument at first
        - 1024  # not needed: the value of the function is not returned
    )


def test_matrix_flops_leaves_out_what_feeds_no_output():
    def unused(a):
        _ = a @ a
        (kept, _), _ = jax.lax.scan(lambda xy, _: ((jnp.sin(xy[0]), xy[1] @ xy[1]), None), (a, a), length=3)
        return kept

    def needed_by_the_next_turn(a):
        (kept, _), _ = jax.lax.scan(lambda xy, _: ((xy[0] + xy[1], xy[1] @ xy[1]), None), (a, a), length=3)
        return kept

    assert flops_of(unused, (8, 8)) == 0
    assert flops_of(needed_by_the_next_turn, (8, 8)) == 3 * 1024


def test_matrix_flops_refuses_loops_without_a_known_end():
    loop = lambda a: jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ x, a)  # noqa: E731
    with pytest.raises(NotImplementedError, match="while"):
        flops_of(loop, (8, 8))


def test_captions_whose_padding_is_cut_cost_less():
    run = make_run()
    program = programs.train_program(run, jax.devices()[:1])
    batch = program.batch()
    cut = batch | {"ids": jax.ShapeDtypeStruct((16, 8), batch["ids"].dtype)}
    jaxpr = jax.make_jaxpr(program.step())(program.state, program.frozen, cut)
    flops = step_flops(run, program.config, text_tokens=8)
    assert flops["total"] + flops["recomputed"] == pytest.approx(matrix_flops(jaxpr) / 16, rel=1e-9)
    assert flops["text"] < step_flops(run, program.config)["text"] / 3


def test_matmul_rate_is_that_of_the_larger_product(monkeypatch):
    from harvest_jax.train import matmul

    monkeypatch.setattr(matmul, "SIDES", {"cpu": (16, 256), "accelerator": (16, 256)})
    monkeypatch.setattr(matmul, "BURST", 1e-4)
    slow = 2 * 16**3 / 1e-6  # 16 x 16 cannot be started and ended in a microsecond
    assert slow < matmul_rate("float32", seconds=0.01) < 1e17
