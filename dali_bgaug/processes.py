"""Child processes: how they begin, and signals when the process that started one dies."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

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
    """Have this rank asked to stop when its launcher dies.

    torchrun killed alone (out of memory, say) would leave its ranks training beside the job's next start.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        signal_with_parent(signal.SIGTERM)


def following(command: Sequence[str]) -> list[str]:
    """The command line of a program that gets SIGTERM when the process that started it dies, however it does.

    It becomes that program, with the same process id. Of a thread that starts it, the end is a death, too.
    """
    return [sys.executable, "-m", "dali_bgaug.processes", str(os.getpid()), *command]


if __name__ == "__main__":
    signal_with_parent(signal.SIGTERM)
    if os.getppid() == int(sys.argv[1]):  # and not killed meanwhile
        os.execvp(sys.argv[2], sys.argv[2:])
