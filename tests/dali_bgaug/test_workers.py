import gc
import threading
import time
from concurrent.futures import CancelledError

import pytest

from dali_bgaug.workers import Workers


def _threads(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def _until(done: object, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not done():
        time.sleep(0.01)
    return done()


def test_jobs_are_done_in_order_and_errors_are_raised_where_asked_for() -> None:
    workers, seen = Workers(1, "order"), []
    futures = [workers.submit(seen.append, number) for number in range(5)]
    assert [future.result() for future in futures] == [None] * 5
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        workers.submit(lambda: 1 / 0).result()
    assert workers.submit(abs, -3).result() == 3
    workers.close()
    assert _threads("order") == 0


def test_closing_waits_for_what_has_begun_and_cancels_the_rest() -> None:
    workers, begun, go_on = Workers(1, "closing"), threading.Event(), threading.Event()
    running = workers.submit(lambda: begun.set() or go_on.wait(10))
    waiting = workers.submit(abs, -1)
    begun.wait(10)
    threading.Timer(0.1, go_on.set).start()
    workers.close()
    assert running.result() is True
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(RuntimeError, match="these threads have ended"):
        workers.submit(abs, -1)


def test_threads_end_once_nobody_has_them() -> None:
    workers = Workers(3, "forgotten")
    assert workers.submit(abs, -1).result() == 1
    assert _threads("forgotten") == 3
    del workers
    gc.collect()
    assert _until(lambda: _threads("forgotten") == 0)
