"""How far the towers drift when their matrices are multiplied in bfloat16 (norms and softmax stay in float32)."""

import pytest

pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from tests.parity import compare

pytestmark = pytest.mark.parity
COSINE_BOUND = 1e-3  # one minus the cosine with the float32 embedding
COMPONENT_BOUND = 1e-2  # of the L2-normalised embeddings; a component is about 0.04


def test_drift_of_embeddings(size, ours, measured):
    for tower in ("image", "text"):
        full, short = getattr(ours.float32, tower), getattr(ours.bfloat16, tower)
        assert short.dtype == full.dtype
        turned = 1 - compare.cosine(short, full)
        measured(size, f"{tower} embedding, 1 - cosine", "itself in bfloat16", turned, COSINE_BOUND)
        drift = compare.embedding_difference(short, full)
        measured(size, f"{tower} embedding", "itself in bfloat16", drift, COMPONENT_BOUND)
        assert drift > 1e-5  # or it was not bfloat16
