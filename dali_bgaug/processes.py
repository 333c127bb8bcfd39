"""Child processes: how they begin, and signals when the process that started one dies."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

_PR_SET_PDEATHSIG = 1


def signal_with_parent(number: signal.Signals) -> None:
    """Have the kernel (Linux) send this process a signal when its parent dies, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def process_pool(workers: int, *modules: str) -> ProcessPoolExecutor:
    """A pool of worker processes that die with this one, however it dies, and leave Ctrl-C to it.

    They are forked from a server that has done nothing but import: threads of torch or DALI and open HDF5
    files would not survive a fork. All pools of a process have the server that its first one started, with
    the modules and the environment of that moment.

    Args:
        workers: processes, which begin as jobs come.
        modules: names of what the server imports, once for all workers.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return ProcessPoolExecutor(workers, context, _begin_worker)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the process that made the pool. The kernel would signal the end of the server, which waits for
    its workers."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


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
