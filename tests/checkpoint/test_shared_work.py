"""Work that several processes do together: the others hear of a failure. The coordination service is a dict here."""

import threading

import jax
import pytest
from jax._src import distributed

from harvest_jax.checkpoint import shared_work
from harvest_jax.checkpoint.shared_work import OtherProcessError, SharedWork, run_shared


class Service:
    """The calls of JAX's client that are made."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [item for item in self.values.items() if item[0].startswith(f"{folder}/")]


class Gone:
    """A service that has ended."""

    def key_value_set(self, key, value, allow_overwrite=False):
        raise RuntimeError("unavailable")

    def key_value_dir_get(self, folder):
        raise RuntimeError("unavailable")


@pytest.fixture
def service(monkeypatch):
    """Two processes that share a service; waiting is short."""
    made = Service()
    monkeypatch.setattr(distributed.global_state, "client", made)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(shared_work, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(shared_work, "OWN_ERROR_SECONDS", 0.05)
    return made


def fail():
    raise OSError("disk full")


def test_a_result_is_returned(service):
    assert run_shared("save 4", lambda: 7) == 7
    assert not service.values


def test_an_error_is_raised_here_and_reported_to_the_others(service):
    with pytest.raises(OSError, match="disk full"):
        run_shared("save 4", fail)
    assert len(service.values) == 1
    never = threading.Event()
    with pytest.raises(OtherProcessError, match="process 0: OSError: disk full"):  # as one that waits at a barrier
        run_shared("save 4", never.wait)
    never.set()


def test_a_failure_of_other_work_is_not_taken_for_one_of_this(service):
    assert isinstance(SharedWork("save 4", fail).wait(), OSError)
    slow = threading.Event()
    threading.Timer(0.2, slow.set).start()
    assert run_shared("save 40", slow.wait)


def test_the_own_error_is_preferred_to_that_of_another_process(service):
    assert isinstance(SharedWork("save 4", fail).wait(), OSError)
    shared_work.OWN_ERROR_SECONDS = 60.0  # the fixture undoes this
    heard = threading.Event()

    def fail_later():
        heard.wait(0.2)
        fail()

    assert isinstance(SharedWork("save 4", fail_later).wait(), OSError)


def test_without_a_service_the_work_is_waited_for(monkeypatch):
    monkeypatch.setattr(shared_work, "POLL_SECONDS", 0.01)
    for client in (None, Gone()):
        monkeypatch.setattr(distributed.global_state, "client", client)
        slow = threading.Event()
        threading.Timer(0.1, slow.set).start()
        assert SharedWork("save 4", slow.wait).result()
        assert isinstance(SharedWork("save 4", fail).wait(), OSError)


def test_one_process_does_the_work_in_its_own_thread():
    assert run_shared("save 4", threading.current_thread) is threading.current_thread()
