"""Report of results: one table of all that was measured of some networks, as JSON, Markdown and pictures.

    python -m train.evaluate report RUN … [--baseline NAME] [--paper] [--out DIR]

Takes folders of runs, folders with such folders in them, or files of results.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_json, write_text
from train.evaluate.report.page import page
from train.evaluate.report.picture import draw
from train.evaluate.report.results import find_results
from train.evaluate.report.table import as_json, make_table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.evaluate report", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "places",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders with results in or below them, or results",
    )
    add("--baseline", metavar="NAME", help="the network that gains are over: a row's name")
    add("--paper", action="store_true", help="beside each network the paper's figures for one like it")
    names = "the name of the row of what is found in this RUN, one of those given; repeatable"
    add("--name", action="append", default=[], metavar="RUN=NAME", help=names)
    add("--out", type=Path, default=Path("out/report"), help="report.json, .md and .png (%(default)s)")
    return parser


def _names(words: Sequence[str], places: Sequence[Path]) -> dict[Path, str]:
    names = {}
    for word in words:
        ends = [end for end, char in enumerate(word) if char == "=" and Path(word[:end]) in places]
        if not ends or not word[ends[0] + 1 :]:
            there = ", ".join(map(str, places))
            raise UserError(f"--name={word}: must be RUN=NAME with one of the RUNs given: {there}")
        names[Path(word[: ends[0]])] = word[ends[0] + 1 :]
    return names


def main(words: Sequence[str]) -> None:
    """Write a report. words: of the command line, after `report`."""
    args = _parser().parse_args(words)
    names = _names(args.name, args.places)
    found = find_results(args.places)
    table = make_table(found.measurements, args.baseline, names, args.paper)
    pictures = draw(table, args.out)
    path = args.out / "report.json"
    counts = {"files": found.files, "ignored": found.ignored}
    write_json(path, {"protocol": "report", **counts, **as_json(table)})
    text = page(table, [picture.name for picture in pictures], found.ignored)
    write_text(path.with_suffix(".md"), text)
    print(text)
    print(f"{path}, {path.with_suffix('.md')}, {', '.join(map(str, pictures))}: of {found.files} results")
