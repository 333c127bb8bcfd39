"""The whole path on one machine: photos, masks, tiles, shards, pre-training, figures.

    python -m tools.demo [--data /folder/of/class/folders [--masks /parallel/tree]] [--out out/demo]

Ends within minutes on two CPU cores, and uses a GPU if there is one. Without --data it writes a demo set. A
second run with the same photos keeps the stores and shards, and goes on with training that was interrupted.
"""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.files import require_folder, write_text
from dali_bgaug.shards import open_shards
from pipelines import LoaderConfig, build_loader
from tools.bench.machine import machine
from tools.cli import default_workers, require, run, start, tool_parser
from tools.offline.masks import choose_detector, write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store
from tools.study.plot import plot_runs, read_curves
from tools.study.views import draw_views
from tools.synthetic.demo_data import DemoSettings, write_demo_set

CONFIG = Path(__file__).parents[2] / "configs" / "moco_v2_demo.yaml"
STEPS = 300
"""Training steps of a set that is smaller than the demo's; larger ones take the recipe's epochs."""
PER_FILE = 250
"""Photos a file: small, so that all workers are busy."""
LOADER_SECONDS = 3.0
"""For which the loader is timed alone."""
CROP_SIZE = 160
"""Side of the views on the contact sheet."""
STORES = ("masks", "tiles", "shards", *(f"{name}-report.json" for name in ("masks", "tiles", "shards")))
RUN = (
    *("checkpoints", "log.jsonl", "config.json", "tensorboard", "backbone.pt", "backbone.json"),
    *("summary.json", "curves.png", "views.png"),
)


def run_demo(
    data: Path | None, masks: Path | None, out: Path, workers: int, overrides: list[str]
) -> dict[str, Any]:
    """Run everything; returns what summary.json holds."""
    began = time.perf_counter()
    require(data or not masks, f"--masks={masks}: given without --data; give the folder of the photos too")
    for option, folder in (("--data", data), ("--masks", masks)):
        if folder is not None:
            require_folder(folder, option)
    _forget_other_inputs(out, data, masks)
    if data is None:
        _say(1, "photos: a demo set with exact masks")
        write_demo_set(out / "data", DemoSettings(), workers)
        data, masks = out / "data" / "train", out / "data" / "masks" / "train"
    else:
        _say(1, f"photos: {data}")
    detector = choose_detector(None, masks, None, [])
    _say(2, f"masks: {'imported' if masks else 'found by the detector fused'}")
    write_mask_store(data, detector, out / "masks", per_file=PER_FILE, workers=workers).finish()
    _say(3, "tiles: every photo's background, tiled")
    write_tile_store(out / "masks", out / "tiles", workers=workers).finish()
    _say(4, "shards: photos, masks and tiles packed and shuffled")
    stores = out / "masks", out / "tiles"
    write_shards(data, *stores, out / "shards", per_shard=PER_FILE, workers=workers).finish()
    words, loader = _recipe(open_shards(out / "shards").samples, out, overrides)
    _say(5, "views: what the loader makes of the photos")
    views = {}
    for name, view in loader.views.items():  # which are too small to look at
        views[name] = view.replaced(crop=view.crop.replaced(size=CROP_SIZE))
    draw_views(loader.replaced(views=views), out / "views.png")
    rate, device = _loader_rate(loader)
    print(f"the loader alone: {rate:.0f} images/s on {device}")
    _say(6, "pre-training: MoCo-v2 with BG_Swaps")
    start("train", f"--config={CONFIG}", f"--out={out}", "--auto-resume", *words)
    require((out / "backbone.pt").exists(), f"{out}: training was stopped; the same command goes on with it")
    return _summarise(out, rate, device, time.perf_counter() - began)


def _say(number: int, text: str) -> None:
    print(f"[{number}/6] {text}", flush=True)


