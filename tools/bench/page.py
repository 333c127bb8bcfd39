"""The result as a table, as a page of `benchmarks/`, and as a picture.

python -m tools.bench.page benchmarks/cpu2.json     # benchmarks/cpu2.md and .png, from the JSON alone
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_text
from tools import markdown
from tools.cli import run

_OURS, _OTHERS, _SHARED = "#2a6fbb", "#c8761a", "#8a8a8a"
_RATIOS = {
    "full_over_decode": "÷ decode",
    "with_over_without": "÷ plain",
    "over_torchvision": "÷ torchvision",
    "over_dali": "÷ dali",
    "over_webdataset": "÷ webdataset",
    "over_ffcv": "÷ ffcv",
}


def load(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        UserError: it is not there, or no result of the benchmark.
    """
    result = read_json(path, "`make bench` writes one")
    if "machine" not in result:
        raise UserError(f"{path}: no result of `tools.bench`")
    return result


def table(result: dict[str, Any]) -> str:
    """All of a result as Markdown tables."""
    parts = []
    if "rows" in result:
        parts += [_rates(result), _costs(result)]
        if result["scaling"]:
            parts.append(_scaling(result))
        parts += [f"{name} cannot: {'; '.join(words)}." for name, words in result["cannot"].items()]
    parts += [_SECTIONS[name](result[name]) for name in _SECTIONS if name in result]
    return "\n\n".join(parts)


_FEW = 5
"""Fewer rounds say little of an interval: it is left out."""


def _between(spread: dict[str, float], rounds: int, digits: int = 0) -> str:
    """The 95 % interval, in words."""
    return f"{spread['low']:.{digits}f} to {spread['high']:.{digits}f}" if rounds >= _FEW else ""


def _rates(result: dict[str, Any]) -> str:
    names = [name for name in _RATIOS if any(name in found for found in result["ratios"].values())]
    rows = []
    for row in result["rows"]:
        rate = row["images_per_s"]
        name = f"{row['pipeline']}/{row['stage']}"
        ratios, sure = result["ratios"].get(name, {}), result["ratio_intervals"].get(name, {})
        cells = []
        for of in names:
            low, high = sure.get(of, (0, 0))
            between = f" ({low:.2f} to {high:.2f})" if low < high and result["rounds"] >= _FEW else ""
            cells.append(f"{ratios[of]:.2f}{between}" if of in ratios else "")
        rows.append(
            [row["pipeline"], row["stage"], f"{rate['median']:.0f}", _between(rate, result["rounds"]), *cells]
        )
    return markdown.table(["pipeline", "stage", "images/s", "95 %", *(_RATIOS[name] for name in names)], rows)


def _costs(result: dict[str, Any]) -> str:
    gpu = any(row.get("gpu_mb") is not None for row in result["rows"])
    rows = []
    for row in result["rows"]:
        cells = [
            row["pipeline"],
            row["stage"],
            f"{row['views_per_s']:.0f}" if row["views_per_s"] else "",
            f"{row['mb_per_s']:.1f}",
            f"{row['cpu_ms_per_image']:.2f}",
            f"{row['first_batch_s']:.2f}" if "first_batch_s" in row else "",
            f"{row['peak_rss_mb']:.0f}" if "peak_rss_mb" in row else "",
        ]
        if gpu:
            cells.append(f"{row['gpu_mb']:.0f}" if row.get("gpu_mb") is not None else "")
        rows.append(cells)
    head = ["pipeline", "stage", "views/s", "MB/s read", "CPU ms/image", "first batch, s", "peak RSS, MB"]
    return markdown.table([*head, *(["GPU, MB"] if gpu else [])], rows)


def _scaling(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['pipeline']}/{row['stage']}",
            str(row["threads"]),
            f"{row['images_per_s']['median']:.0f}",
            _between(row["images_per_s"], result["rounds"]),
            f"{row['cpu_ms_per_image']:.2f}",
        ]
        for row in sorted(result["scaling"], key=lambda row: (row["pipeline"], row["threads"]))
    ]
    return markdown.table(["stage", "threads", "images/s", "95 %", "CPU ms/image"], rows)


