"""A recipe in words: what each view goes through, top to bottom."""

from dali_bgaug.views.options import CropOptions, PhotometricOptions
from dali_bgaug.views.plan import Recipe


def describe(recipe: Recipe) -> str:
    """One block of lines for people; views that go through the same share one."""
    blocks: dict[tuple[str, ...], list[str]] = {}
    for name, view in recipe.views.items():
        photometric, background = (
            _photometric(view.photometric),
            _background(recipe) if view.background else [],
        )
        steps = photometric + background if recipe.background.stage == "after" else background + photometric
        mean, std = recipe.normalise.mean, recipe.normalise.std
        steps = [_crop(view.crop, recipe.resize), *steps, f"normalise by mean {mean}, std {std}"]
        if view.turns > 1:
            steps.append(f"{view.turns} rotations, counter-clockwise")
        blocks.setdefault(tuple(steps), []).append(name)
    options = recipe.background
    if options.negative_names:
        chance = "where key's was replaced" if options.coupled else f"with p = {options.p_neg:g}"
        made = "another photo's key", f"{chance} over the background of {options.matches}"
        blocks[made] = options.negative_names
    return "\n".join(
        "\n    ".join([", ".join(names), *goes_through]) for goes_through, names in blocks.items()
    )


def _crop(crop: CropOptions, resize: int | None) -> str:
    flip = f"; flip p = {crop.flip_p:g}" if crop.flip_p else ""
    if crop.kind == "central":
        resized = "no resize" if resize is None else f"short side to {resize}"
        return f"{resized}, central crop of {crop.size}{flip}"
    area, ratio = (" to ".join(f"{end:.3g}" for end in ends) for ends in (crop.scale, crop.ratio))
    least = f", at least {crop.fg_min:g} of the foreground" if crop.fg_min else ""
    return f"random crop of area {area}, ratio {ratio}{least}, to {crop.size} pixels{flip}"


def _photometric(options: PhotometricOptions) -> list[str]:
    jitter = ", ".join(
        f"{name} {value:g}"
        for name in ("brightness", "contrast", "saturation", "hue")
        if (value := getattr(options, name))
    )
    low, high = options.blur_sigma
    steps = {
        f"colour jitter p = {options.jitter_p:g}: {jitter}": options.jitter_p if jitter else 0,
        f"grayscale p = {options.grey_p:g}": options.grey_p,
        f"Gaussian blur p = {options.blur_p:g}: sigma {low:g} to {high:g}": options.blur_p,
        f"solarize p = {options.solarize_p:g}": options.solarize_p,
    }
    return [step for step, p in steps.items() if p > 0]


def _background(recipe: Recipe) -> list[str]:
    options = recipe.background
    if options.kind == "none":
        return []
    low, high = options.grey
    treated = {
        "full": f"treated like a view, shared by {options.views_per_donor} views",
        "crop": f"cropped and flipped, shared by {options.views_per_donor} views",
        "none": "with the view's crop box" if options.stage == "before" else "stretched",
    }
    behind = (
        f"grey {low:g} to {high:g}" if options.kind == "rm" else f"another photo's, {treated[options.donor]}"
    )
    words = [f"background p = {options.p_pos:g}: {behind}"]
    if options.warmup_epochs:
        words.append(f"rising over {options.warmup_epochs} epochs")
    words.append(f"without foreground in the crop box: {options.without_foreground}")
    if options.distortion.any:
        changed = options.distortion.model_dump(exclude_defaults=True)
        words.append("mask distorted: " + ", ".join(f"{name} {value}" for name, value in changed.items()))
    return ["; ".join(words)]
