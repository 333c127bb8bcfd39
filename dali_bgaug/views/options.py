"""A view's whole vocabulary: crop, photometric, background, mask distortion, normalisation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dali_bgaug.config import Options, Range


class CropOptions(Options):
    """One view's crop."""

    kind: Literal["random", "central"] = "random"
    """random: torchvision's RandomResizedCrop. central: its Resize and CenterCrop, without chance but for the
    flip (Table A10 of the paper); `scale`, `ratio` and `fg_min` are not used."""
    size: int = Field(default=224, ge=8, le=4096)
    """Side of the view in pixels."""
    scale: Range = (0.2, 1.0)
    """Range of the crop box's area as a fraction of the photo's."""
    ratio: Range = (3 / 4, 4 / 3)
    """Range of width / height."""
    fg_min: float = Field(default=0.0, ge=0, le=1)
    """Least fraction of the foreground's area inside the crop box; 0 accepts any crop box."""
    flip_p: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""

    @model_validator(mode="after")
    def _check(self) -> "CropOptions":
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale={list(self.scale)} must be two increasing numbers in (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio={list(self.ratio)} must be two increasing positive numbers")
        return self


class PhotometricOptions(Options):
    """Photometric augmentation of a view (MoCo-v2's defaults)."""

    brightness: float = Field(default=0.4, ge=0, le=100)
    """Factor drawn from [max(0, 1 - x), 1 + x]; likewise contrast and saturation."""
    contrast: float = Field(default=0.4, ge=0, le=100)
    saturation: float = Field(default=0.4, ge=0, le=100)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Shift drawn from [-x, x], in turns."""
    jitter_p: float = Field(default=0.8, ge=0, le=1)
    grey_p: float = Field(default=0.2, ge=0, le=1)
    blur_p: float = Field(default=0.5, ge=0, le=1)
    blur_sigma: Range = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels of the view (PIL's `radius`)."""
    solarize_p: float = Field(default=0.0, ge=0, le=1)
    """Probability of inverting the pixels at and above 128."""

    @model_validator(mode="after")
    def _check(self) -> "PhotometricOptions":
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1] <= 100:
            raise ValueError(
                f"blur_sigma={list(self.blur_sigma)} must be two increasing positive numbers, 100 at most"
            )
        return self