def _memory(memory: dict[str, Any]) -> str:
    course = memory.get("mb", {})  # results of before it was kept have none
    rows = [["batches", *map(str, course)], ["MB", *map(str, course.values())]]
    table = f"\n\n{markdown.table(rows[0], rows[1:])}" if course else ""
    return (
        f"Memory of {memory['loader']} over {memory['batches']} batches: {memory['first_mb']:.0f} MB "
        f"after a tenth, {memory['last_mb']:.0f} at the end, {memory['max_mb']:.0f} at most, "
        f"{memory['slope_kb_per_batch']:+.2f} kB a batch{table}"
    )


def _profile(profile: dict[str, Any]) -> str:
    rows = [
        [
            row["step"],
            f"{row['images_per_s']['median']:.0f}",
            _between(row["images_per_s"], profile["rounds"]),
            f"{row['adds_ms']['median']:+.2f}",
            _between(row["adds_ms"], profile["rounds"], 2),
            f"{row['adds_cpu_ms']:+.2f}",
            f"{100 * row['share']:.0f} %",
        ]
        for row in profile["rows"]
    ]
    head = ["up to this step", "images/s", "95 %", "adds ms/image", "95 %", "adds CPU ms/image", "share"]
    return f"What each step of {profile['pipeline']} costs:\n\n{markdown.table(head, rows)}"


def _sweep(sweep: dict[str, Any]) -> str:
    rows = [
        [
            row["setting"],
            f"{row['value']}",
            f"{row['images_per_s']['median']:.0f}",
            _between(row["images_per_s"], sweep["rounds"]),
            "taken" if row["best"] else "",
        ]
        for row in sweep["rows"]
    ]
    skipped = "".join(f" {name} is a GPU's alone." for name in sweep["skipped"])
    settings = "\n".join(f"    {line}" for line in sweep["config"])
    return (
        f"Settings of {sweep['stage']}, one after another:{skipped}\n\n"
        f"{markdown.table(['setting', 'value', 'images/s', '95 %', ''], rows)}\n\n"
        f"The fastest:\n\n{settings}"
    )


def _train(train: dict[str, Any]) -> str:
    steps, images = train["steps_per_s"], train["images_per_s"]
    return (
        f"Training {train['config']} ({train['method']}, {train['backbone']}, background "
        f"{train['background']}, batch {train['batch_size']}, {train['ranks']} rank(s)): "
        f"{steps['loader']:.2f} steps/s ({images['loader']:.0f} images/s) with the loader, "
        f"{steps['held']:.2f} with one batch held: {train['loader_over_held']:.3f}. "
        f"{100 * train['waiting']:.1f} % of the time was spent waiting for data."
    )


def _startup(startup: dict[str, Any]) -> str:
    return (
        f"Start of {startup['loader']} with {startup['samples']} samples: built after "
        f"{startup['build_s']:.1f} s, "
        f"first batch after {startup['first_batch_s']:.1f} s, {startup['peak_rss_mb']:.0f} MB at most."
    )


_SECTIONS = {"profile": _profile, "sweep": _sweep, "train": _train, "startup": _startup, "memory": _memory}


