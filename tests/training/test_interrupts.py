import os
import signal
import threading

import pytest

from styleforge.training.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_does_not_stop_the_program(number):
    with Interrupts() as interrupts:
        assert interrupts.signum is None
        os.kill(os.getpid(), number)
        assert interrupts.signum == number


def test_ctrl_c_twice_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_launcher_may_send_sigterm_after_ctrl_c_and_again():
    with Interrupts() as interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert interrupts.signum == signal.SIGTERM


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError), Interrupts():
        raise RuntimeError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_leave_signals_to_the_main_one():
    noted = []

    def work():
        with Interrupts() as interrupts:
            noted.append(interrupts.signum)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [None]
