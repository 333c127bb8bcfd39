"""A loader and what happens to its process: interrupts, forks, threads, the end."""

import _thread
import hashlib
import itertools
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dali_bgaug.batches import BatchMaker, Producer
from dali_bgaug.loader import Loader
from pipelines import LoaderConfig, build_loader
from tests.helpers import programs


def _build(shards: Path, pipeline: str = "moco_v2") -> Loader:
    values = {} if pipeline == "evaluation" else {"background": {"kind": "swaps"}}
    return build_loader(
        LoaderConfig(
            shards=shards,
            pipeline=pipeline,
            batch_size=16,
            device="cpu",
            threads=1,
            crop={"size": 32},
            **values,
        )
    )


def _content(batch: dict[str, torch.Tensor]) -> str:
    view = "image" if "image" in batch else "query"
    rows = batch[view][batch["valid"]] if "valid" in batch else batch[view]
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("pipeline", ["moco_v2", "evaluation"])
@pytest.mark.parametrize("at", [0, 2, 3])
def test_an_interrupt_while_a_batch_is_awaited_changes_nothing(
    pipeline: str, at: int, textured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a notebook, say; in mid-epoch, and where evaluation's last batch is partly padding."""
    with _build(textured, pipeline) as loader:
        expected = [_content(batch) for _ in range(3) for batch in loader]
    make, wait = BatchMaker.make, Producer.wait
    slow, waiting = threading.Event(), threading.Event()

    def make_slowly(self: BatchMaker, schedule: bool = True) -> object:
        if slow.is_set() and waiting.wait(30):
            slow.clear()
            time.sleep(0.3)
            _thread.interrupt_main()
            time.sleep(0.1)
        return make(self, schedule)

    def wait_and_say(self: Producer) -> None:
        if not self._coming[0].done():
            waiting.set()
        wait(self)

    with _build(textured, pipeline) as loader:
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        seen = [_content(next(batches)) for _ in range(at)]
        monkeypatch.setattr(BatchMaker, "make", make_slowly)
        monkeypatch.setattr(Producer, "wait", wait_and_say)
        slow.set()
        with pytest.raises(KeyboardInterrupt):
            while True:  # those that are ready come at once
                waiting.clear()
                seen.append(_content(next(batches)))
        while loader.epoch < 3:
            seen += [_content(batch) for batch in loader]
    assert seen == expected


@pytest.mark.parametrize("step", ["request", "take"])
def test_an_interrupt_at_any_other_time_closes_the_loader(
    step: str, textured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between DALI's giving a batch and counting it, say: never a batch out of step."""
    done: Callable[[Producer], object] = getattr(Producer, step)

    def interrupted(self: Producer) -> None:
        done(self)
        raise KeyboardInterrupt

    with _build(textured) as loader:
        next(iter(loader))
        monkeypatch.setattr(Producer, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(iter(loader))
        with pytest.raises(RuntimeError, match="this loader is closed"):
            next(iter(loader))


def _in_a_fork(job: Callable[[], None]) -> str:
    """What the job raised or warned of in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                job()
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_forked_child_says_that_loaders_do_not_survive(textured: Path) -> None:
    with _build(textured) as loader:
        next(iter(loader))
        said = _in_a_fork(lambda: next(iter(loader)))
        assert "RuntimeError: this loader was made in another process" in said
        assert "get_context('spawn')" in said
        assert _in_a_fork(loader.close) == ""
        said = _in_a_fork(lambda: _build(textured))
        assert "RuntimeWarning: a loader is made in a process forked from one that had a loader" in said
        assert len(list(loader)) == len(loader) - 1  # and the parent goes on


_HOLDS = """
import sys, threading, time
from pathlib import Path
from pipelines import LoaderConfig, build_loader

def work():
    loader = build_loader(LoaderConfig(
        shards=Path(sys.argv[1]), batch_size=8, device="cpu", threads=1, crop={"size": 32}
    ))
    held.append(loader)
    for number in range(2):
        for batch in loader:
            begun.set()
            time.sleep(0.02)
    print("done", loader.epoch, flush=True)
    while "daemon" in sys.argv[2]:
        for batch in loader:
            pass

held, begun = [], threading.Event()
threading.Thread(target=work, daemon=sys.argv[2] == "daemon").start()
begun.wait(60)
sys.exit(3)
"""


def test_a_process_ends_with_its_own_status(textured: Path) -> None:
    """Whatever thread holds a loader; one that is no daemon goes on to its end."""
    ended = {kind: programs.run_text(_HOLDS, str(textured), kind) for kind in ("daemon", "thread")}
    assert [program.returncode for program in ended.values()] == [3, 3], ended
    assert ended["thread"].stdout == "done 2\n"
