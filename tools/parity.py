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
from torchvision.transforms.functional import gaussian_blur
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
        factors = (self.brightness, self.contrast, self.saturation, self.hue)
        matrix, offset = photometric.colour_matrix(*factors, np.full(len(self.hue), grayscale))
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


def _blurred(view: Image.Image, sigma: float) -> np.ndarray:
    """torchvision's Gaussian with the customary window of 23."""
    pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1).float()
    return gaussian_blur(pixels, [23, 23], [float(sigma)] * 2).permute(1, 2, 0).numpy()


class _Comparison:
    """The same photos and parameters for both, and what their pixels differ by."""

    def __init__(self, samples: list[Sample], device: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        donors = samples[1:] + samples[:1]
        self.device, self.side = device, len(samples[0].mask)
        self.context = Context(device, 0, 0, len(samples), hw_decoder_load=0.0)
        self.photos = [yardstick.decode(sample.photo) for sample in samples]
        self.tiles = [yardstick.decode(sample.tile) for sample in donors]
        self.photo_bytes = _encoded([sample.photo for sample in samples])
        self.tile_bytes = _encoded([sample.tile for sample in donors])
        self.packed = _encoded([pack_mask(sample.mask) for sample in samples])
        self.own, self.others = Parameters.draw(self.photos, rng), Parameters.draw(self.tiles, rng)
        self.crops = [yardstick.crop_view(photo, **self.own.cut(n)) for n, photo in enumerate(self.photos)]
        self.cut = [yardstick.crop_mask(sample.mask, **self.own.cut(n)) for n, sample in enumerate(samples)]
        self.result: dict[str, dict[str, float]] = {}

    def record(self, name: str, piece: Callable[..., Any], columns: Columns, expected: list[Any]) -> None:
        found = _run_piece(piece, self.device, columns)
        pairs = zip(found, map(np.asarray, expected), strict=True)
        difference = np.concatenate([np.abs(a - b.astype(np.float32)).ravel() for a, b in pairs])
        high = float(np.quantile(difference, 0.999))
        self.result[name] = {"mean": round(float(difference.mean()), 3), "p99.9": round(high, 2)}

    def view_mask(self, bits: Any, window: Window) -> Any:
        bits = bits.gpu() if self.device == "gpu" else bits
        return masks.view_mask(bits, self.side, window, SIZE, self.device)

    def cropping(self) -> None:
        self.record("decode", lambda data: decode(self.context, data), [self.photo_bytes], self.photos)
        pixels = [np.asarray(photo) for photo in self.photos]
        self.record(
            "crop", lambda image, *w: crop(image, Window(*w), SIZE), [pixels, *self.own.windows()], self.crops
        )

    def looks(self) -> None:
        jitter = ["brightness", "contrast", "saturation"]
        views = _floats(self.crops)
        for name, kept, steps, more in (
            *((one, [one], "colour", {}) for one in (*jitter, "hue")),
            ("jitter", jitter, "colour", {}),
            ("jitter and hue", [*jitter, "hue"], "colour", {}),
            ("jitter and grayscale", jitter, "colour", {"grayscale": True}),
            ("blur", ["sigma"], "blur", {}),
            ("solarize", [], "solarize", {"solarize": True}),
        ):
            part = self.own.only(*kept)
            expected = [yardstick.apply_look(view, part.look(n, **more)) for n, view in enumerate(self.crops)]
            columns = [views, *part.columns(grayscale="grayscale" in more)]
            self.record(
                name, lambda *nodes, steps=steps: _styled(*nodes, steps, self.device), columns, expected
            )
        part = self.own.only("sigma")
        expected = [_blurred(view, part.sigma[n]) for n, view in enumerate(self.crops)]
        columns = [views, *part.columns()]
        name = "blur, against a window of 23"
        self.record(name, lambda *nodes: _styled(*nodes, "blur", self.device), columns, expected)

    def backgrounds(self, level: np.ndarray) -> None:
        columns = [self.packed, *self.own.windows()]
        expected = [255.0 * mask[..., None] for mask in self.cut]
        white = types.Constant(255.0)
        self.record("mask", lambda bits, *w: self.view_mask(bits, Window(*w)) * white, columns, expected)
        greys = [Image.new("RGB", (SIZE, SIZE), (round(grey),) * 3) for grey in level]
        expected = [yardstick.composite(*parts) for parts in zip(self.crops, greys, self.cut, strict=True)]
        columns = [_floats(self.crops), [np.float32(grey).reshape(1, 1, 1) for grey in level]]
        columns.append([mask[..., None].astype(np.uint8) for mask in self.cut])
        self.record("composite", background.composite, columns, expected)

    def whole_view(self) -> None:
        """All in a row but for hue, which differs most and has a row of its own."""
        steps = ("brightness", "contrast", "saturation", "sigma")
        own, others = self.own.only(*steps), self.others.only(*steps)
        fronts = [yardstick.apply_look(view, own.look(n)) for n, view in enumerate(self.crops)]
        behind = [yardstick.crop_view(tile, **others.cut(n)) for n, tile in enumerate(self.tiles)]
        behind = [yardstick.apply_look(view, others.look(n)) for n, view in enumerate(behind)]
        expected = [yardstick.composite(*parts) for parts in zip(fronts, behind, self.cut, strict=True)]

        def piece(photo: Any, tile: Any, bits: Any, *nodes: Any) -> Any:
            made = []
            for data, (start, end, *look) in ((photo, nodes[:5]), (tile, nodes[5:])):
                view = crop(decode(self.context, data), Window(start, end), SIZE)
                made.append(_styled(view, *look, "colour blur", self.device))
            return background.composite(*made, self.view_mask(bits, Window(*nodes[:2])))

        numbers = [*own.windows(), *own.columns(), *others.windows(), *others.columns()]
        self.record("view", piece, [self.photo_bytes, self.tile_bytes, self.packed, *numbers], expected)


def _encoded(data: list[bytes]) -> list[np.ndarray]:
    return [np.frombuffer(one, np.uint8) for one in data]


def _floats(images: list[Image.Image]) -> list[np.ndarray]:
    return [np.asarray(image).astype(np.float32) for image in images]


def compare_pixels(samples: list[Sample], device: str = "cpu", seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean and 99.9th percentile of the absolute difference, in grey levels of 255, by step.

    samples: photos with masks and tiles; behind each the next one's tile is put. device: "cpu" or "gpu".
    """
    both = _Comparison(samples, device, seed)
    both.cropping()
    both.looks()
    both.backgrounds(255 * np.random.default_rng(seed + 1).random(len(samples)))
    both.whole_view()
    return both.result


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
    every = (sample for shard in manifest.shards for sample in read_samples(args.shards, shard))
    samples = list(islice((sample for sample in every if sample.tile), args.photos))
    values = {"shards": str(args.shards), "batch_size": 50, "crop": {"fg_min": 0.1}}
    values = override(values, args.overrides)
    if set(values) & {"pipeline", "background"}:
        raise UserError("pipeline=, background=: every method is compared, with its fullest background")
    device = "cpu" if choose_device(values.get("device", "auto"), None) is None else "gpu"
    distributions = {}
    for method, kind in tqdm(FULLEST.items(), desc="parity", unit="method"):
        words = [f"pipeline={method}", f"background.kind={kind}"]
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
