"""How far the DALI views are from the torchvision yardstick's, pixel by pixel and in distribution.

    python -m tools.parity --shards out/demo/shards [--photos 64] [--device cpu] [--json FILE]

Pixel by pixel: every step of a view is made by the DALI graph's own pieces and by the yardstick's functions,
from the same input and with the same forced parameters; `view` is all of them in a row, a donor's tile
treated likewise behind it. In distribution: every view of every method, each loader with its own random
numbers.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image
from tqdm import tqdm

from dali_bgaug.config import override, validate
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.graph import background, masks, photometric
from dali_bgaug.graph.context import Context
from dali_bgaug.graph.crop import Window, crop, decode
from dali_bgaug.graph.plan import expand
from dali_bgaug.shards import Sample, open_shards, pack_mask, read_samples
from dali_bgaug.windows import UNIFORMS, CropOptions, choose_windows
from pipelines import LoaderConfig, build_loader
from pipelines import torchvision_views as yardstick
from pipelines.build import choose_device
from pipelines.torchvision_loader import TorchvisionLoader
from tools._cli import run

SIZE = 224
FULLEST = {
    "moco_v2": "swaps",
    "byol": "random",
    "swav": "random",
    "rotnet": "random",
    "supervised": "random",
}
"""Each training method with the background that does most."""
BINS = 32
Columns = list[list[np.ndarray]]


@dataclass(frozen=True)
class Parameters:
    """Forced parameters of one view of each photo, [N] each; windows [N, 4] as the loader has them."""

    window: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    sigma: np.ndarray

    @classmethod
    def draw(cls, photos: list[Image.Image], rng: np.random.Generator) -> "Parameters":
        """MoCo-v2's ranges."""
        count, (width, height) = len(photos), np.array([photo.size for photo in photos]).T
        uniforms = rng.random((count, 1, UNIFORMS), np.float32)
        window = choose_windows(uniforms, height, width, [CropOptions()])[:, 0]
        factors = rng.uniform(0.6, 1.4, (3, count))
        return cls(window, *factors, rng.uniform(-0.1, 0.1, count), rng.uniform(0.1, 2.0, count))

    def only(self, *names: str) -> "Parameters":
        """The same with nothing but these changed (and no blur: sigma 0)."""
        neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "sigma": 0.0}
        kept = {
            name: getattr(self, name) if name in names else np.full(len(self.hue), value)
            for name, value in neutral.items()
        }
        return Parameters(self.window, **kept)

    def cut(self, number: int) -> dict[str, Any]:
        """A view's window in the yardstick's words."""
        y0, x0, y1, x1 = self.window[number].tolist()
        return {"window": (y0, min(x0, x1), y1, max(x0, x1)), "flip": x0 > x1, "size": SIZE}

    def look(self, number: int, **more: bool) -> yardstick.Look:
        """A view's look in the yardstick's words."""
        names = ("brightness", "contrast", "saturation", "hue")
        values = {name: float(getattr(self, name)[number]) for name in names}
        return yardstick.Look(**values, sigma=float(self.sigma[number]) or None, **more)

    def columns(self, grayscale: bool = False) -> Columns:
        """colour_matrix and sigma, as the graph takes them."""
        saturation = np.zeros_like(self.hue) if grayscale else self.saturation
        matrix, offset = photometric.colour_matrix(self.brightness, self.contrast, saturation, self.hue)
        return [list(matrix), list(offset), list(self.sigma.astype(np.float32))]

    def windows(self) -> Columns:
        """Start and end of the windows."""
        return [list(self.window[:, :2].copy()), list(self.window[:, 2:].copy())]


def _run_piece(piece: Callable[..., Any], device: str, columns: Columns) -> list[np.ndarray]:
    """Run a piece of the graph on columns of samples: pixels go to the device, numbers stay on the CPU."""

    @pipeline_def(
        batch_size=len(columns[0]),
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        enable_conditionals=True,
        prefetch_queue_depth=1,
    )
    def define() -> Any:
        nodes = []
        for column in columns:
            pixels = column[0].ndim == 3
            node = fn.external_source(source=[column], cycle=True, layout="HWC" if pixels else None)
            nodes.append(node.gpu() if pixels and device == "gpu" else node)
        return piece(*nodes)

    [output] = define().run()
    output = output.as_cpu() if device == "gpu" else output
    return [np.asarray(output[number]).astype(np.float32) for number in range(len(columns[0]))]


def _styled(view: Any, matrix: Any, offset: Any, sigma: Any, steps: str, device: str) -> Any:
    """Those of the steps "colour", "blur" and "solarize" that `steps` names, for every photo."""
    yes = types.Constant(True, device="cpu")
    coin = {name: yes if name in steps else None for name in ("colour", "blur", "solarize")}
    look = photometric.Look(coin["colour"], matrix, offset, coin["blur"], sigma, coin["solarize"])
    return photometric.apply_look(view, look, device)


