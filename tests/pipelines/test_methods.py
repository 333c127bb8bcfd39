"""Every method: its config, its views, its pipeline on a GPU that is not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types
from pydantic import ValidationError

from dali_bgaug.config import validate
from dali_bgaug.dataset import open_packed
from dali_bgaug.errors import UserError
from dali_bgaug.reading import decoding_pipeline
from dali_bgaug.sampling import EpochShard
from dali_bgaug.shards import TileKind
from dali_bgaug.views.options import BackgroundOptions
from pipelines import LoaderConfig, build_loader
from pipelines.build import reader_options
from pipelines.config import components
from pipelines.methods import METHODS
from tests.helpers.loaders import PLAIN

DATA = Path(__file__).parents[1] / "data"
KINDS = {method: ["none", "rm", "random"] for method in METHODS} | {
    "moco_v2": ["none", "rm", "random", "swaps"],
    "evaluation": ["none"],
}
CASES = [(method, kind) for method, kinds in KINDS.items() for kind in kinds]


def test_views_are_looked_up_in_the_order_of_the_docstring(tmp_path: Path) -> None:
    def views(**values: Any) -> dict[str, Any]:
        return LoaderConfig(shards=tmp_path, **values).views

    byol = views(pipeline="byol")
    assert (byol["view_1"].photometric.blur_p, byol["view_2"].photometric.blur_p) == (1.0, 0.1)
    assert (byol["view_1"].photometric.solarize_p, byol["view_2"].photometric.solarize_p) == (0.0, 0.2)
    assert byol["view_1"].photometric.saturation == byol["view_2"].photometric.saturation == 0.2
    swav = views(pipeline="swav", crop={"fg_min": 0.15}, views={"local": {"crop": {"fg_min": 0.05}}})
    assert (swav["global"].crop.fg_min, swav["local"].crop.fg_min) == (0.15, 0.05)
    swav = views(pipeline="swav", crop={"fg_min": 0.15}, views={"local": {"count": 4}})
    assert (swav["global"].count, swav["local"].count) == (2, 4)
    assert (swav["global"].crop.scale, swav["local"].crop.scale) == ((0.14, 1.0), (0.05, 0.14))
    assert (swav["global"].crop.fg_min, swav["local"].crop.fg_min) == (0.15, 0.0)
    one_size = views(pipeline="swav", crop={"size": 64}, photometric={"blur_p": 0.0})
    assert {view.crop.size for view in one_size.values()} == {64}
    assert views(pipeline="byol", photometric={"blur_p": 0.0})["view_1"].photometric.blur_p == 0.0
    moco = views(crop={"size": 64}, views={"key": {"crop": {"size": 96}, "background": False}})
    assert (moco["query"].crop.size, moco["key"].crop.size) == (64, 96)
    assert (moco["query"].background, moco["key"].background) == (True, False)


def test_a_resolved_config_is_its_own_resolution(tmp_path: Path) -> None:
    """What a run saves as its config gives the same config again."""
    for method in METHODS:
        config = LoaderConfig(shards=tmp_path, pipeline=method, crop={"size": 96})
        again = LoaderConfig.model_validate_json(config.model_dump_json())
        assert again == config


def test_a_copy_with_changes_is_what_would_have_been_made(tmp_path: Path) -> None:
    for method in METHODS:
        config = LoaderConfig(shards=tmp_path, pipeline=method, crop={"size": 96})
        copy = config.replaced(batch_size=8)
        assert copy == LoaderConfig(shards=tmp_path, pipeline=method, crop={"size": 96}, batch_size=8)
        with pytest.raises(ValidationError, match="batch_size"):
            config.replaced(batch_size=0)
    with pytest.raises(ValidationError, match="no background to warm up"):
        config.replaced(background=BackgroundOptions(warmup_epochs=3))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ["query", "key"]),
        ({"views": {"key": {"count": 1}}}, ["query", "key"]),  # as resolved configs have it
        ({"background": {"kind": "swaps"}}, ["query", "key"]),
        ({"pipeline": "byol"}, ["view_1", "view_2"]),
        (
            {"pipeline": "swav", "views": {"global": {"count": 1}, "local": {"count": 2}}},
            ["global_0", "local_0", "local_1"],
        ),
        ({"pipeline": "swav", "views": {"local": {"count": 0}}}, ["global_0", "global_1"]),
    ],
)
def test_kinds_of_views_are_numbered_whatever_their_count(
    tmp_path: Path, values: dict[str, Any], names: list[str]
) -> None:
    assert list(LoaderConfig(shards=tmp_path, **values).single_views) == names


def test_negatives_are_numbered_whatever_their_count(textured: Path) -> None:
    for count in (1, 2):
        background = {"kind": "swaps", "negatives": count}
        batch = _first(_small(textured, "moco_v2", background=background))
        negatives = [f"negative_{number}" for number in range(count)]
        assert list(batch) == ["query", "key", *negatives, "replaced", "matched", "label"]
        assert batch["matched"].shape == (16, count)


def test_views_of_a_resolved_config_are_written_as_ever(tmp_path: Path) -> None:
    """A state remembers its config as this text, and is refused if it is another."""
    views = LoaderConfig(shards=tmp_path, pipeline="supervised").model_dump_json(include={"views"})
    assert views == (
        '{"views":{"image":{"count":1,"turns":1,"crop":{"kind":"random","size":224,"scale":[0.08,1.0],'
        '"ratio":[0.75,1.3333333333333333],"fg_min":0.0,"flip_p":0.5},"photometric":{"brightness":0.4,'
        '"contrast":0.4,"saturation":0.4,"hue":0.1,"jitter_p":0.0,"grey_p":0.0,"blur_p":0.0,'
        '"blur_sigma":[0.1,2.0],"solarize_p":0.0},"background":true}}}'
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pipeline": "moco_v3"}, "pipeline='moco_v3': no such method; there are byol, evaluation, moco_v2"),
        ({"crop": {"sise": 3}}, "views.query.crop.sise: unknown key"),
        ({"views": {"qery": {}}}, "views.qery: no view of moco_v2; its views are query, key"),
        ({"pipeline": "byol", "background": {"kind": "swaps"}}, "only moco_v2 has extra negatives"),
        ({"background": {"kind": "rm", "grey": [0.5, 0.2]}}, r"grey=\[0.5, 0.2\] must be two increasing"),
        ({"background": {"kind": "random", "stage": "before"}}, "donor=full: with stage=before"),
        ({"background": {"warmup_epochs": 3}}, "there is no background to warm up"),
        (
            {"background": {"kind": "swaps"}, "views": {"key": {"crop": {"size": 96}}}},
            r"query \(224 pixels\) and key \(96\) must have one size",
        ),
        (
            {"background": {"kind": "swaps", "coupled": True}, "views": {"key": {"background": False}}},
            "negatives follow the key's background, views.key.background is false",
        ),
        ({"views": {"query": {"count": 2}}}, "views.query.count=2: moco_v2 has one of these"),
        ({"pipeline": "swav", "views": {"global": {"count": 0}, "local": {"count": 0}}}, "one view at least"),
        (
            {"crop": {"size": 64}, "views": {"query": {"crop": {"size": 32}}, "key": {"crop": {"size": 32}}}},
            "crop.size=64: reaches no view, each says its own crop.size under views",
        ),
        ({"pipeline": "evaluation", "crop": {"fg_min": 0.1}}, "evaluation takes the central crop"),
        ({"pipeline": "evaluation", "crop": {"kind": "random"}}, "evaluation takes the central crop"),
        (
            {"crop": {"kind": "central", "fg_min": 0.1}},
            "views.query.crop.fg_min: a central crop is not drawn; leave it out",
        ),
        (
            {"pipeline": "supervised", "resize": 128, "crop": {"kind": "central"}},
            "views.image.crop.size=224: larger than resize=128",
        ),
        ({"crop": {"kind": "middle"}}, "views.query.crop.kind"),
        (
            {"views": {"query": {"turns": 4}}},
            "views.query.turns=4: the method says how often a view is turned",
        ),
        (
            {"pipeline": "rotnet", "views": {"image": {"turns": 1}}},
            "views.image.turns=1: the method says how often a view is turned",
        ),
        ({"pipeline": "evaluation", "background": {"kind": "rm"}}, "evaluation shows photos as they are"),
        ({"pipeline": "evaluation", "resize": 128}, "crop.size=224: larger than resize=128"),
        (
            {
                "pipeline": "supervised",
                "background": {"kind": "rm"},
                "views": {"image": {"background": False}},
            },
            "no view has background: true",
        ),
    ],
)
def test_bad_configs_say_what_is_wrong(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(LoaderConfig, {"shards": str(tmp_path), **values}, "recipe.yaml")


def _small(shards: Path, method: str, **values: Any) -> LoaderConfig:
    """Small views, as they are: no jitter, grey levels 0 to 255 unchanged but for the division."""
    views = {"global": {"crop": {"size": 32}}, "local": {"crop": {"size": 16}}} if method == "swav" else {}
    return LoaderConfig(
        **{"pipeline": method, "shards": shards, "batch_size": 16, "device": "cpu", "threads": 2},
        **{"photometric": PLAIN.model_dump(), "views": views} if method != "byol" else {"views": views},
        **{"normalise": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}},
        **({"crop": {"size": 32}} if method != "swav" else {}) | values,
    )


def _first(config: LoaderConfig, **options: Any) -> dict[str, torch.Tensor]:
    with build_loader(config, **options) as loader:
        return next(iter(loader))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_and_sources_of_every_method(textured: Path, method: str) -> None:
    small = {"crop": {"size": 16}}
    config = LoaderConfig(pipeline=method, shards=textured, batch_size=4, device="cpu", half=True, **small)
    batch = _first(config, with_sources=True)
    for name, tensor in batch.items():
        if tensor.dim() >= 4 and name not in ("photo", "mask", "tile"):
            assert tensor.dtype == torch.float16, name
    assert batch["photo"].shape == batch["mask"].shape == batch["tile"].shape == (4, 160, 160, 3)
    assert batch["crop_box"].shape[0] == 4


def test_swavs_views(textured: Path) -> None:
    batch = _first(_small(textured, "swav", background={"kind": "random", "p_pos": 1.0}))
    names = ["global_0", "global_1", *(f"local_{number}" for number in range(6))]
    assert [name for name in batch if name not in ("replaced", "label")] == names
    assert {batch[name].shape[-1] for name in names[:2]} == {32}
    assert {batch[name].shape[-1] for name in names[2:]} == {16}
    assert batch["replaced"][:, :2].float().mean() > 0.9
    assert not batch["replaced"][:, 2:].any()


def test_byols_views_are_not_alike(flat: Path) -> None:
    """On flat photos only solarizing makes a bright square dark, and only in the second view."""
    config = LoaderConfig(
        pipeline="byol", shards=flat, batch_size=32, device="cpu", crop={"size": 32, "scale": [1.0, 1.0]},
        photometric={"jitter_p": 0.0, "grey_p": 0.0}, normalise={"mean": [0, 0, 0], "std": [1, 1, 1]},
    )  # fmt: skip
    dark = {"view_1": 0, "view_2": 0}
    with build_loader(config) as loader:
        for batch in (batch for _ in range(10) for batch in loader):
            for name in dark:
                dark[name] += int((batch[name][:, 0, 16, 16] < 0.5).sum())
    assert dark["view_1"] == 0
    assert abs(dark["view_2"] / 640 - 0.2) < 4 * (0.2 * 0.8 / 640) ** 0.5


def test_rotnets_rotations_are_the_originals(textured: Path) -> None:
    reference = np.load(DATA / "rotnet_rotations.npz")
    turned = [np.rot90(reference["img"], turns) for turns in range(4)]
    for degrees, expected in zip((0, 90, 180, 270), turned, strict=True):
        assert np.array_equal(reference[f"rot{degrees}"], expected)  # what rot90 means here
    images = _first(_small(textured, "rotnet", background={"kind": "rm"}))["image"]
    assert images.shape == (16, 4, 3, 32, 32)
    for turns in range(4):
        assert torch.equal(images[:, turns], images[:, 0].rot90(turns, dims=(2, 3)))


def test_rotnets_background_comes_before_the_crop(flat: Path) -> None:
    """The grey level lies behind the photo: a crop of the replaced photo has no third level."""
    config = _small(flat, "rotnet", background={"kind": "rm", "p_pos": 1.0, "grey": [0.5, 0.5]})
    batch = _first(config)
    for image, replaced in zip(batch["image"][:, 0, 0], batch["replaced"][:, 0], strict=True):
        if replaced:
            near = torch.minimum((image - 0.5).abs(), (image - 1).abs())
            assert (near < 0.01).float().mean() > 0.85  # all but the edge


def test_evaluation_is_torchvisions(textured: Path) -> None:
    """Resize and CenterCrop of torchvision, on every photo, within rounding."""
    from pipelines.torchvision_loader import TorchvisionLoader

    config = _small(textured, "evaluation", resize=40)
    with build_loader(config) as ours, TorchvisionLoader(config, workers=0) as theirs:
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one["valid"], other["valid"])
            assert torch.equal(one["label"], other["label"])
            levels = 255 * (one["image"] - other["image"]).abs()
            assert levels.mean() < 0.5
            assert levels.max() < 3


@pytest.mark.parametrize("crop", [{"flip_p": 0.0}, {"flip_p": 1.0}])
def test_a_central_crop_is_the_evaluations(textured: Path, crop: dict[str, Any]) -> None:
    """Of supervised training, too, on the same photos, but for a flip."""
    expected = {}
    with build_loader(_small(textured, "evaluation", resize=40)) as loader:
        for batch in loader:
            images = batch["image"].flip(-1) if crop["flip_p"] else batch["image"]
            expected |= {image.numpy().tobytes(): image for image in images}
    crop = {"kind": "central", "size": 32} | crop
    found = _first(_small(textured, "supervised", resize=40, crop=crop))["image"]
    levels = 255 * (found[:, None] - torch.stack(list(expected.values()))[None]).abs().flatten(2)
    assert levels.amax(dim=2).amin(dim=1).max() < 1e-3
    assert len(set(levels.amax(dim=2).argmin(dim=1).tolist())) == 16


@pytest.mark.parametrize(("method", "kind"), CASES)
@pytest.mark.parametrize("tiles", ["geometry", "pixels"])
def test_what_a_loader_reads_of_a_sample(textured: Path, method: str, kind: str, tiles: TileKind) -> None:
    """Masks and tiles only where views need them."""
    options = {} if method == "evaluation" else {"crop": {"fg_min": 0.1}}
    config = LoaderConfig(pipeline=method, shards=textured, background={"kind": kind}, **options)
    expected = {"jpg", "cls"} | ({"mask"} if options else set())
    if kind in ("random", "swaps"):
        expected |= {"tile"} if tiles == "geometry" else {"tile.jpg"}
    assert set(components(config, tiles)) == expected


@pytest.mark.parametrize("tiles", [False, True])
def test_the_gpu_pipeline_is_defined_without_a_gpu(textured: Path, tiles: bool) -> None:
    """DALI checks every operator's argument devices when the pipeline is defined."""
    data, config = open_packed(textured), LoaderConfig(shards=textured)
    options = reader_options(config, data, EpochShard(data.samples, 8, 0, 1), device_id=0)
    assert decoding_pipeline(options, lambda: [], tiles).device_id == 0


def test_the_definition_would_catch_an_argument_on_the_gpu() -> None:
    """What the test above relies on."""

    @pipeline_def(batch_size=2, num_threads=1, device_id=0)
    def wrong() -> Any:
        image = types.Constant(np.zeros((8, 8, 3), np.uint8), device="gpu", layout="HWC")
        return fn.resize(image, size=types.Constant(np.array([4.0, 4.0], np.float32)).gpu())

    with pytest.raises((ValueError, RuntimeError), match="CPU"):
        wrong()
