"""Gradients of the contrastive loss with respect to the first, a middle and the last matrix of each tower."""

import pytest

pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from tests.parity import compare
from tests.parity.sizes import GRADIENT_SIZES

pytestmark = pytest.mark.parity


def check(size, ours, theirs, against, measured):
    assert set(ours) == set(theirs)
    assert {"video/patch_embedding", "video/qkv", "video/proj", "text/qkv", "text/text_projection"} < set(ours)
    for name, gradient in theirs.items():
        what = "contrastive loss" if name == "loss" else f"gradient of {name}"
        measured(size, what, against, compare.relative(ours[name], gradient), compare.GRADIENT_BOUND)


@pytest.mark.parametrize("size", GRADIENT_SIZES, indirect=True)
def test_against_openais_module(size, reference, ours, measured):
    check(size, ours.float32.gradients, reference.outputs["openai"].gradients, "OpenAI's module", measured)


@pytest.mark.parametrize("size", ["B/32"], indirect=True)
def test_against_transformers_and_its_own_loss(size, reference, ours, measured):
    check(size, ours.float32.gradients, reference.outputs["transformers"].gradients, "transformers", measured)
