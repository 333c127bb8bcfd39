"""Does each method learn? Trains every demo recipe from several seeds and judges the features by k-NN.

    python -m tools.learning [--methods byol,swav] [--seeds 3] [--out out/learning] [--json FILE]

Photos are the demo set's; the bank is `train`, the questions are `mixed_same`, of the same kind but not seen
in training. Backgrounds stay as they are while training: they go with the class in both sets, and what
leaving them out does is another question. A network's baseline is itself untrained, with weights of the
same seed. What is finished is kept: a second run does the rest.
"""

import textwrap
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dali_bgaug import markdown
from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_json, write_text
from tools.bench.machine import describe, machine
from tools.cli import default_workers, require, run, start, tool_parser
from tools.offline.detectors.imported import ImportOptions
from tools.study.experiment_page import mean
from tools.study.splits import Split, pack_split
from tools.synthetic.demo_data import DemoSettings, write_demo_set

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = ("moco_v2", "byol", "swav", "rotnet", "supervised")
WORDS = ("data.background.kind=none", "data.crop.fg_min=0")
MOCO_WORDS = ("data.crop.scale=[0.2, 1.0]",)
"""The demo of MoCo-v2 crops near the object; here it sees what the other methods see."""
BANK, QUESTIONS = "train", "mixed_same"
SETTINGS = DemoSettings(test_photos=900)


def measure(methods: list[str], seeds: int, out: Path, workers: int) -> dict[str, Any]:
    """Train and judge; the result as it goes into the JSON file."""
    _pack(out, workers)
    jobs = [(method, seed) for method in methods for seed in range(seeds)]
    rows = []
    for method, seed in tqdm(jobs, desc="runs", unit="run", dynamic_ncols=True):
        path = out / f"{method}-{seed}" / "knn.json"
        if not path.exists():
            write_json(path, _run(method, seed, path.parent, out))
        rows.append({"method": method, "seed": seed, **read_json(path, "delete it to train again")})
    return {
        "machine": machine(None),
        "words": [*WORDS, *MOCO_WORDS],
        "rows": rows,
        "methods": _summary(methods, rows),
    }


def _pack(out: Path, workers: int) -> None:
    write_demo_set(data := out / "data", SETTINGS, workers)
    for split in (BANK, QUESTIONS):
        detector = ImportOptions(folder=data / "masks" / split)
        pack_split(Split(data / split, detector), out / split, out / split / "shards", workers)


def _run(method: str, seed: int, folder: Path, out: Path) -> dict[str, Any]:
    """One run: k-NN accuracy trained and untrained, seconds of training, and the last loss."""
    began = time.perf_counter()
    words = [f"data.shards={out / BANK / 'shards'}", *WORDS, f"seed={seed}", f"data.seed={seed}"]
    words += MOCO_WORDS if method == "moco_v2" else ()
    config = str(CONFIGS / f"{method}_demo.yaml")
    start("train", "--config", config, "--out", str(folder), "--auto-resume", *words, quiet=True)
    seconds = time.perf_counter() - began
    accuracy = {}
    for name, flags in {"trained": (), "untrained": ("--untrained",)}.items():
        path = folder / f"{name}.json"
        places = [f"--data={out / BANK / 'shards'}", f"--test={out / QUESTIONS / 'shards'}", f"--json={path}"]
        start("train.evaluate", "knn", f"--checkpoint={folder}", *places, *flags, quiet=True)
        accuracy[name] = read_json(path, "run again")["top1"]
    card = read_json(folder / "backbone.json", "run again")
    loss = round(card["metrics"]["loss"], 4)
    return {**accuracy, "seconds": round(seconds), "steps": card["step"], "loss": loss}


def _summary(methods: list[str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the standard error of the gain."""
    summary = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        gains = [row["trained"] - row["untrained"] for row in own]
        gain, error = mean(gains)
        summary[method] = {
            "seeds": len(own),
            **{name: mean([row[name] for row in own])[0] for name in ("untrained", "trained")},
            "gain": gain,
            "standard_error": error,
            "least_gain": round(min(gains), 4),
            "seconds": round(mean([row["seconds"] for row in own])[0]),
        }
    return summary


def page(result: dict[str, Any], command: str) -> str:
    """The result as a Markdown page."""
    words = ", ".join(f"`{word}`" for word in result["words"])
    what = (
        f"Every demo recipe with {words} (the last for MoCo-v2), on the demo set's {SETTINGS.photos} photos. "
        f"Accuracy is that of weighted k-NN (k 20, temperature .07): {QUESTIONS}'s {SETTINGS.test_photos} "
        f"photos by the training photos, of {SETTINGS.classes} classes, before training and after it. Gains "
        "are in points; the least is that of the worst seed. Seconds are those of training."
    )
    head = ["# Does each method learn?", f"{describe(result['machine'])}.", f"    {command}"]
    shares, points = ("untrained", "trained"), ("gain", "standard_error", "least_gain")
    columns = [
        *((name, f"{{{name}}}") for name in ("method", "seeds")),
        *((name, f"{{{name}:.1f}} %") for name in shares),
        *((name.replace("_", " "), f"{{{name}:.1f}}") for name in points),
        ("seconds", "{seconds}"),
    ]
    rows = []
    for method, row in result["methods"].items():
        percent = {name: 100 * row[name] for name in (*shares, *points) if row[name] is not None}
        rows.append({"method": method, "seeds": row["seeds"], "seconds": row["seconds"], **percent})
    return "\n\n".join([*head, textwrap.fill(what, 118), markdown.formatted(rows, columns)]) + "\n"


def main() -> None:
    parser = tool_parser("tools.learning", __doc__)
    add = parser.add_argument
    add("--methods", default=",".join(METHODS), help="(%(default)s)")
    add("--seeds", type=int, default=3, help="runs of each method (%(default)s)")
    add("--out", type=Path, default=Path("out/learning"), help="data and runs (%(default)s)")
    add("--json", type=Path, help="result; a page beside it (default OUT/learning.json)")
    add("--workers", type=int, default=default_workers(), help="processes that pack (all CPUs)")
    args = parser.parse_args()
    methods = args.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        raise UserError(f"--methods={args.methods}: no {min(unknown)}; there are {', '.join(METHODS)}")
    require(args.seeds >= 1, f"--seeds={args.seeds}: give one at least")
    result = measure(methods, args.seeds, args.out, args.workers)
    path = args.json or args.out / "learning.json"
    write_json(path, result)
    words = f"--methods {args.methods} --seeds {args.seeds} --json {path}"
    text = page(result, f"python -m tools.learning {words}")
    write_text(path.with_suffix(".md"), text)
    print(text)
    print(f"{path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    run(main)
