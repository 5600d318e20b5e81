"""Signals: the first asks for an end between two steps, a second Ctrl-C acts at once, processes agree."""

import os
import signal
import threading

import pytest

from harvest_jax.train.preemption import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request_and_the_old_handlers_come_back(number, capfd):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        stop.listen()
        assert not stop.requested(1)
        os.kill(os.getpid(), number)
        assert stop.requested(1)
        assert stop.requested(7)
        assert stop.name == number.name
    assert signal.getsignal(number) is before
    assert f"{number.name}: saving and stopping" in capfd.readouterr().err


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_is_obeyed_at_once():
    with StopSignal() as stop:
        stop.listen()
        interrupt()
        assert stop.requested(1)
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_more_terminations_change_nothing_and_an_interrupt_after_one_still_waits():
    with StopSignal() as stop:
        stop.listen()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        interrupt()
        assert stop.name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_outside_the_main_thread_it_never_fires():
    seen = []

    def work():
        with StopSignal() as stop:
            stop.listen()
            seen.append(stop.requested(1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
