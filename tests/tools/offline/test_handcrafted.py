"""The detectors without weights, and their fusion, on constructed photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug import stores
from tests.helpers.detectors import iou, scene
from tools.offline.detectors import Photo, read_options
from tools.offline.detectors.dsr import lasso, smooth
from tools.offline.detectors.fused import agreement, centred, pooled
from tools.offline.detectors.hs import reconcile, regions
from tools.offline.detectors.mc import absorption
from tools.offline.detectors.superpixels import Superpixels
from tools.offline.masks import write_mask_store

DETECTORS = "mc", "dsr", "hs", "fused"


def _maps(name: str, *images: np.ndarray, overrides: list[str] | None = None) -> list[np.ndarray]:
    photos = [Photo("photo.jpg", Path("photo.jpg"), image) for image in images]
    return read_options(name, {}, overrides or []).build()(photos)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_disc_is_found_in_whatever_company(name: str) -> None:
    image, mask = scene()
    (saliency,) = _maps(name, image)
    assert saliency.dtype == np.uint8
    assert saliency.shape == (120, 160)
    assert iou(saliency >= 128, mask) > 0.85
    assert saliency[0].mean() < 60
    many = _maps(name, image[:, ::-1], image, image[:60])
    assert np.array_equal(many[1], saliency)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("shape", [(40, 40), (1, 300), (300, 1), (2, 2), (8, 900)])
def test_flat_and_thin_photos_are_no_trouble(name: str, shape: tuple[int, int]) -> None:
    flat = np.full((*shape, 3), 128, np.uint8)
    speckled = flat.copy()
    speckled[::3, ::5] += 1  # what no eye sees
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    maps = _maps(name, flat, speckled, noise)
    assert [map_.shape for map_ in maps] == [shape] * 3
    assert not maps[0].any()
    assert not maps[1].any()


def _squares(colours: list[list[int]]) -> Superpixels:
    """Superpixels of 4 x 4 pixels, of a grid of lightness."""
    grid = np.array(colours)
    labels = np.arange(grid.size).reshape(grid.shape).repeat(4, 0).repeat(4, 1)
    lightness = grid.repeat(4, 0).repeat(4, 1).astype(float)
    return Superpixels(labels, np.stack([lightness, 0 * lightness, 0 * lightness], -1))


def test_a_walk_from_what_differs_from_the_border_is_long() -> None:
    grid = np.full((7, 7), 20)
    grid[2:5, 2:5] = 60
    saliency = absorption(_squares(grid.tolist())).reshape(7, 7)
    assert saliency[2:5, 2:5].min() > 0.9
    grid[2:5, 2:5] = 0
    assert np.delete(saliency.ravel(), [16, 17, 18, 23, 24, 25, 30, 31, 32]).max() < 0.1


def test_a_frame_is_no_background() -> None:
    """A white frame about a black scene: the scene's own border absorbs, and the frame is not salient."""
    grid = np.full((9, 9), 100)
    grid[1:8, 1:8] = 0
    grid[3:6, 3:6] = 40
    saliency = absorption(_squares(grid.tolist())).reshape(9, 9)
    assert not saliency[0].any()
    assert saliency[3:6, 3:6].min() > 0.9
    assert saliency[1, 1:8].max() < 0.1


def test_the_lasso_shrinks_what_a_template_explains() -> None:
    """Of orthogonal templates the minimum is known: each coefficient .01 nearer to 0."""
    points = np.array([[0.5, -0.3, 0.005]])
    assert lasso(points, np.eye(3)) == pytest.approx(np.array([[0.49, -0.29, 0.0]]), abs=1e-9)
    # Two equal templates share: only their sum is determined.
    assert lasso(points, np.eye(3)[[0, 0, 1]]).sum() == pytest.approx(0.2, abs=1e-9)


def test_errors_are_smoothed_among_what_is_alike() -> None:
    """Eight kinds of five, each a cluster: the odd one of the first is drawn to its kind, the others stay."""
    error = np.zeros(40)
    error[:5] = 1, 1, 1, 1, 0.2
    smoothed = smooth(error, np.repeat(np.eye(8), 5, 0))
    # From (1, 1, 1, 1, .2): .92, .912, .9032, .89352, and the odd one .1 + .5 * 3.82872 / 5; then over .92.
    assert smoothed[:5] == pytest.approx(np.array([0.92, 0.912, 0.9032, 0.89352, 0.482872]) / 0.92)
    assert not smoothed[5:].any()


