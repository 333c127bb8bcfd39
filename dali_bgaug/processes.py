"""Child processes: how they begin, and signals when the process that started one dies."""

import ctypes
import os
import signal

STARTED_BY = "DALI_BGAUG_STARTED_BY"
"""Environment variable of the programs that a tool starts: the tool's process."""
_PR_SET_PDEATHSIG = 1


def signal_with_parent(number: signal.Signals) -> None:
    """Have the kernel (Linux) send this process a signal when its parent dies, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def begin_worker(parent: int) -> None:
    """Begin a worker process of `parent`, for a pool's initializer: it dies with it, however that dies, and
    leaves Ctrl-C to it."""
    signal_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:  # killed while this process was starting
        os._exit(1)


def follow_launcher() -> None:
    """Have this program asked to stop when its launcher dies: torchrun, or a tool (`tools.cli.start`).

    One killed alone (out of memory, say) would leave it training beside the job's next start.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get(STARTED_BY) == str(os.getppid()):
        signal_with_parent(signal.SIGTERM)
