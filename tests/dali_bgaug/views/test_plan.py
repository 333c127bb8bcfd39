"""The table that options and random numbers make, before anybody looks at a pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_bgaug.sampling import Seeds
from dali_bgaug.views import table
from dali_bgaug.views.describe import describe
from dali_bgaug.views.plan import Recipe, plan
from dali_bgaug.views.table import GREY, IMAGE, KEPT, PHOTO, RENDERED, TILE, Slot, Table
from pipelines import LoaderConfig
from pipelines.build import loader_recipe

CROP_BOX = ["frame", "crop", "flip", "resize", "area", "log_ratio", "fg_min", "draws"]
PHOTOMETRIC = ["jittered", "order", "factor", "grayscale", "sigma", "solarized"]


def _recipe(method: str = "moco_v2", sources: bool = False, **values: Any) -> Recipe:
    return loader_recipe(LoaderConfig(shards=Path(), pipeline=method, **values), sources)


def _plan(recipe: Recipe, lends: Any = 16, strength: float = 1.0, iteration: int = 0, seed: int = 0) -> Table:
    """lends: which photos may lend, or how many that all may."""
    lends = np.ones(lends, bool) if isinstance(lends, int) else np.array(lends)
    return plan(recipe, lambda name: Seeds(seed, 0).generator(name, 0, iteration), lends, strength)


def _views(made: Table) -> np.ndarray:
    """JOB [N, views]."""
    return made.jobs[made.replaced]


def _same(one: np.ndarray, other: np.ndarray, names: list[str]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in names)


BACKGROUNDS: list[tuple[str, dict[str, Any]]] = [
    ("moco_v2", {"kind": "none"}),
    ("moco_v2", {"kind": "rm", "p_pos": 0.5, "distortion": {"rotate": 10.0}}),
    ("moco_v2", {"kind": "swaps", "p_pos": 0.5, "negatives": 2}),
    ("byol", {"kind": "random", "p_pos": 0.5, "donor": "crop"}),
    ("swav", {"kind": "random", "p_pos": 0.5}),
    ("rotnet", {"kind": "random", "p_pos": 0.5}),
    ("supervised", {"kind": "random", "p_pos": 0.5, "donor": "none"}),
]


@pytest.mark.parametrize(("method", "background"), BACKGROUNDS)
@pytest.mark.parametrize("sources", [False, True])
def test_a_table_holds_together(method: str, background: dict[str, Any], sources: bool) -> None:
    """What the renderers rely on: waves, and every image finished before it is used."""
    made = _plan(_recipe(method, sources, background=background))
    jobs, copies = made.jobs, made.donors + made.views
    number = np.arange(len(jobs))
    assert (jobs["source"][: made.donors] == TILE).all()
    assert (jobs["source"][made.donors : copies] != IMAGE).all()
    assert (jobs["source"][copies:] == IMAGE).all()
    assert (jobs["size"][jobs["sample"][copies:]] == jobs["size"][copies:]).all()
    assert (jobs["sample"][copies:] < copies).all()
    over = jobs["background"] == RENDERED
    assert (jobs["background_job"][over & (number < copies)] < made.donors).all()
    assert (jobs["background_job"][over] < copies).all()
    assert (jobs["size"][jobs["background_job"][over]] == jobs["size"][over]).all()
    assert (jobs["background"][: made.donors] == KEPT).all()
    views = _views(made)
    assert np.array_equal(views["mask_of"], made.replaced)
    assert np.array_equal(views["sample"], np.repeat(np.arange(16)[:, None], views.shape[1], axis=1))
    assert (jobs["slot"][: made.donors] == -1).all()
    for slot, (_, _, turns) in enumerate(made.slots):  # every row of an output is made once
        assert sorted(jobs["row"][jobs["slot"] == slot]) == list(range(16 * turns))
    assert set(jobs["slot"][made.donors :]) == set(range(len(made.slots)))


@pytest.mark.parametrize(("method", "background"), BACKGROUNDS)
def test_the_same_names_give_the_same_table(method: str, background: dict[str, Any]) -> None:
    recipe = _recipe(method, background=background)
    first, again, later = (_plan(recipe, iteration=iteration).jobs for iteration in (0, 0, 1))
    assert first.tobytes() == again.tobytes() != later.tobytes()


def test_a_views_options_change_no_other_view() -> None:
    """Nor do backgrounds, distortions or sources change its crop box and its colours."""
    plain = _views(_plan(_recipe()))
    others = {
        "photometric": {"views": {"query": {"photometric": {"jitter_p": 0.0, "blur_p": 0.0}}}},
        "crop": {"views": {"query": {"crop": {"scale": [0.5, 0.6], "flip_p": 0.0}}}},
        "rm": {"background": {"kind": "rm", "distortion": {"rotate": 3.0}}},
        "swaps": {"background": {"kind": "swaps", "negatives": 3}, "sources": True},
    }
    for values in others.values():
        changed = _views(_plan(_recipe(**values)))
        assert _same(changed[:, 1], plain[:, 1], [*CROP_BOX, *PHOTOMETRIC])
    local = [
        _views(_plan(_recipe("swav", views={"global": {"count": count}}))) for count in (1, 2)
    ]  # without one view there are as many numbers for the rest
    assert _same(local[0][:, 1:], local[1][:, 2:], PHOTOMETRIC)
    assert not np.array_equal(plain["draws"][:, 0], plain["draws"][:, 1])


def test_donors_are_for_views_that_want_one() -> None:
    recipe = _recipe("swav", background={"kind": "random", "p_pos": 0.5})
    lends = np.arange(16) % 4 > 0
    found = 0
    for iteration in range(20):
        made = _plan(recipe, lends, iteration=iteration)
        views = _views(made)
        assert (views["background"][:, 2:] == KEPT).all()
        photo, view = np.nonzero(views["background"] == RENDERED)
        used = views["background_job"][photo, view]
        donors = made.jobs["sample"][used]
        assert (donors != photo).all()
        assert lends[donors].all()
        assert sorted(set(used)) == list(range(made.donors))  # no tile is treated for nobody
        found += len(used)
    assert 230 < found < 410  # of 20 * 16 * 2 views half
    assert _plan(recipe, np.zeros(16, bool)).donors == 0


def test_views_of_one_look_share_donors_and_others_do_not() -> None:
    background = {"kind": "random", "p_pos": 1.0, "views_per_donor": 8}
    alike = _plan(_recipe(background=background), 64)
    assert alike.donors <= 128 / 8
    assert set(alike.jobs["size"]) == {224}
    made = _plan(_recipe(background=background, views={"key": {"crop": {"size": 96}}}), 64)
    views = _views(made)
    assert made.donors <= 2 * 64 / 8
    assert not set(views["background_job"][:, 0]) & set(views["background_job"][:, 1])
    assert set(made.jobs["size"][views["background_job"][:, 1]]) == {96}


@pytest.mark.parametrize(
    ("donor", "crop", "looked"),
    [("full", table.RANDOM, True), ("crop", table.RANDOM, False), ("none", table.WHOLE, False)],
)
def test_a_donors_treatment(donor: str, crop: int, looked: bool) -> None:
    made = _plan(_recipe(background={"kind": "random", "p_pos": 1.0, "donor": donor}))
    jobs = made.jobs[: made.donors]
    assert (jobs["crop"] == crop).all()
    assert jobs["jittered"].any() == jobs["sigma"].any() == looked
    assert jobs["flip"].any() == (donor != "none")
    assert (jobs["frame"] == jobs["sample"]).all()  # a frame of its own
    assert (jobs["fg_min"] == 0).all()


def test_before_a_donors_crop_box_is_its_views() -> None:
    recipe = _recipe("rotnet", background={"kind": "random", "p_pos": 0.6}, crop={"fg_min": 0.1})
    made = _plan(recipe)
    views = _views(made)
    assert (views["before"] == 1).all()
    photo, view = np.nonzero(views["background"] == RENDERED)
    donors = made.jobs[views["background_job"][photo, view]]
    assert made.donors == len(photo) > 5
    assert _same(donors, views[photo, view], [*CROP_BOX, "size"])
    assert (donors["sample"] != photo).all()
    assert set(donors["source"]) == {TILE}
    for name, value in {
        "jittered": 0,
        "grayscale": 0,
        "sigma": 0,
        "solarized": 0,
        "scale": 1,
        "shift": 0,
        "background": 0,
    }.items():
        assert (donors[name] == value).all(), name


def test_negatives_are_other_photos_keys_over_the_query() -> None:
    background = {"kind": "swaps", "p_pos": 0.5, "p_neg": 0.5, "negatives": 3}
    for match, number in (("query", 0), ("key", 1)):
        made = _plan(_recipe(background=background | {"matches": match}))
        negatives = made.jobs[made.matched]
        assert negatives.shape == (16, 3)
        assert made.slots[2:] == tuple(Slot(f"negative_{place}", 224) for place in range(3))
        assert (negatives["slot"] == [2, 3, 4]).all()
        assert (negatives["row"] == np.arange(16)[:, None]).all()
        photo_of = np.full(len(made.jobs), -1)
        photo_of[made.replaced[:, 1]] = np.arange(16)
        lenders = photo_of[negatives["sample"]]
        assert (lenders >= 0).all()  # keys
        assert (lenders != np.arange(16)[:, None]).all()
        assert all(len(set(row)) == 3 for row in lenders.tolist())
        assert (negatives["background_job"] == made.replaced[:, [number]]).all()
        assert (negatives["mask_of"] == made.replaced[:, [number]]).all()
        assert 10 < (negatives["background"] == RENDERED).sum() < 38
        assert (negatives["coupled_to"] == -1).all()


def test_coupled_negatives_follow_the_key() -> None:
    made = _plan(_recipe(background={"kind": "swaps", "p_pos": 0.5, "p_neg": 0.0, "coupled": True}))
    negatives, keys = made.jobs[made.matched[:, 0]], _views(made)[:, 1]
    assert np.array_equal(negatives["background"] == RENDERED, keys["background"] == RENDERED)
    assert 0 < (keys["background"] == RENDERED).sum() < 16
    assert np.array_equal(negatives["coupled_to"], made.replaced[:, 1])


def test_turns_are_copies_of_their_view() -> None:
    made = _plan(_recipe("rotnet", background={"kind": "rm"}), 5)
    assert made.slots == (Slot("image", 224, 4),)
    assert made.slots[0].shape(5) == (5, 4, 224, 224, 3)
    views, turned = _views(made)[:, 0], made.jobs[5:].reshape(3, 5)
    assert views["row"].tolist() == [0, 4, 8, 12, 16]
    for turns, copies in enumerate(turned, 1):
        assert (copies["turns"] == turns).all()
        assert np.array_equal(copies["sample"], made.replaced[:, 0])
        assert np.array_equal(copies["row"], views["row"] + turns)


@pytest.mark.parametrize(("rule", "only_visible"), [("keep", 1), ("replace", 0)])
def test_views_without_foreground(rule: str, only_visible: int) -> None:
    """The coins are the same; the renderer is told to look, or not to."""
    background = {"kind": "swaps", "p_pos": 0.5, "p_neg": 0.5}
    made = _plan(_recipe(background=background | {"without_foreground": rule}))
    jobs = made.jobs[np.concatenate([made.replaced, made.matched], axis=1)]
    assert (jobs["only_visible"] == only_visible).all()
    other = _plan(_recipe(background=background)).jobs
    assert _same(made.jobs, other, [name for name in table.JOB.names if name != "only_visible"])


def test_strength_scales_the_coins() -> None:
    """Grey is put behind where it was at full strength, or nowhere."""
    recipe = _recipe(background={"kind": "rm", "p_pos": 0.8, "grey": [0.25, 0.5]})
    coins = [_views(_plan(recipe, 500, strength))["background"] == GREY for strength in (0.0, 0.5, 1.0)]
    assert [coin.mean() for coin in coins] == pytest.approx([0, 0.4, 0.8], abs=0.06)
    assert (coins[1] <= coins[2]).all()
    grey = _views(_plan(recipe, 500))["grey"]
    assert 63.75 <= grey.min() < 64.5 and 126.5 < grey.max() <= 127.5
    assert abs(np.corrcoef(grey.T)[0, 1]) < 0.15  # a level for each view


def test_values_are_normalised_in_the_end() -> None:
    views = _views(_plan(_recipe(normalise={"mean": [0.5, 0.25, 0.0], "std": [0.5, 0.25, 1.0]})))
    np.testing.assert_allclose(views["scale"][0, 0] * 255 + views["shift"][0, 0], [1, 3, 1], rtol=1e-6)
    np.testing.assert_allclose(views["shift"][0, 1], [-1, -1, 0])


def test_sources_are_whole_photos_and_tiles_as_they_are() -> None:
    made = _plan(_recipe(sources=True), 5)
    assert made.slots[2:] == (Slot("photo", 160), Slot("tile", 160))
    thumbnails = made.jobs[10:].reshape(2, 5)
    assert thumbnails["source"].tolist() == [[PHOTO] * 5, [TILE] * 5]
    for name, value in {"crop": table.WHOLE, "flip": 0, "scale": 1, "shift": 0, "jittered": 0}.items():
        assert (thumbnails[name] == value).all(), name
    assert (thumbnails["sample"] == np.arange(5)).all()


MOCO = """\
query, key
    random crop of area 0.2 to 1, ratio 0.75 to 1.33, at least 0.1 of the foreground, to 224 pixels; \
