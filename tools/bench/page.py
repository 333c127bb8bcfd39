"""The result as a table, as a page of `benchmarks/`, and as a figure.

python -m tools.bench.page benchmarks/cpu2.json     # benchmarks/cpu2.md and .png, from the JSON alone
"""

import shlex
from pathlib import Path
from typing import Any

from dali_bgaug import markdown
from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_text
from tools.cli import run, tool_parser

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
_STAGE = [("pipeline", "{pipeline}"), ("stage", "{stage}")]


def _figure(title: str, name: str, rounds: int, form: str = ".0f") -> list[tuple[str, str]]:
    """Two columns: a figure's median and, in words, its 95 % interval."""
    between = f"{{{name}[low]:{form}}} to {{{name}[high]:{form}}}" if rounds >= _FEW else ""
    return [(title, f"{{{name}[median]:{form}}}"), ("95 %", between)]


def _rates(result: dict[str, Any]) -> str:
    names = [name for name in _RATIOS if any(name in found for found in result["ratios"].values())]
    rows = []
    for row in result["rows"]:
        stage = f"{row['pipeline']}/{row['stage']}"
        cells = {name: f"{ratio:.2f}" for name, ratio in result["ratios"].get(stage, {}).items()}
        for name, (low, high) in result["ratio_intervals"].get(stage, {}).items():
            if low < high and result["rounds"] >= _FEW:
                cells[name] += f" ({low:.2f} to {high:.2f})"
        rows.append(row | cells)
    ratios = [(_RATIOS[name], f"{{{name}}}") for name in names]
    columns = [*_STAGE, *_figure("images/s", "images_per_s", result["rounds"]), *ratios]
    return markdown.formatted(rows, columns)


def _costs(result: dict[str, Any]) -> str:
    columns = [
        *_STAGE,
        ("views/s", "{views_per_s:.0f}"),
        ("MB/s read", "{mb_per_s:.1f}"),
        ("CPU ms/image", "{cpu_ms_per_image:.2f}"),
        ("first batch, s", "{first_batch_s:.2f}"),
        ("peak RSS, MB", "{peak_rss_mb:.0f}"),
    ]
    if any(row.get("gpu_mb") is not None for row in result["rows"]):
        columns.append(("GPU, MB", "{gpu_mb:.0f}"))
    rows = [row | {"views_per_s": row["views_per_s"] or None} for row in result["rows"]]
    return markdown.formatted(rows, columns)


def _scaling(result: dict[str, Any]) -> str:
    columns = [
        ("stage", "{pipeline}/{stage}"),
        ("threads", "{threads}"),
        *_figure("images/s", "images_per_s", result["rounds"]),
        ("CPU ms/image", "{cpu_ms_per_image:.2f}"),
    ]
    rows = sorted(result["scaling"], key=lambda row: (row["pipeline"], row["threads"]))
    return markdown.formatted(rows, columns)


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
    columns = [
        ("up to this step", "{step}"),
        *_figure("images/s", "images_per_s", profile["rounds"]),
        ("adds ms/image", "{adds_ms[median]:+.2f}"),
        _figure("", "adds_ms", profile["rounds"], ".2f")[1],
        ("adds CPU ms/image", "{adds_cpu_ms:+.2f}"),
        ("share", "{percent:.0f} %"),
    ]
    rows = [row | {"percent": 100 * row["share"]} for row in profile["rows"]]
    return f"What each step of {profile['pipeline']} costs:\n\n{markdown.formatted(rows, columns)}"


def _sweep(sweep: dict[str, Any]) -> str:
    columns = [
        ("setting", "{setting}"),
        ("value", "{value}"),
        *_figure("images/s", "images_per_s", sweep["rounds"]),
        ("", "{taken}"),
    ]
    rows = [row | {"taken": "taken" if row["best"] else ""} for row in sweep["rows"]]
    skipped = "".join(f" {name} is a GPU's alone." for name in sweep["skipped"])
    settings = "\n".join(f"    {line}" for line in sweep["config"])
    return (
        f"Settings of {sweep['stage']}, one after another:{skipped}\n\n"
        f"{markdown.formatted(rows, columns)}\n\nThe fastest:\n\n{settings}"
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
        f"{startup['build_s']:.1f} s, first batch after {startup['first_batch_s']:.1f} s, "
        f"{startup['peak_rss_mb']:.0f} MB at most."
    )


