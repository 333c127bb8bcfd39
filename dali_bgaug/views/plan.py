"""The plan of a batch: options and random numbers -> the table of render jobs.

A view, top to bottom: crop box, flip, resize; colour jitter and grayscale; blur; solarize; background;
normalise. With `background.stage: before` the background comes right after the resize. `describe` says it in
words.

Nothing here knows DALI or looks at a pixel: what depends on the photos' sizes and masks (where a box lies,
whether it shows foreground) is the renderers', by the rules that a job names.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dali_bgaug.views import table
from dali_bgaug.views.backgrounds import Backgrounds, donor_treatments, draw_backgrounds, draw_others
from dali_bgaug.views.distortion import draw_distortions
from dali_bgaug.views.options import BackgroundOptions, CropOptions, NormaliseOptions, ViewOptions
from dali_bgaug.views.photometric import draw_photometric
from dali_bgaug.views.table import Slot, Table, new_jobs

Generators = Callable[[str], np.random.Generator]
"""The random numbers of a name, of one batch."""
THUMBNAIL = 160
"""Side of the images of contact sheets."""


@dataclass(frozen=True)
class Recipe:
    """The views a loader makes, and their backgrounds."""

    views: dict[str, ViewOptions]
    """Single views, by name."""
    background: BackgroundOptions
    normalise: NormaliseOptions
    resize: int | None = 256
    """Central crops: the photo's short side before, in pixels; None: as it is."""
    sources: bool = False
    """Whether batches also hold what views were made from, for contact sheets."""

    @property
    def looks_at_masks(self) -> bool:
        """Whether a mask is needed for a crop box or a background."""
        return self.background.kind != "none" or any(view.crop.fg_min > 0 for view in self.views.values())


def plan(recipe: Recipe, generators: Generators, lends: np.ndarray, strength: float) -> Table:
    """The jobs of a batch.

    Args:
        recipe: which views are made.
        generators: random numbers by name; the same names give the same table.
        lends: photos whose tile may be another's background, bool [N].
        strength: factor on the probabilities of backgrounds.
    """
    coins = batch_backgrounds(recipe, generators, lends, strength)
    views = _views(recipe, generators, coins)
    donors = _donors(recipe, generators, coins, views)
    views["mask_of"] = len(donors) + np.arange(views.size).reshape(views.shape)
    slots = [Slot(name, view.crop.size, view.turns) for name, view in recipe.views.items()]
    negatives = _negatives(recipe, generators, coins, views, len(slots))
    slots += [Slot(name, slots[0].size) for name in recipe.background.negative_names]
    sources = _sources(recipe, len(lends), len(slots))
    slots += [Slot(name, THUMBNAIL) for name in ("photo", "tile")[: len(sources)]]
    first = len(donors) + views.size + sum(map(len, sources))
    matched = first + np.arange(coins.matched.size).reshape(coins.matched.T.shape).T
    return Table(
        jobs=np.concatenate([donors, views.reshape(-1), *sources, *negatives, *_turns(recipe, views)]),
        donors=len(donors),
        views=first - len(donors),
        per_photo=views.shape[1],
        slots=tuple(slots),
        replaced=views["mask_of"].copy(),
        matched=matched,
    )


def batch_backgrounds(
    recipe: Recipe, generators: Generators, lends: np.ndarray, strength: float
) -> Backgrounds:
    """The coins and donors of a batch: known before anything is decoded, so that only tiles that are used
    are."""
    return draw_backgrounds(recipe.views, recipe.background, lends, strength, generators("backgrounds"))


def _draw_crop(jobs: np.ndarray, crop: CropOptions, resize: int | None, rng: np.random.Generator) -> None:
    """Draw each job's crop box and flip into its record."""
    jobs["size"], jobs["resize"], jobs["fg_min"] = crop.size, resize or 0, crop.fg_min
    jobs["crop"] = table.CENTRAL if crop.kind == "central" else table.RANDOM
    jobs["area"], jobs["log_ratio"] = crop.scale, np.log(np.array(crop.ratio, np.float32))
    jobs["draws"] = rng.random(jobs["draws"].shape, np.float32)
    jobs["flip"] = rng.random(jobs.shape) < crop.flip_p


def _normalise(jobs: np.ndarray, options: NormaliseOptions) -> None:
    jobs["scale"] = 1 / (255 * np.array(options.std))
    jobs["shift"] = -np.array(options.mean) / options.std


def _views(recipe: Recipe, generators: Generators, coins: Backgrounds) -> np.ndarray:
    """The jobs of the views, JOB [N, views]; the donors of their backgrounds are still to be said."""
    background, (count, _) = recipe.background, coins.replace.shape
    jobs = new_jobs(count, len(recipe.views))
    jobs["sample"] = jobs["frame"] = jobs["row"] = np.arange(count)[:, None]
    _normalise(jobs, recipe.normalise)
    for number, (name, view) in enumerate(recipe.views.items()):
        one = jobs[:, number]
        one["slot"], one["row"] = number, one["row"] * view.turns
        _draw_crop(one, view.crop, recipe.resize, generators(f"{name}/window"))
        draw_photometric(one, view.photometric, generators(name))
        if background.distortion.any:
            draw_distortions(one, background.distortion, generators(f"{name}/distortion"))
        if background.kind == "rm":
            low, high = (255 * level for level in background.grey)
            one["grey"] = generators(f"{name}/background").uniform(low, high, count)
    jobs["before"] = background.stage == "before"
    jobs["only_visible"] = background.without_foreground == "keep"
    jobs["background"] = np.where(
        coins.replace, table.GREY if background.kind == "rm" else table.RENDERED, table.KEPT
    )
    return jobs


