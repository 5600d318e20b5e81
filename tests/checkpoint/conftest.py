"""For the tests of checkpoints."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Nothing here cuts the power, and a busy disk takes long; see the test of what is synced to it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
