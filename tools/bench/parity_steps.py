"""Every step of a view by the loader's renderer and by the torchvision reference, pixel by pixel."""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from dali_bgaug.reading import decode
from dali_bgaug.shards import Sample
from dali_bgaug.tiles import fill
from dali_bgaug.views.options import CropOptions
from dali_bgaug.views.render import Decoded
from dali_bgaug.views.table import DRAWS, GREY, RANDOM, RENDERED, TILE, Slot, Table, new_jobs
from pipelines import LoaderConfig
from pipelines import torchvision_views as reference
from pipelines.build import choose_renderer
from tools.offline.tiles import encode_tile

SIZE = 224
JITTER = ("brightness", "contrast", "saturation", "hue")
"""In the order of the table's steps."""
NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "sigma": 0.0}


@dataclass(frozen=True)
class Parameters:
    """Forced parameters of one view of each photo, [N] each."""

    draws: np.ndarray
    """What crop boxes are chosen by, [N, 4, DRAWS],"""
    flip: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    sigma: np.ndarray
    order: np.ndarray
    """Of the jitter's steps, [N, 4]."""
    crop_box: np.ndarray | None = None
    """and those that the renderer chose, as fractions of the photo, [N, 4]; x0 > x1 in a flipped one."""

    @classmethod
    def draw(cls, count: int, rng: np.random.Generator) -> "Parameters":
        """MoCo-v2's ranges."""
        draws, flip = rng.random((count, 4, DRAWS), np.float32), rng.random(count) < 0.5
        factors = rng.uniform(0.6, 1.4, (3, count))
        order = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
        return cls(draws, flip, *factors, rng.uniform(-0.1, 0.1, count), rng.uniform(0.1, 2.0, count), order)

    def only(self, *names: str) -> "Parameters":
        """The same with nothing but these changed (and no blur: sigma 0)."""
        off = {name: np.full(len(self.hue), value) for name, value in NEUTRAL.items() if name not in names}
        return replace(self, **off)

    def cut(self, number: int) -> dict[str, Any]:
        """A view's crop box in the reference's words."""
        y0, x0, y1, x1 = self.crop_box[number].tolist()
        return {"crop_box": (y0, min(x0, x1), y1, max(x0, x1)), "flip": x0 > x1, "size": SIZE}

    def photometric(self, number: int, **more: bool) -> reference.Photometric:
        """A view's photometric parameters, as the reference has them."""
        values = {name: float(getattr(self, name)[number]) for name in JITTER}
        order = tuple(JITTER[step] for step in self.order[number])
        return reference.Photometric(**values, order=order, sigma=float(self.sigma[number]) or None, **more)

    def crops(self) -> np.ndarray:
        """Jobs that cut these crop boxes out, JOB [N]."""
        jobs, options = _whole(len(self.hue)), CropOptions()
        jobs["crop"], jobs["draws"], jobs["flip"] = RANDOM, self.draws, self.flip
        jobs["area"], jobs["log_ratio"] = options.scale, np.log(np.float32(options.ratio))
        return jobs

    def put_photometric(
        self, jobs: np.ndarray, grayscale: bool = False, solarize: bool = False
    ) -> np.ndarray:
        """The same jobs with these photometric parameters."""
        jobs["factor"] = np.stack([getattr(self, name) for name in JITTER], axis=1)
        jobs["jittered"] = (jobs["factor"] != [NEUTRAL[name] for name in JITTER]).any(axis=1)
        jobs["order"], jobs["sigma"] = self.order, self.sigma
        jobs["grayscale"], jobs["solarized"] = grayscale, solarize
        return jobs


def _whole(count: int) -> np.ndarray:
    """Jobs that make a view of each whole photo, JOB [N]."""
    jobs = new_jobs(count)
    jobs["size"], jobs["sample"] = SIZE, np.arange(count)
    jobs["frame"] = jobs["row"] = jobs["mask_of"] = np.arange(count)
    return jobs


def _decoded(encoded: list[bytes], device: torch.device) -> list[np.ndarray]:
    """Photos decoded as the loader decodes them, but for the hardware decoder."""

    @pipeline_def(
        batch_size=len(encoded),
        num_threads=2,
        device_id=None if device.type == "cpu" else device.index,
        prefetch_queue_depth=1,
    )
    def define() -> Any:
        data = [np.frombuffer(one, np.uint8) for one in encoded]
        return decode(fn.external_source(source=[data], cycle=True), hw_decoder_load=0.0)

    [output] = define().run()
    output = output.as_cpu()
    return [np.array(output[number]) for number in range(len(encoded))]