def compare_pixels(samples: list[Sample], device: str = "cpu", seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean and 99.9th percentile of the absolute difference, in grey levels of 255, by step.

    samples: photos with masks and tiles; behind each the next one's tile is put. device: "cpu" or "gpu".
    """
    rng, count, result = np.random.default_rng(seed), len(samples), {}
    context = Context(device, 0, 0, count, hw_decoder_load=0.0)
    photos = [yardstick.decode(sample.photo) for sample in samples]
    donors = samples[1:] + samples[:1]
    tiles = [yardstick.decode(sample.tile) for sample in donors]
    parameters, of_tile = Parameters.draw(photos, rng), Parameters.draw(tiles, rng)
    level = 255 * rng.random(count)

    def record(name: str, piece: Callable[..., Any], columns: Columns, expected: list[Any]) -> None:
        found = _run_piece(piece, device, columns)
        pairs = zip(found, map(np.asarray, expected), strict=True)
        difference = np.concatenate([np.abs(a - b.astype(np.float32)).ravel() for a, b in pairs])
        high = float(np.quantile(difference, 0.999))
        result[name] = {"mean": round(float(difference.mean()), 3), "p99.9": round(high, 2)}

    def encoded(data: list[bytes]) -> list[np.ndarray]:
        return [np.frombuffer(one, np.uint8) for one in data]

    def floats(images: list[Image.Image]) -> list[np.ndarray]:
        return [np.asarray(image).astype(np.float32) for image in images]

    def cropped(image: Any, start: Any, end: Any) -> Any:
        return crop(image, Window(start, end), SIZE)

    record("decode", lambda data: decode(context, data), [encoded([s.photo for s in samples])], photos)
    crops = [yardstick.crop_view(photo, **parameters.cut(n)) for n, photo in enumerate(photos)]
    record("crop", cropped, [[np.asarray(photo) for photo in photos], *parameters.windows()], crops)

    for name, kept, steps, more in (
        ("brightness", ["brightness"], "colour", {}),
        ("contrast", ["contrast"], "colour", {}),
        ("saturation", ["saturation"], "colour", {}),
        ("hue", ["hue"], "colour", {}),
        ("jitter", ["brightness", "contrast", "saturation", "hue"], "colour", {}),
        ("grayscale", [], "colour", {"grayscale": True}),
        ("blur", ["sigma"], "blur", {}),
        ("solarize", [], "solarize", {"solarize": True}),
    ):
        part = parameters.only(*kept)
        expected = [yardstick.apply_look(view, part.look(n, **more)) for n, view in enumerate(crops)]
        columns = [floats(crops), *part.columns(grayscale="grayscale" in more)]
        record(name, lambda *nodes, steps=steps: _styled(*nodes, steps, device), columns, expected)

    packed = encoded([pack_mask(sample.mask) for sample in samples])
    side = len(samples[0].mask)
    cut = [yardstick.crop_mask(sample.mask, **parameters.cut(n)) for n, sample in enumerate(samples)]

    def masked(bits: Any, start: Any, end: Any) -> Any:
        bits = bits.gpu() if device == "gpu" else bits
        return masks.view_mask(bits, side, Window(start, end), SIZE, device) * types.Constant(255.0)

    record("mask", masked, [packed, *parameters.windows()], [255.0 * mask[..., None] for mask in cut])
    greys = [Image.new("RGB", (SIZE, SIZE), (round(grey),) * 3) for grey in level]
    expected = [yardstick.composite(*parts) for parts in zip(crops, greys, cut, strict=True)]
    columns = [floats(crops), [np.float32(grey).reshape(1, 1, 1) for grey in level]]
    columns.append([mask[..., None].astype(np.uint8) for mask in cut])
    record("composite", background.composite, columns, expected)

    looks = [yardstick.apply_look(view, parameters.look(n)) for n, view in enumerate(crops)]
    behind = [
        yardstick.apply_look(yardstick.crop_view(tile, **of_tile.cut(n)), of_tile.look(n))
        for n, tile in enumerate(tiles)
    ]
    expected = [yardstick.composite(*parts) for parts in zip(looks, behind, cut, strict=True)]

    def whole(photo: Any, tile: Any, bits: Any, *nodes: Any) -> Any:
        own, other = nodes[:5], nodes[5:]
        bits = bits.gpu() if device == "gpu" else bits
        mask = masks.view_mask(bits, side, Window(*own[:2]), SIZE, device)
        front, back = (
            _styled(crop(decode(context, data), Window(*its[:2]), SIZE), *its[2:], "colour blur", device)
            for data, its in ((photo, own), (tile, other))
        )
        return background.composite(front, back, mask)

    numbers = [*parameters.windows(), *parameters.columns(), *of_tile.windows(), *of_tile.columns()]
    sources = [encoded([s.photo for s in samples]), encoded([s.tile for s in donors]), packed]
    record("view", whole, [*sources, *numbers], expected)
    return result


def statistics(loader: Any, config: LoaderConfig, photos: int) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation by channel, in grey levels, the histogram of grey levels (shares of BINS),
    and the share of replaced backgrounds, of every view over so many photos."""
    mean, std = (255 * torch.tensor(values) for values in (config.normalise.mean, config.normalise.std))
    sums: dict[str, list[torch.Tensor]] = {}
    replaced = []
    batches = (batch for _ in range(photos) for batch in loader)  # as many epochs as it takes
    for batch in islice(batches, -(-photos // config.batch_size)):
        replaced.append(batch["replaced"].float().mean(dim=0))
        for name, view in batch.items():
            if view.is_floating_point() and view.dim() >= 4:
                levels = view.float().cpu().movedim(-3, -1).flatten(0, -2) * std + mean
                histogram = torch.histc(levels.mean(dim=1), BINS, 0, 255) / len(levels)
                sums.setdefault(name, []).append(torch.stack([levels.mean(dim=0), (levels**2).mean(dim=0)]))
                sums.setdefault(f"{name}/histogram", []).append(histogram)
    rates = dict(zip(expand(config.views), torch.stack(replaced).mean(dim=0).tolist(), strict=True))
    found = {}
    for name in [name for name in sums if "/" not in name]:
        first, second = torch.stack(sums[name]).mean(dim=0)
        found[name] = {
            "mean": first.tolist(),
            "std": (second - first**2).sqrt().tolist(),
            "histogram": torch.stack(sums[f"{name}/histogram"]).mean(dim=0).tolist(),
            "replaced": rates.get(name),
        }
    return found


def compare_distributions(config: LoaderConfig, photos: int) -> dict[str, dict[str, float]]:
    """By view: the largest difference of channel means and standard deviations in grey levels, half the sum
    of differences of the histograms (total variation), and the shares of replaced backgrounds."""
    with build_loader(config) as ours:
        found = statistics(ours, config, photos)
    with TorchvisionLoader(config) as theirs:
        expected = statistics(theirs, config, photos)
    result = {}
    for name, one in found.items():
        other = expected[name]
        apart = {key: np.abs(np.subtract(one[key], other[key])) for key in ("mean", "std", "histogram")}
        result[name] = {
            "mean": round(float(apart["mean"].max()), 2),
            "std": round(float(apart["std"].max()), 2),
            "histogram": round(float(apart["histogram"].sum() / 2), 4),
        }
        if one["replaced"] is not None:
            result[name] |= {
                "replaced": round(one["replaced"], 4),
                "replaced_torchvision": round(other["replaced"], 4),
            }
    return result


def table(result: dict[str, Any]) -> str:
    """The report as Markdown."""
    pixels = [
        f"| {name} | {row['mean']:.3f} | {row['p99.9']:.2f} |" for name, row in result["pixels"].items()
    ]
    views = []
    for name, row in result["distributions"].items():
        rates = [f"{row[key]:.3f}" if key in row else "" for key in ("replaced", "replaced_torchvision")]
        cells = [name, f"{row['mean']:.2f}", f"{row['std']:.2f}", f"{row['histogram']:.3f}", *rates]
        views.append(f"| {' | '.join(cells)} |")
    lines = [
        f"{result['photos']} photos, {result['device']}: absolute difference in grey levels of 255.",
        "",
        "| step | mean | 99.9 % |",
        "|---|---|---|",
        *pixels,
        "",
        f"{result['distribution_photos']} photos, own draws of each loader: largest difference of channel",
        "means and standard deviations (grey levels), total variation of the grey histograms, share of views",
        "with a replaced background.",
        "",
        "| view | mean | std | histogram | replaced: DALI | torchvision |",
        "|---|---|---|---|---|---|",
        *views,
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, default=Path("out/demo/shards"), help="(%(default)s)")
    parser.add_argument("--photos", type=int, default=64, help="compared pixel by pixel (%(default)s)")
    parser.add_argument(
        "--distribution", type=int, default=2000, metavar="N", help="photos of each method (%(default)s)"
    )
    parser.add_argument("--json", type=Path, default=Path("out/parity.json"), help="(%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="loader config, e.g. device=cpu")
    args = parser.parse_intermixed_args()
    if args.photos < 2:
        raise UserError(f"--photos={args.photos}: two at least, each lends the other its tile")
    manifest = open_shards(args.shards, option="--shards")
    samples = [s for shard in manifest.shards for s in read_samples(args.shards, shard) if s.tile][
        : args.photos
    ]
    values = override({"shards": str(args.shards), "batch_size": 50, "crop.fg_min": 0.1}, args.overrides)
    fg_min = values.pop("crop.fg_min")
    device = "cpu" if choose_device(values.get("device", "auto"), None) is None else "gpu"
    distributions = {}
    for method, kind in tqdm(FULLEST.items(), desc="parity", unit="method"):
        words = [f"pipeline={method}", f"background.kind={kind}", f"crop.fg_min={fg_min}"]
        config = validate(LoaderConfig, override(values, words), "the options")
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