flip p = 0.5
    colour jitter p = 0.8: brightness 0.4, contrast 0.4, saturation 0.4, hue 0.1
    grayscale p = 0.2
    Gaussian blur p = 0.5: sigma 0.1 to 2
    background p = 0.2: another photo's, treated like a view, shared by 4 views; without foreground in the \
crop box: keep
    normalise by mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)
negative_0
    another photo's key
    with p = 0.2 over the background of query"""
ROTNET = """\
image
    random crop of area 0.08 to 1, ratio 0.75 to 1.33, to 224 pixels; flip p = 0.5
    background p = 0.2: grey 0 to 1; rising over 5 epochs; without foreground in the crop box: replace; mask \
distorted: rotate 20.0
    normalise by mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)
    4 rotations, counter-clockwise"""
EVALUATION = """\
image
    short side to 256, central crop of 224
    normalise by mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"""


def test_a_recipe_in_words() -> None:
    assert describe(_recipe(background={"kind": "swaps"}, crop={"fg_min": 0.1})) == MOCO
    rm = {"kind": "rm", "warmup_epochs": 5, "without_foreground": "replace", "distortion": {"rotate": 20.0}}
    assert describe(_recipe("rotnet", background=rm)) == ROTNET
    assert describe(_recipe("evaluation")) == EVALUATION
    byol = describe(_recipe("byol", background={"kind": "random"})).splitlines()
    assert [line for line in byol if not line.startswith(" ")] == ["view_1", "view_2"]
    assert byol.count("    solarize p = 0.2") == 1
    swav = describe(_recipe("swav", background={"kind": "random"})).splitlines()
    names = [line for line in swav if not line.startswith(" ")]
    assert names == ["global_0, global_1", "local_0, local_1, local_2, local_3, local_4, local_5"]
    assert sum("background" in line for line in swav) == 1


def test_a_background_before_comes_before_the_look_in_words() -> None:
    recipe = _recipe(background={"kind": "random", "stage": "before", "donor": "none"})
    steps = [line.split()[0] for line in describe(recipe).splitlines()]
    assert steps == ["query,", "random", "background", "colour", "grayscale", "Gaussian", "normalise"]
