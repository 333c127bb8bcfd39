"""Stop requests of a process by itself."""

import signal

import pytest

from train.signals import StopRequest


def test_a_second_interrupt_is_not_kept_waiting() -> None:
    stop, before = StopRequest(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop.listening():
        signal.raise_signal(signal.SIGINT)
        stop.ask()
        assert (stop.name, stop.answer()) == ("SIGINT", True)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    for number in (signal.SIGTERM, signal.SIGUSR1):
        assert signal.signal(number, signal.SIG_DFL) == signal.SIG_IGN
