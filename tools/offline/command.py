"""Command line of the tools that make stores and shards: places, workers, parts."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dali_bgaug import storage
from dali_bgaug.errors import UserError
from dali_bgaug.storage import Location
from tools.cli import default_workers, hold, parse_part
from tools.offline.places import SCRATCH, open_output, originals_named


def location(text: str) -> Location:
    """A folder, or the URL of a prefix of an object store: the type of an argument."""
    try:
        return storage.location(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_scale_arguments(parser: argparse.ArgumentParser) -> None:
    """--workers, --part and --scratch."""
    add = parser.add_argument
    add("--workers", type=int, help="processes (all CPUs; one, where a GPU is used)")
    add("--part", default="1/1", metavar="i/n", help="the i-th of n machines' share (%(default)s)")
    what = "for files on their way to and from object stores, s3:// (%(default)s)"
    add("--scratch", type=Path, default=SCRATCH, help=what)


def run_part(
    args: argparse.Namespace, write: Callable[..., Any], *inputs: Any, on_gpu: bool = False, **options: Any
) -> None:
    """Run a tool that makes files of `inputs` into `args.out`, in parts; print its report."""
    part, workers = parse_part(args.part), args.workers or default_workers(on_gpu)
    options |= {"workers": workers, "part": part, "scratch": args.scratch}
    with hold(open_output(args.out, args.scratch).folder, part), originals_named(inputs, args.scratch):
        write(*inputs, args.out, **options).finish()