def test_small_regions_are_merged_and_layers_nest() -> None:
    luv = np.zeros((200, 400, 3))
    luv[50:150, 100:300, 0] = 50
    luv[90:100, 190:200, 0] = 70  # holds a square of 10: gone in the layers of 17 and 33
    fine, middle, coarse = regions(luv)
    assert fine[95, 195] != fine[60, 120]
    assert middle[95, 195] == middle[60, 120]
    assert coarse.max() >= 1
    for finer, coarser in ((fine, middle), (middle, coarse)):
        pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1)
        assert len(pairs[0]) == finer.max() + 1
    layers = [Superpixels(each, luv) for each in (fine, middle, coarse)]
    saliency = reconcile(layers)[fine]
    assert saliency[60, 120] > 2 * saliency[5, 5]


def test_voters_count_by_how_much_the_others_explain_of_them() -> None:
    """Of three alike and one against them the last does not count; without any in common all count alike."""
    one, other = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 1.0, 0.0, 1.0]])
    assert agreement(np.stack([one, one, one, 1 - one])) == pytest.approx([1, 1, 1, 0])
    assert agreement(np.stack([one, one, other])) == pytest.approx([0.5, 0.5, 0])
    assert agreement(np.stack([one, other])) == [1, 1]
    assert agreement(np.full((2, 1, 4), 0.5)) == [1, 1]


def test_pooling_is_between_the_mean_and_that_of_log_odds() -> None:
    """Of two maps, at .2 and .8, .5 and .5, 0 and .9: the last have the odds 1 / 9 and 9, together 1."""
    maps = np.array([[[0.2, 0.5, 0.0]], [[0.8, 0.5, 0.9]]])
    np.testing.assert_allclose(pooled(maps), [[0.5, 0.5, (0.45 + 0.5) / 2]])


def test_the_mean_is_centred_on_its_own_threshold() -> None:
    """Two greys below .5 come to lie on both sides of it; the ratio of their odds stays."""
    grey = np.array([0.1] * 6 + [0.3] * 4)
    low, high = centred(grey)[[0, 9]]
    assert low < 0.5 < high
    assert (high / (1 - high)) / (low / (1 - low)) == pytest.approx((3 / 7) / (1 / 9))
    assert centred(np.array([0.0, 0.0, 1.0])).tolist() == [0, 0, 1]
    assert not centred(np.zeros(4)).any()


def test_what_a_store_says_of_them(tmp_path: Path) -> None:
    """The random field only where it is set, so that stores of before there was one stay good."""
    assert read_options("mc", {}, []).record() == {"side": 300, "superpixels": 250, "compactness": 20.0}
    assert read_options("dsr", {}, ["scales=3"]).record() == {"side": 300, "scales": 3}
    assert read_options("hs", {}, []).record() == {"side": 200}
    assert read_options("fused", {}, []).record() == {"crf": True}
    assert read_options("fused", {}, ["crf=false"]).record() == {}
    assert read_options("hs", {}, ["crf=true"]).record() == {"side": 200, "crf": True}
    masks = {"folder": str(tmp_path)}
    assert read_options("import", masks, ["crf=true"]).record() == {"crf": True}


def test_fused_masks_of_photos_are_the_same_by_any_number_of_workers(tmp_path: Path) -> None:
    image, mask = scene()
    for number, turned in enumerate((image, image[:, ::-1], image[::-1])):
        Image.fromarray(turned).save(tmp_path / f"{number}.jpg", quality=95)
    stored = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        options = read_options("fused", {}, [])
        report = write_mask_store(tmp_path, options, out, per_file=2, workers=workers)
        assert (report.photos, report.counts["empty"]) == (3, 0)
        with stores.StoreReader(stores.list_files(out, "out")) as reader:
            stored.append([reader.saliency(0, 0), reader.saliency(0, 1), reader.saliency(1, 0)])
    assert np.array_equal(*stored)
    truth = np.asarray(Image.fromarray(mask).resize((256, 256)))
    assert iou(stored[0][0] >= 128, truth) > 0.9
