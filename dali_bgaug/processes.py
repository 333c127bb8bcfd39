"""Child processes: signals when the process that started this one dies."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def signal_with_parent(number: signal.Signals) -> None:
    """Have the kernel (Linux) send this process a signal when its parent dies, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def follow_launcher() -> None:
    """Have this rank asked to stop when its launcher dies.

    torchrun killed alone (out of memory, say) would leave its ranks training beside the job's next start.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        signal_with_parent(signal.SIGTERM)
