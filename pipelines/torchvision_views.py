"""Views of one photo with PIL and torchvision, all parameters explicit, for the reference implementation.

Crop boxes are y0, x0, y1, x1 as fractions of the image: one serves a photo and its square mask.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter, ImageOps

from dali_bgaug.views.options import CropOptions, DistortionOptions, PhotometricOptions

Rng = np.random.Generator
CropBox = tuple[float, float, float, float]

_FROM_HALF = [0] * 128 + [255] * 128
_JITTER = {
    "brightness": (F.adjust_brightness, 1.0),
    "contrast": (F.adjust_contrast, 1.0),
    "saturation": (F.adjust_saturation, 1.0),
    "hue": (F.adjust_hue, 0.0),
}
"""Each operation, and the factor at which it is left out."""


@dataclass(frozen=True)
class Photometric:
    """The photometric parameters of one view; by default nothing changes."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """In turns, -0.5 to 0.5."""
    grayscale: bool = False
    sigma: float | None = None
    """The blur's, in pixels of the view."""
    solarize: bool = False
    order: tuple[str, ...] = tuple(_JITTER)


def draw_photometric(options: PhotometricOptions, rng: Rng) -> Photometric:
    """Draw a view's photometric parameters; those of the jitter as ColorJitter does."""
    jitter: dict[str, Any] = {}
    if rng.random() < options.jitter_p:
        for name in ("brightness", "contrast", "saturation"):
            spread = getattr(options, name)
            jitter[name] = rng.uniform(max(0.0, 1 - spread), 1 + spread)
        jitter["hue"] = rng.uniform(-options.hue, options.hue)
        names = tuple(_JITTER)
        jitter["order"] = tuple(names[number] for number in rng.permutation(4))
    return Photometric(
        **jitter,
        grayscale=rng.random() < options.grey_p,
        sigma=rng.uniform(*options.blur_sigma) if rng.random() < options.blur_p else None,
        solarize=rng.random() < options.solarize_p,
    )


def apply_photometric(image: Image.Image, parameters: Photometric) -> Image.Image:
    """Jitter, grayscale, blur, solarize (pixels at and above 128): RGB -> RGB."""
    for name in parameters.order:
        adjust, neutral = _JITTER[name]
        if (factor := getattr(parameters, name)) != neutral:
            image = adjust(image, factor)
    if parameters.grayscale:
        image = image.convert("L")  # one channel to the end: what follows treats three equal ones alike
    if parameters.sigma is not None:
        image = image.filter(ImageFilter.GaussianBlur(parameters.sigma))
    if parameters.solarize:
        image = ImageOps.solarize(image, 128)
    return image.convert("RGB") if parameters.grayscale else image


def foreground_inside(mask: np.ndarray, crop_box: CropBox) -> float:
    """The foreground's area in the crop box, in pixels of the mask, bool [S, S]; cut pixels count in part."""
    y0, x0, y1, x1 = (edge * len(mask) for edge in crop_box)

    def overlap(start: float, end: float) -> tuple[slice, np.ndarray]:
        pixels = np.arange(math.floor(start), math.ceil(end))
        return slice(pixels[0], pixels[-1] + 1), np.minimum(end, pixels + 1) - np.maximum(start, pixels)

    rows, height = overlap(y0, y1)
    columns, width = overlap(x0, x1)
    # Not a matrix product: BLAS would start its threads in every worker.
    return float(((mask[rows, columns] * width).sum(axis=1) * height).sum())


def draw_crop_box(width: int, height: int, crop: CropOptions, mask: np.ndarray | None, rng: Rng) -> CropBox:
    """torchvision's RandomResizedCrop.get_params, whose draws need `fg_min` of the foreground's area besides.

    width, height: of the photo in pixels. mask: bool [S, S], the whole photo's; None or empty accepts all.
    """
    needed = 0.0 if mask is None else crop.fg_min * np.count_nonzero(mask)
    low, high = crop.ratio
    for _ in range(10):
        area = width * height * rng.uniform(*crop.scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            crop_box = (y / height, x / width, (y + h) / height, (x + w) / width)
            if mask is None or not needed or foreground_inside(mask, crop_box) >= needed:
                return crop_box
    w, h = min(width, round(height * high)), min(height, round(width / low))
    y, x = (height - h) // 2, (width - w) // 2
    return y / height, x / width, (y + h) / height, (x + w) / width


def crop_view(image: Image.Image, crop_box: CropBox, flip: bool, size: int) -> Image.Image:
    """Cut the crop box out and resize it to size x size, bilinear, antialiased; then mirror it if `flip`.

    A mask's crop box may have fractional edges. The pixels it touches are cut out first: given a `box` only,
    `resize` lets in what lies outside.
    """
    y0, x0, y1, x1 = crop_box
    left, top, right, bottom = (
        whole if abs(edge - (whole := round(edge))) < 1e-3 else edge  # a whole pixel but for rounding
        for edge in (x0 * image.width, y0 * image.height, x1 * image.width, y1 * image.height)
    )
    x, y = math.floor(left), math.floor(top)
    part = image.crop((x, y, math.ceil(right), math.ceil(bottom)))
    box = (left - x, top - y, right - x, bottom - y)
    view = part.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view


def crop_mask(mask: np.ndarray, crop_box: CropBox, flip: bool, size: int) -> np.ndarray:
    """A mask, bool [S, S], cropped like a view: bool [size, size], true where half a pixel is foreground."""
    view = crop_view(Image.fromarray(mask).convert("L"), crop_box, flip, size)
    return np.asarray(view.point(_FROM_HALF, "1"))


def distort_mask(mask: np.ndarray, options: DistortionOptions, rng: Rng) -> np.ndarray:
    """Draw a distortion of a view's mask, bool [size, size], and apply it."""
    image = Image.fromarray(mask)
    box = image.getbbox()
    if box is None:
        return mask
    if options.box:
        image.paste(1, box)
    if options.rotate or options.shear or options.translate:
        extent = box[2] - box[0], box[3] - box[1]
        image = F.affine(
            image,
            angle=rng.uniform(-options.rotate, options.rotate),
            translate=[rng.uniform(-options.translate, options.translate) * side for side in extent],
            scale=1.0,
            shear=rng.uniform(-options.shear, options.shear, 2).tolist(),
        )
    if rng.random() < options.flip_p:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def composite(view: Image.Image, background: Image.Image, mask: np.ndarray) -> Image.Image:
    """The view where the mask, bool [H, W], is true; elsewhere the background."""
    return Image.composite(view, background, Image.fromarray(mask))


def decode(data: bytes, upright: bool = True) -> Image.Image:
    """An RGB image; upright: whether EXIF orientation is applied."""
    image = Image.open(io.BytesIO(data))
    if upright:
        ImageOps.exif_transpose(image, in_place=True)
    return image if image.mode == "RGB" else image.convert("RGB")