def _blurred(view: Image.Image, sigma: float) -> np.ndarray:
    """torchvision's Gaussian with the customary window of 23."""
    pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1).float()
    return gaussian_blur(pixels, [23, 23], [float(sigma)] * 2).permute(1, 2, 0).numpy()


class _Comparison:
    """The same photos and parameters for both, and what their pixels differ by."""

    def __init__(self, samples: list[Sample], device: torch.device, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.samples, self.device, self.count = samples, device, len(samples)
        self.renderer = choose_renderer(device, LoaderConfig(shards=Path(), threads=2))
        self.photos = [reference.decode(sample.photo) for sample in samples]
        self.pixels = [np.array(photo) for photo in self.photos]
        self.masks = [sample.mask for sample in samples]
        self.tiles = [
            reference.decode(sample.tile)
            if isinstance(sample.tile, bytes)
            else Image.fromarray(fill(pixels, sample.tile))
            for sample, pixels in zip(samples, self.pixels, strict=True)
        ]
        self.own, self.others = (self.with_crop_boxes(Parameters.draw(self.count, rng)) for _ in range(2))
        self.crops = [reference.crop_view(photo, **self.own.cut(n)) for n, photo in enumerate(self.photos)]
        self.cut = [reference.crop_mask(mask, **self.own.cut(n)) for n, mask in enumerate(self.masks)]
        self.result: dict[str, dict[str, float]] = {}

    def render(
        self,
        jobs: np.ndarray,
        photos: list[np.ndarray],
        masks: list[np.ndarray] | None = None,
        tiles: list[np.ndarray] | np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The views that the last jobs make, [N, SIZE, SIZE, 3], and their crop boxes in pixels, [N, 4].

        Jobs before these are donors'.
        """
        donors, views = len(jobs) - self.count, np.arange(len(jobs))[-self.count :, None]
        table = Table(jobs, donors, self.count, 1, (Slot("view", SIZE),), views, views[:, :0])
        packed = None
        if masks is not None:
            packed = torch.from_numpy(np.packbits(masks, axis=2).reshape(self.count, -1)).to(self.device)
        front = [torch.from_numpy(photo).to(self.device) for photo in photos]
        behind = []
        if isinstance(tiles, list):
            behind = [torch.from_numpy(tile).to(self.device) for tile in tiles]
            tiles = _images(behind)
        made = self.renderer.render(table, _images(front), tiles, packed)
        return made.images["view"].cpu().numpy(), made.crop_boxes[donors:].cpu().numpy()

    def with_crop_boxes(self, parameters: Parameters) -> Parameters:
        """The same with the crop boxes that the renderer chooses."""
        _, crop_boxes = self.render(parameters.crops(), self.pixels)
        sides = np.array([pixels.shape[:2] for pixels in self.pixels])
        return replace(parameters, crop_box=crop_boxes / np.tile(sides, 2))

    def record(self, name: str, found: np.ndarray | list[np.ndarray], expected: list[Any]) -> None:
        pairs = zip(found, map(np.asarray, expected), strict=True)
        apart = [np.abs(a.astype(np.float32) - b.astype(np.float32)).ravel() for a, b in pairs]
        difference = np.concatenate(apart)
        high = float(np.quantile(difference, 0.999))
        self.result[name] = {"mean": round(float(difference.mean()), 3), "p99.9": round(high, 2)}

    def cropping(self) -> None:
        decoded = _decoded([sample.photo for sample in self.samples], self.device)
        self.record("decode", decoded, self.photos)
        self.record("crop", self.render(self.own.crops(), self.pixels)[0], self.crops)

    def photometrics(self) -> None:
        """On views that the torchvision reference cropped."""
        jitter = list(JITTER[:3])
        views = [np.array(view) for view in self.crops]
        for name, kept, more in (
            *((one, [one], {}) for one in JITTER),
            ("jitter but for hue", jitter, {}),
            ("jitter", list(JITTER), {}),
            ("jitter and grayscale", jitter, {"grayscale": True}),
            ("blur", ["sigma"], {}),
            ("solarize", [], {"solarize": True}),
        ):
            part = self.own.only(*kept)
            expected = [
                reference.apply_photometric(view, part.photometric(n, **more))
                for n, view in enumerate(self.crops)
            ]
            found, _ = self.render(part.put_photometric(_whole(self.count), **more), views)
            self.record(name, found, expected)
            if name == "blur":
                expected = [_blurred(view, part.sigma[n]) for n, view in enumerate(self.crops)]
                self.record("blur, against a window of 23", found, expected)

    def backgrounds(self, level: np.ndarray) -> None:
        """A mask: black behind a white photo. A composite: a grey behind a cropped view, by a mask cropped
        already, whose pixels are doubled, since renderers take sides of a multiple of 64."""
        jobs = self.own.crops()
        jobs["background"] = GREY
        white = [np.full_like(pixels, 255) for pixels in self.pixels]
        found, _ = self.render(jobs, white, self.masks)
        self.record("mask", found, [255.0 * np.repeat(mask[..., None], 3, axis=2) for mask in self.cut])
        greys = [Image.new("RGB", (SIZE, SIZE), (round(grey),) * 3) for grey in level]
        expected = [reference.composite(*parts) for parts in zip(self.crops, greys, self.cut, strict=True)]
        jobs = _whole(self.count)
        jobs["background"], jobs["grey"] = GREY, level
        doubled = [mask.repeat(2, axis=0).repeat(2, axis=1) for mask in self.cut]
        found, _ = self.render(jobs, [np.array(view) for view in self.crops], doubled)
        self.record("composite", found, expected)

    def tiled(self) -> None:
        """Tiled backgrounds, cropped: of geometry against the photo with its box filled, and against what a
        JPEG would keep of that."""
        jobs = self.own.crops()
        jobs["source"] = TILE
        found, _ = self.render(jobs, self.pixels, tiles=self.behind(self.tiles))
        cuts = [self.own.cut(number) for number in range(self.count)]
        expected = [reference.crop_view(tile, **cut) for tile, cut in zip(self.tiles, cuts, strict=True)]
        self.record("tile", found, expected)
        encoded = [encode_tile(np.asarray(tile), 256, 90) for tile in self.tiles]
        small = [reference.decode(jpeg) for jpeg in encoded]
        expected = [reference.crop_view(tile, **cut) for tile, cut in zip(small, cuts, strict=True)]
        self.record("tile, against a JPEG of 256 pixels", found, expected)

    def behind(self, decoded: list[Any]) -> list[np.ndarray] | np.ndarray:
        """The tiles as the renderer takes them: geometry, or as decoded."""
        tiles = [sample.tile for sample in self.samples]
        return [np.array(tile) for tile in decoded] if isinstance(tiles[0], bytes) else np.stack(tiles)

    def whole_view(self) -> None:
        """All in a row; behind each photo the next one's tile, with a crop box in the next one's frame."""
        steps = (*JITTER, "sigma")
        own, others = self.own.only(*steps), self.others.only(*steps)
        fronts = [reference.apply_photometric(view, own.photometric(n)) for n, view in enumerate(self.crops)]
        behind = [reference.crop_view(tile, **others.cut(n)) for n, tile in enumerate(self.tiles)]
        behind = [reference.apply_photometric(view, others.photometric(n)) for n, view in enumerate(behind)]
        behind = behind[1:] + behind[:1]
        expected = [reference.composite(*parts) for parts in zip(fronts, behind, self.cut, strict=True)]

        donors, views = others.put_photometric(others.crops()), own.put_photometric(own.crops())
        donors["source"], donors["slot"] = TILE, -1
        views["background"], views["background_job"] = RENDERED, np.roll(np.arange(self.count), -1)
        views["mask_of"] += self.count
        photos = _decoded([sample.photo for sample in self.samples], self.device)
        tiles = self.behind(self.tiles)
        found, _ = self.render(np.concatenate([donors, views]), photos, self.masks, tiles)
        self.record("view", found, expected)


def _images(tensors: list[torch.Tensor]) -> Decoded:
    """Addresses and sizes of images, uint8 [H, W, 3] each, which must outlive what is rendered."""
    shapes = np.array([tensor.shape for tensor in tensors], np.int32)
    return Decoded(np.array([tensor.data_ptr() for tensor in tensors]), shapes[:, :2])


def compare_pixels(samples: list[Sample], device: str = "cpu", seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean and 99.9th percentile of the absolute difference, in grey levels of 255, by step.

    samples: photos with masks and tiles; behind each the next one's tile is put. device: "cpu" or "gpu".
    """
    both = _Comparison(samples, torch.device("cuda", 0) if device == "gpu" else torch.device("cpu"), seed)
    with closing(both.renderer):
        both.cropping()
        both.photometrics()
        both.backgrounds(255 * np.random.default_rng(seed + 1).random(len(samples)))
        both.tiled()
        both.whole_view()
    return both.result