def _forget_other_inputs(out: Path, data: Path | None, masks: Path | None) -> None:
    """Results of other photos make way; a finished run makes way for the next."""
    inputs = json.dumps({"data": data and str(data.resolve()), "masks": masks and str(masks.resolve())})
    record = out / "inputs.json"
    if record.exists() and record.read_text() != inputs:
        print(f"{out}: held results of other photos; they are replaced")
        _remove(out, (*STORES, *RUN))
    elif (out / "summary.json").exists():
        _remove(out, RUN)
    write_text(record, inputs)


def _remove(out: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def _recipe(samples: int, out: Path, overrides: list[str]) -> tuple[list[str], LoaderConfig]:
    """The words of the command line that fit the demo's recipe to this data set, and its loader."""
    values = read_yaml(CONFIG)
    words = [f"data.shards={out / 'shards'}"]
    batch = values["data"]["batch_size"]
    require(samples >= 4, f"--data: {samples} photos are too few to train on; give at least 4")
    if samples < 2 * batch:
        batch = 2 ** int(math.log2(max(2, samples // 2)))
        words += [f"data.batch_size={batch}", f"method.bn_group={max(2, batch // 2)}"]
    words.append(f"epochs={max(values['epochs'], -(-STEPS // (samples // batch)))}")
    words += overrides
    return words, validate(LoaderConfig, override(values, words)["data"], f"{CONFIG}: data")


def _loader_rate(config: LoaderConfig) -> tuple[float, str]:
    """Images per second of the loader alone, and the name of its device."""
    with build_loader(config) as loader, tqdm(desc="loader", unit="photo") as bar:
        first = next(iter(loader))
        device_id = first["query"].device.index
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < LOADER_SECONDS:
            for _ in loader:
                count += loader.batch_size
                bar.update(loader.batch_size)
        rate = count / (time.perf_counter() - start)
    return rate, machine(device_id)["device"]


def _summarise(out: Path, rate: float, device: str, seconds: float) -> dict[str, Any]:
    config = json.loads((out / "config.json").read_text())
    negatives = config["method"]["queue"] + (config["data"]["background"]["kind"] == "swaps")
    chance = math.log(1 + negatives)
    steps, losses = read_curves(out)["loss"]
    filled_at = config["method"]["queue"] // config["data"]["batch_size"]
    full = losses[steps > filled_at] if steps[-1] > filled_at else losses
    width = max(1, min(20, len(full) // 4))
    summary = {
        "first_loss": round(float(full[:width].mean()), 4),
        "last_loss": round(float(full[-width:].mean()), 4),
        "chance_loss": round(chance, 4),
        "loader_images_per_s": round(rate, 1),
        "seconds": round(seconds, 1),
        "device": device,
        "steps": int(steps[-1]),
        "samples": open_shards(out / "shards").samples,
        "note": f"first_loss and last_loss are means of {width} steps with a queue full of keys "
        f"(from step {filled_at + 1}; before, it holds random vectors); chance_loss is ln(1 + {negatives}), "
        "that of choosing blindly among the positive and all negatives",
    }
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    plot_runs([out], out / "curves.png", chance, filled_at)
    return summary


def main() -> None:
    parser = tool_parser("tools.demo", __doc__)
    add = parser.add_argument
    add("--data", type=Path, help="folder of class folders of JPEGs (default: a demo set is written)")
    add("--masks", type=Path, help="parallel folder tree of masks (default: detected)")
    add("--out", type=Path, default=Path("out/demo"), help="(%(default)s)")
    add("--workers", type=int, default=default_workers(), help="processes (all CPUs)")
    add("overrides", nargs="*", metavar="key=value", help="values of the recipe to override")
    args = parser.parse_intermixed_args()
    summary = run_demo(args.data, args.masks, args.out, args.workers, args.overrides)
    print(
        f"done in {summary['seconds']:.0f} s on {summary['device']}: loss {summary['first_loss']} -> "
        f"{summary['last_loss']} (chance {summary['chance_loss']})"
    )
    print(f"results in {args.out}/: curves.png views.png log.jsonl checkpoints/ backbone.pt summary.json")


if __name__ == "__main__":
    run(main)