class DistortionOptions(Options):
    """Distortions of a view's mask, an ablation of the paper: drawn anew at every use, for each view by
    itself.

    They act on the cropped mask, about the view's centre, nearest neighbour, filled with background; the
    rejection sampling of crop boxes sees the undistorted mask. All off by default.
    """

    rotate: float = Field(default=0.0, ge=0, le=180)
    """Degrees: an angle drawn from [-x, x]."""
    shear: float = Field(default=0.0, ge=0, lt=45)
    """Degrees: two angles, along x and along y, drawn from [-x, x]."""
    translate: float = Field(default=0.0, ge=0)
    """A shift drawn from [-x, x] times the width and the height of the foreground's box."""
    flip_p: float = Field(default=0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    box: bool = False
    """The foreground's bounding box instead of the foreground."""

    @property
    def any(self) -> bool:
        """Whether masks are distorted at all."""
        return self.box or max(self.rotate, self.shear, self.translate, self.flip_p) > 0


class BackgroundOptions(Options):
    """Background augmentation: which background a view gets, and how often (BG_RM, BG_Random, BG_Swaps).

    rm       the background becomes one grey level, drawn uniformly from `grey`
    random   the background becomes the tiled background of another photo of the batch
    swaps    random on query and key, independently, and a matched negative (MoCo-v2)
    """

    kind: Literal["none", "rm", "random", "swaps"] = "none"
    p_pos: float = Field(default=0.2, ge=0, le=1)
    """Probability that a view's background is replaced; drawn for each view by itself."""
    warmup_epochs: int = Field(default=0, ge=0)
    """All probabilities rise linearly from 0 over so many epochs."""
    stage: Literal["after", "before"] = "after"
    """after: crop, flip, photometric, then the background, the paper's order. before: the photo gets the
    background first (one per view) and both go through the view's crop, flip and photometric (RotNet)."""
    without_foreground: Literal["keep", "replace"] = "keep"
    """What becomes of a view whose crop box holds no foreground (or whose photo has none). keep: its own
    background, whatever the coin says, since a replacement would leave nothing of the photo, a positive pair
    nothing in common, and a matched negative would be its query. replace: as the coin says; the paper names
    no exception. keep lowers the rate of replaced backgrounds by the share of such boxes: with `fg_min` 0
    some 1.6 % of MoCo's, 2.1 % of SwAV's global ones, 3.1 % of RotNet's (`benchmarks/notes.md`)."""
    grey: Range = (0.0, 1.0)
    """rm: range of the grey level, drawn uniformly; 0 black, 1 white."""

    tiles: Literal["geometry", "pixels"] | None = None
    """random, swaps: how the shards must keep tiled backgrounds, by default as they do. geometry: eight
    numbers, read from the donor's photo; pixels: a JPEG, of any origin."""
    donor: Literal["full", "crop", "none"] = "full"
    """What a donor's tile goes through. full: a crop, a flip and a photometric draw of its own, like a view;
    crop: crop and flip only; none: the whole tile, stretched."""
    views_per_donor: int = Field(default=4, ge=1)
    """Views of a batch, of different photos, that share one donor's treated tile on average (never two views
    of one photo while there is another donor). More is cheaper; with 1 there are as many donors to choose
    from as views that want one."""

    p_neg: float = Field(default=0.2, ge=0, le=1)
    """swaps: probability that a negative has its query's background (else it is a random image)."""
    negatives: int = Field(default=1, ge=1, le=1024)
    """swaps: extra negatives per query, `negative_0`, …"""
    matches: Literal["query", "key"] = "query"
    """swaps: the view whose background a negative takes."""
    coupled: bool = False
    """swaps: a negative is matched where the key's background was replaced (p_neg is not used); otherwise it
    has a coin of its own. Either way `without_foreground` holds, for the view it `matches`."""

    distortion: DistortionOptions = DistortionOptions()

    @model_validator(mode="after")
    def _check(self) -> "BackgroundOptions":
        if not 0 <= self.grey[0] <= self.grey[1] <= 1:
            raise ValueError(f"grey={list(self.grey)} must be two increasing numbers in [0, 1]")
        if self.stage == "before" and self.uses_tiles and self.donor != "none":
            raise ValueError(
                f"donor={self.donor}: with stage=before a tile lies behind the photo and shares the view's "
                "crop, flip and photometric; set donor: none"
            )
        return self

    @property
    def uses_tiles(self) -> bool:
        """Whether backgrounds come from other photos."""
        return self.kind in ("random", "swaps")

    @property
    def negative_names(self) -> list[str]:
        """The extra negatives, as batches name them: none but for swaps."""
        return [f"negative_{number}" for number in range(self.negatives)] if self.kind == "swaps" else []


class NormaliseOptions(Options):
    """Per-channel statistics, of pixels in [0, 1]."""

    mean: Annotated[tuple[float, float, float], Field(strict=False)] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[float, float, float], Field(strict=False)] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _check(self) -> "NormaliseOptions":
        if min(self.std) <= 0:
            raise ValueError(f"std={list(self.std)} must be positive numbers")
        return self


class ViewOptions(Options):
    """One view, or one kind of view."""

    count: int = Field(default=1, ge=0, le=1024)
    """Views of this kind per photo, each drawn by itself (SwAV's `global` and `local`)."""
    turns: Literal[1, 4] = 1
    """rotnet: 4 gives the view turned counter-clockwise by 0, 90, 180 and 270 degrees, [N, 4, 3, size,
    size]."""
    crop: CropOptions = CropOptions()
    photometric: PhotometricOptions = PhotometricOptions()
    background: bool = True
    """Whether its background may be replaced (the paper's ablations give one to query or key alone)."""