def _sections(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [result[name] for name in _SECTIONS if name in result]


def page(result: dict[str, Any], picture: str | None) -> str:
    """A page of `benchmarks/`: what, where, how, and the tables."""
    place, data = result["machine"], result["data"]
    lines = [
        f"# {place['processor'] if place['device'] == 'cpu' else place['device']}, {place['cpus']} CPUs",
        "",
        f"{place['processor']}; Python {place['python']}, torch {place['torch']}, torchvision "
        f"{place['torchvision']}, DALI {place['dali']}. Data: {data['photos']} photos, {data['mb']:.0f} MB, "
        f"{data['shards']} shards. An image is a photo with all its views. Figures are medians of rounds in "
        f"turn, their 95 % intervals (of {_FEW} rounds or more) a bootstrap over rounds.",
        "",
    ]
    for section in (result, *_sections(result)):
        if "command" in section:
            lines.append(f"    {section['command']}    # {section['date']}")
    if "rounds" in result:
        config = next(iter(result["config"].values()))
        lines += [
            "",
            f"Batch {config['batch_size']}, {config['threads']} threads, {result['rounds']} rounds of "
            f"{result['batches']} batches.",
        ]
    if picture:
        lines += ["", f"![images per second by stage, and by threads]({picture})"]
    return "\n".join([*lines, "", table(result), ""])


def command_line(words: list[str]) -> str:
    """The command line for the page, without where this machine keeps things."""
    paths = ("--shards", "--ffcv", "--json")
    shown, before = [], ""
    for word in words:
        name, equals, value = word.partition("=")
        if before in paths:
            word = _shown(before, word)
        elif equals and name in paths:
            word = f"{name}={_shown(name, value)}"
        shown.append(shlex.quote(word))
        before = word
    return " ".join(["python -m tools.bench", *shown])


def _shown(name: str, value: str) -> str:
    return Path(value).name if name == "--json" else name.lstrip("-").upper()


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars with their intervals, and the curve over threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in result["rows"] if row["stage"] != "read"]  # ten times the rest
    curves = sorted({(row["pipeline"], row["stage"]) for row in result["scaling"]})
    figure, axes = pyplot.subplots(
        1,
        2 if curves else 1,
        figsize=(11 if curves else 7, 1 + 0.32 * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    bars = axes[0][0]
    for place, row in enumerate(rows):
        rate, stage = row["images_per_s"], row["stage"]
        ours = stage == "plain" or stage.startswith("bg_")
        colour = _OURS if ours else _SHARED if stage == "decode" else _OTHERS
        around = [[rate["median"] - rate["low"]], [rate["high"] - rate["median"]]]
        bars.barh(place, rate["median"], xerr=around, color=colour, ecolor="black", capsize=2)
    bars.set_yticks(range(len(rows)), [_label(row) for row in rows])
    bars.invert_yaxis()
    bars.set_xlabel("images/s (a photo with all its views)")
    bars.set_title("ours blue; others orange, doing what is in brackets", fontsize=9)
    for pipeline, stage in curves:
        found = [row for row in result["scaling"] if (row["pipeline"], row["stage"]) == (pipeline, stage)]
        found.sort(key=lambda row: row["threads"])
        threads = [row["threads"] for row in found]
        rates = [row["images_per_s"] for row in found]
        middle = [rate["median"] for rate in rates]
        around = [
            [rate["median"] - rate["low"] for rate in rates],
            [rate["high"] - rate["median"] for rate in rates],
        ]
        axes[0][1].errorbar(threads, middle, yerr=around, marker="o", capsize=2, label=f"{pipeline} {stage}")
    if curves:
        curve = axes[0][1]
        curve.set_xlabel("threads")
        curve.set_ylabel("images/s")
        curve.set_xticks(sorted({row["threads"] for row in result["scaling"]}))
        curve.set_xlim(0)
        curve.set_ylim(0)
        curve.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _label(row: dict[str, Any]) -> str:
    others = {"torchvision": "fullest", "dali": "plain", "webdataset": "plain", "ffcv": "part of plain"}
    does = f" ({others[row['stage']]})" if row["stage"] in others else ""
    return f"{row['pipeline']} {row['stage']}{does}".strip("- ")


def write_page(result: dict[str, Any], beside: Path) -> list[Path]:
    """The page and, of a main benchmark, the picture, beside the JSON file; returns their paths."""
    picture, text = beside.with_suffix(".png"), beside.with_suffix(".md")
    written = [text]
    if "rows" in result:
        draw(result, picture)
        written.append(picture)
    write_text(text, page(result, picture.name if "rows" in result else None))
    return written


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.bench.page", description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, nargs="+", help="result files of tools.bench")
    for path in parser.parse_args().json:
        print(*write_page(load(path), path))


if __name__ == "__main__":
    run(main)
