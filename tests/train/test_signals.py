"""Stop requests of a process by itself."""

import signal

import pytest

from train import signals
from train.signals import StopRequest


def test_a_second_interrupt_is_not_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one that comes along with the first: terminal and torchrun each send one."""
    stop, before = StopRequest(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop.listening():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        stop.ask()
        assert (stop.name, stop.answer()) == ("SIGINT", True)
        monkeypatch.setattr(signals, "PATIENCE", 0.0)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    for number in (signal.SIGTERM, signal.SIGUSR1):
        assert signal.signal(number, signal.SIG_DFL) == signal.SIG_IGN
