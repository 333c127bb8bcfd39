"""Parity of the loader's views with the torchvision reference, pixel by pixel and in distribution.

    python -m tools.parity --shards out/demo/shards [--photos 64] [--device cpu] [--json FILE]

Pixel by pixel: every step of a view is made by the loader's renderer, from a table of jobs that do nothing
else, and by the reference's functions, from the same input and with the same forced parameters (boxes are
those that the renderer took); `view` is all of them in a row, a donor's tile treated likewise behind it. In
distribution: every view of every method, each loader with its own random numbers.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dali_bgaug import markdown
from dali_bgaug.config import merge, override, validate
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.shards import open_shards, read_samples
from pipelines import LoaderConfig, build_loader
from pipelines.build import choose_device
from pipelines.torchvision_loader import TorchvisionLoader
from tools.bench.parity_steps import compare_pixels
from tools.cli import require, run, tool_parser

FULLEST = {"moco_v2": "swaps", "byol": "random", "swav": "random", "rotnet": "random", "supervised": "random"}
"""Each training method with the background that does most."""
BINS = 32


def statistics(loader: Any, config: LoaderConfig, photos: int) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation by channel, in grey levels, the histogram of grey levels (shares of BINS),
    and the share of replaced backgrounds, of every view over so many photos."""
    mean, std = (255 * torch.tensor(values) for values in (config.normalise.mean, config.normalise.std))
    parts: dict[str, list[tuple[torch.Tensor, ...]]] = {}
    replaced = []
    batches = (batch for _ in range(photos) for batch in loader)  # as many epochs as it takes
    for batch in islice(batches, -(-photos // config.batch_size)):
        replaced.append(batch["replaced"].float().mean(dim=0))
        for name, view in batch.items():
            if view.is_floating_point() and view.dim() >= 4:
                levels = view.float().cpu().movedim(-3, -1).flatten(0, -2) * std + mean
                histogram = torch.histc(levels.mean(dim=1), BINS, 0, 255) / len(levels)
                parts.setdefault(name, []).append((levels.mean(dim=0), (levels**2).mean(dim=0), histogram))
    rates = dict(zip(config.single_views, torch.stack(replaced).mean(dim=0).tolist(), strict=True))
    found = {}
    for name, of_batches in parts.items():
        first, second, histogram = (torch.stack(part).mean(dim=0) for part in zip(*of_batches, strict=True))
        found[name] = {"mean": first.tolist(), "std": (second - first**2).sqrt().tolist()}
        found[name] |= {"histogram": histogram.tolist(), "replaced": rates.get(name)}
    return found


def compare_distributions(config: LoaderConfig, photos: int) -> dict[str, dict[str, float]]:
    """Differences by view: the largest difference of channel means and standard deviations in grey levels,
    half the sum of differences of the histograms (total variation), and the shares of replaced
    backgrounds."""
    with build_loader(config) as ours:
        found = statistics(ours, config, photos)
    with TorchvisionLoader(config) as theirs:
        expected = statistics(theirs, config, photos)
    result = {}
    for name, one in found.items():
        other = expected[name]
        apart = {key: np.abs(np.subtract(one[key], other[key])) for key in ("mean", "std", "histogram")}
        row = {key: round(float(apart[key].max()), 2) for key in ("mean", "std")}
        row["histogram"] = round(float(apart["histogram"].sum() / 2), 4)
        if one["replaced"] is not None:
            row["replaced"] = round(one["replaced"], 4)
            row["replaced_torchvision"] = round(other["replaced"], 4)
        result[name] = row
    return result


def table(result: dict[str, Any]) -> str:
    """The report as Markdown."""
    pixels = [[name, f"{row['mean']:.3f}", f"{row['p99.9']:.2f}"] for name, row in result["pixels"].items()]
    columns = [
        ("view", "{view}"),
        ("mean", "{mean:.2f}"),
        ("std", "{std:.2f}"),
        ("histogram", "{histogram:.3f}"),
        ("replaced: DALI", "{replaced:.3f}"),
        ("torchvision", "{replaced_torchvision:.3f}"),
    ]
    views = [{"view": name, **row} for name, row in result["distributions"].items()]
    lines = [
        f"{result['photos']} photos, {result['device']}: absolute difference in grey levels of 255.",
        "",
        markdown.table(("step", "mean", "99.9 %"), pixels),
        "",
        f"{result['distribution_photos']} photos, own draws of each loader: largest difference of channel",
        "means and standard deviations (grey levels), total variation of the grey histograms, share of views",
        "with a replaced background.",
        "",
        markdown.formatted(views, columns),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = tool_parser("tools.parity", __doc__)
    add = parser.add_argument
    add("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    add("--photos", type=int, default=64, help="compared pixel by pixel (%(default)s)")
    add("--distribution", type=int, default=2000, metavar="N", help="photos of each method (%(default)s)")
    add("--json", type=Path, default=Path("out/parity.json"), help="(%(default)s)")
    add("overrides", nargs="*", metavar="key=value", help="loader config, e.g. device=cpu")
    args = parser.parse_intermixed_args()
    require(args.photos >= 2, f"--photos={args.photos}: two at least, each lends the other its tile")
    manifest = open_shards(args.shards, option="--shards")
    every = (sample for shard in manifest.shards for sample in read_samples(args.shards, shard))
    samples = list(islice((sample for sample in every if sample.tile is not None), args.photos))
    values = {"shards": str(args.shards), "batch_size": 50, "crop": {"fg_min": 0.1}}
    values = override(values, args.overrides)
    if set(values) & {"pipeline", "background"}:
        raise UserError("pipeline=, background=: every method is compared, with its fullest background")
    device = "cpu" if choose_device(values.get("device", "auto"), None) is None else "gpu"
    distributions = {}
    for method, kind in tqdm(FULLEST.items(), desc="parity", unit="method"):
        own = {"pipeline": method, "background": {"kind": kind}}
        config = validate(LoaderConfig, merge(values, own), "the options")
        rows = compare_distributions(config, args.distribution)
        distributions |= {f"{method}/{name}": row for name, row in rows.items()}
    result = {
        "photos": len(samples),
        "device": device,
        "pixels": compare_pixels(samples, device),
        "distribution_photos": args.distribution,
        "distributions": distributions,
    }
    write_text(args.json, json.dumps(result, indent=1) + "\n")
    print(table(result))
    print(f"\n{args.json}")


if __name__ == "__main__":
    run(main)
