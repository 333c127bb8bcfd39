"""The command line of every tool: errors as one line, worker processes, parts of a job."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from dali_bgaug.errors import UserError, run_program
from dali_bgaug.files import lock
from dali_bgaug.processes import following, process_pool


def run(main: Callable[[], None]) -> None:
    """Run a tool's `main`."""
    run_program(main, "what is finished is kept, the same command goes on from there")


def require(holds: object, message: str) -> None:
    """Refuse an option's value unless this holds: the message is a UserError's."""
    if not holds:
        raise UserError(message)


def start(module: str, *words: str, threads: int | None = None, quiet: bool = False) -> str:
    """Run `python -m module words…` to its end: training is a program of its own, which tools do not import.
    It is asked to stop if this process is killed.

    Returns what it printed, if quiet.

    Args:
        module, words: the command.
        threads: that it computes in; None leaves it the choice.
        quiet: keep what it says, and show its end if it fails.

    Raises:
        UserError: it failed.
    """
    environment = None if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = following([sys.executable, "-m", module, *words])
    pipe = subprocess.PIPE if quiet else None
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as child:
        try:
            printed, errors = child.communicate()
        except KeyboardInterrupt:
            child.communicate()  # Ctrl-C has reached it, too, and training saves before it ends
            raise
    if child.returncode:
        said = f" (status {child.returncode}); it says why above"
        said = f":\n{errors.strip()[-2000:]}" if quiet else said
        raise UserError(f"python -m {module} {' '.join(words)} failed{said}")
    return printed or ""


def ask(module: str, job: str, asker: str) -> dict[str, Any]:
    """Run `python -m module` in a process of its own: it reads a job from stdin and ends with a line of JSON.

    Raises:
        UserError: it failed; it says so of `asker`.
    """
    command = [sys.executable, "-m", module]
    child = subprocess.run(command, input=job, capture_output=True, text=True, check=False)
    if child.returncode:
        raise UserError(f"{asker}: {(child.stderr.strip() or 'no word').splitlines()[-1]}")
    return json.loads(child.stdout.splitlines()[-1])


class Part(NamedTuple):
    """The share of one of `count` machines that work on one data set without talking to each other."""

    index: int = 1
    """1 to `count`."""
    count: int = 1

    @property
    def slice(self) -> slice:
        """This part of a sequence of files or jobs: every `count`-th."""
        return slice(self.index - 1, None, self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

ALL = Part()
"""One machine does everything."""


def parse_part(text: str) -> Part:
    """`3/8` -> the third of eight."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"--part={text}: must be i/n with i from 1 to n, e.g. 1/8 to 8/8 on eight machines")
    return Part(int(index), int(count))


def hold(out: Path, part: Part) -> AbstractContextManager[None]:
    """Hold one part of an output, other parts being free: two processes would take away unfinished files."""
    name = out.absolute().name
    return lock(out.absolute().with_name(f"{name}-{part.index}-of-{part.count}.lock"))


def tool_parser(name: str, doc: str) -> argparse.ArgumentParser:
    """The parser of `python -m name`, which the first line of its module's docstring describes."""
    return argparse.ArgumentParser(prog=name, description=doc.splitlines()[0])


def pick(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Some of the arguments, by name."""
    return {name: getattr(args, name) for name in names}


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start now compute in one thread: several with as many threads as CPUs are slower."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def process(
    function: Callable[..., Any], jobs: Iterable[tuple], sizes: Sequence[int], workers: int, title: str
) -> Iterator[Any]:
    """Yield `function(*job)` for every job as it finishes, from `workers` processes, behind a progress bar.

    `sizes[i]` is how many photos job i stands for (the bar counts photos). Jobs are taken from `jobs` as
    they are needed, a few ahead. The first failure ends it and is raised here; jobs under way end first, so
    their files are whole.
    """
    todo = zip(jobs, sizes, strict=True)
    with tqdm(total=sum(sizes), desc=title, unit="photo", dynamic_ncols=True) as bar:
        if workers <= 1 or not sizes:
            for job, size in todo:
                yield function(*job)
                bar.update(size)
            return
        ours = [name for name in sys.modules if name.partition(".")[0] in ("dali_bgaug", "tools")]
        with _one_thread_each(), process_pool(min(workers, len(sizes)), *ours) as pool:
            under_way = {pool.submit(function, *job): size for job, size in islice(todo, 2 * workers)}
            try:
                while under_way:
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        yield future.result()
                        bar.update(under_way.pop(future))
                        for job, size in islice(todo, 1):
                            under_way[pool.submit(function, *job)] = size
            except BrokenProcessPool:
                raise UserError(
                    f"a worker process of '{title}' was killed (out of memory?); finished shards are kept: "
                    f"run again with fewer --workers than {workers}"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


def default_workers(on_gpu: bool = False) -> int:
    """The CPUs this process may use; one if the work is a GPU's."""
    return 1 if on_gpu else len(os.sched_getaffinity(0))