def _donors(recipe: Recipe, generators: Generators, coins: Backgrounds, views: np.ndarray) -> np.ndarray:
    """The jobs of the donors' tiles, JOB [donors]; says in `views` which of them lies behind each."""
    background = recipe.background
    photo, view = np.nonzero(coins.donor >= 0)
    if not len(photo):
        return new_jobs(0)
    donor = coins.donor[photo, view]
    if background.stage == "before":  # a tile for each view, with its crop box, uncoloured: the view is
        jobs = views[photo, view].copy()
        jobs["source"], jobs["sample"], jobs["background"] = table.TILE, donor, table.KEPT
        for step in ("jittered", "grayscale", "sigma", "solarized", "distorted"):
            jobs[step] = 0
        jobs["scale"], jobs["shift"], jobs["slot"] = 1, 0, -1
        views["background_job"][photo, view] = np.arange(len(jobs))
        return jobs
    treatments, treatment_of = donor_treatments(recipe.views, background)
    pools, treatment = [], np.array(treatment_of)[view]
    for number, options in enumerate(treatments):
        jobs = new_jobs(len(coins.donor))
        jobs["source"], jobs["sample"], jobs["frame"] = table.TILE, *[np.arange(len(jobs))] * 2
        rng = generators(f"donors/{number}")
        _draw_crop(jobs, options.crop, recipe.resize, rng)
        if background.donor == "none":
            jobs["crop"], jobs["flip"] = table.WHOLE, 0
        if background.donor == "full":
            draw_photometric(jobs, options.photometric, rng)
        jobs["slot"] = -1
        pools.append(jobs)
    used, place = np.unique(treatment * len(coins.donor) + donor, return_inverse=True)
    views["background_job"][photo, view] = place
    return np.concatenate(pools)[used]


def _negatives(
    recipe: Recipe, generators: Generators, coins: Backgrounds, views: np.ndarray, slot: int
) -> list[np.ndarray]:
    """The extra negatives: another photo's key, where it is matched over the background of the view it
    matches.

    A negative is n = m r + (1 - m) q with probability p_neg, else n = r: q the query (or the key, `matches`)
    as the encoder sees it, m its foreground mask, r a random image: the *key of another photo of the batch*,
    which has a crop, a flip and a photometric draw of its own already, and costs a copy instead of one more
    view.
    """
    count = len(recipe.background.negative_names)
    if not count:
        return []
    names = list(recipe.views)
    match, key = (views["mask_of"][:, names.index(name)] for name in (recipe.background.matches, "key"))
    others = draw_others(len(views), count, generators("negatives"))
    found = []
    for number in range(count):
        jobs = new_jobs(len(views))
        jobs["source"], jobs["sample"], jobs["size"] = (
            table.IMAGE,
            key[others[:, number]],
            views["size"][0, 0],
        )
        jobs["slot"], jobs["row"], jobs["frame"] = slot + number, *[np.arange(len(jobs))] * 2
        jobs["background"] = np.where(coins.matched[:, number], table.RENDERED, table.KEPT)
        jobs["background_job"], jobs["mask_of"] = match, match
        jobs["only_visible"] = views["only_visible"][:, 0]
        jobs["coupled_to"] = key if recipe.background.coupled else -1
        found.append(jobs)
    return found


def _turns(recipe: Recipe, views: np.ndarray) -> list[np.ndarray]:
    """The other rotations of views that are turned (Gidaris, Singh, Komodakis 2018)."""
    found = []
    for number, view in enumerate(recipe.views.values()):
        for turns in range(1, view.turns):
            jobs = new_jobs(len(views))
            jobs["source"], jobs["sample"], jobs["turns"] = table.IMAGE, views["mask_of"][:, number], turns
            jobs["slot"], jobs["row"] = number, views["row"][:, number] + turns
            jobs["size"], jobs["frame"] = view.crop.size, np.arange(len(jobs))
            found.append(jobs)
    return found


def _sources(recipe: Recipe, count: int, slot: int) -> list[np.ndarray]:
    """Thumbnails of the photos and of their tiles, as they are: values 0 to 255."""
    if not recipe.sources:
        return []
    photos = new_jobs(count)
    photos["size"], photos["slot"] = THUMBNAIL, slot
    photos["sample"] = photos["frame"] = photos["row"] = np.arange(count)
    tiles = photos.copy()
    tiles["source"], tiles["slot"] = table.TILE, slot + 1
    return [photos, tiles]
