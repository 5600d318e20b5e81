"""Files to be refused, and the message that refuses them."""

import pytest

from harvest_jax.errors import DataError


def fault(call, *args, **options):
    """The message of the DataError that a call ends in, which is one line."""
    with pytest.raises(DataError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def put(path, text="[]"):
    """Write a file of text or bytes and the folders above it; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
