"""Threads that work in the background, until they are closed or the process ends.

`concurrent.futures` has no use for these: its threads take no more jobs once the main thread has ended, while
other threads, one that trains, say, go on.
"""

import itertools
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]
"""Future of a call's result, the function, its arguments."""


class Workers:
    """Threads that take jobs in the order of their submission."""

    def __init__(self, count: int, name: str) -> None:
        """Start so many; name: of the threads."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=f"{name}_{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()
        _open[next(_numbers)] = self
        # A loader that nobody closed: its threads end once nobody has them.
        weakref.finalize(self, _end, self._jobs, count).atexit = False

    def submit(self, job: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have `job(*args)` done; the future gets what it returns or raises."""
        future: Future[Any] = Future()
        with self._lock:
            if not self._closed:
                self._jobs.put((future, job, args))
                return future
        if _process_ends.is_set() and threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        raise RuntimeError("these threads have ended")

    def close(self) -> None:
        """Cancel what has not begun, and wait for what has."""
        with self._lock:
            self._closed = True
            try:
                while item := self._jobs.get_nowait():
                    if not _process_ends.is_set():
                        item[0].cancel()
            except queue.Empty:
                pass
            _end(self._jobs, len(self._threads))
        for thread in self._threads:
            thread.join()


_numbers = itertools.count()
_open: weakref.WeakValueDictionary[int, Workers] = weakref.WeakValueDictionary()
_process_ends = threading.Event()
"""Only daemon threads are left then: one that asks for more waits to the end, as does one that waits for what
has not begun. Errors would have it free DALI's objects while the interpreter is torn down, which crashes."""


def close_all() -> None:
    """End all threads as the process ends, the newest first: they may wait for older ones."""
    _process_ends.set()
    for _, workers in sorted(_open.items(), reverse=True):
        workers.close()


def _end(jobs: queue.SimpleQueue[_Job | None], count: int) -> None:
    for _ in range(count):
        jobs.put(None)


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while item := jobs.get():
        future, job, args = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = job(*args)
        except BaseException as error:  # is raised where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(result)
        del item, future, job, args  # what they hold must not live until the next job comes
        result = None