_SECTIONS = {"profile": _profile, "sweep": _sweep, "train": _train, "startup": _startup, "memory": _memory}


def page(result: dict[str, Any], figure: str | None) -> str:
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
    for section in (result, *(result[name] for name in _SECTIONS if name in result)):
        if "command" in section:
            lines.append(f"    {section['command']}    # {section['date']}")
    if "rounds" in result:
        config = next(iter(result["config"].values()))
        lines += [
            "",
            f"Batch {config['batch_size']}, {config['threads']} threads, {result['rounds']} rounds of "
            f"{result['batches']} batches.",
        ]
    if figure:
        lines += ["", f"![images per second by stage, and by threads]({figure})"]
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
    from dali_bgaug.figures import plt, save  # slow to import

    rows = [row for row in result["rows"] if row["stage"] != "read"]  # ten times the rest
    curves = sorted({(row["pipeline"], row["stage"]) for row in result["scaling"]})
    size = (11 if curves else 7, 1 + 0.32 * len(rows))
    figure, axes = plt.subplots(1, 1 + bool(curves), figsize=size, squeeze=False, layout="constrained")
    bars = axes[0][0]
    for place, row in enumerate(rows):
        rate, stage = row["images_per_s"], row["stage"]
        ours = stage == "plain" or stage.startswith("bg_")
        colour = _OURS if ours else _SHARED if stage == "decode" else _OTHERS
        bars.barh(place, rate["median"], xerr=_around([rate]), color=colour, ecolor="black", capsize=2)
    bars.set_yticks(range(len(rows)), [_label(row) for row in rows])
    bars.invert_yaxis()
    bars.set_xlabel("images/s (a photo with all its views)")
    bars.set_title("ours blue; others orange, doing what is in brackets", fontsize=9)
    for pipeline, stage in curves:
        found = [row for row in result["scaling"] if (row["pipeline"], row["stage"]) == (pipeline, stage)]
        found.sort(key=lambda row: row["threads"])
        threads, rates = [row["threads"] for row in found], [row["images_per_s"] for row in found]
        middle, label = [rate["median"] for rate in rates], f"{pipeline} {stage}"
        axes[0][1].errorbar(threads, middle, yerr=_around(rates), marker="o", capsize=2, label=label)
    if curves:
        curve = axes[0][1]
        ticks = sorted({row["threads"] for row in result["scaling"]})
        curve.set(xlabel="threads", ylabel="images/s", xticks=ticks, xlim=(0, None), ylim=(0, None))
        curve.legend(fontsize=8)
    save(figure, path, dpi=110)


def _around(rates: list[dict[str, float]]) -> list[list[float]]:
    """How far down and up the intervals of medians reach."""
    return [
        [rate["median"] - rate["low"] for rate in rates],
        [rate["high"] - rate["median"] for rate in rates],
    ]


def _label(row: dict[str, Any]) -> str:
    others = {"torchvision": "fullest", "dali": "plain", "webdataset": "plain", "ffcv": "part of plain"}
    does = f" ({others[row['stage']]})" if row["stage"] in others else ""
    return f"{row['pipeline']} {row['stage']}{does}".strip("- ")


def write_page(result: dict[str, Any], beside: Path) -> list[Path]:
    """The page and, of a main benchmark, the figure, beside the JSON file; returns their paths."""
    figure, text = beside.with_suffix(".png"), beside.with_suffix(".md")
    written = [text]
    if "rows" in result:
        draw(result, figure)
        written.append(figure)
    write_text(text, page(result, figure.name if "rows" in result else None))
    return written


def main() -> None:
    parser = tool_parser("tools.bench.page", __doc__)
    parser.add_argument("json", type=Path, nargs="+", help="result files of tools.bench")
    for path in parser.parse_args().json:
        print(*write_page(load(path), path))


if __name__ == "__main__":
    run(main)
