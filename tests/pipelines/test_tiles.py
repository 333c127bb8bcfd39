"""Loaders on shards of either kind of tiles, and on damaged ones."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.shard_index import locate_samples
from pipelines import LoaderConfig, build_loader
from tests.helpers.loaders import PLAIN

V1 = Path(__file__).parents[1] / "data" / "shards_v1"


def _config(shards: Path, **values: object) -> LoaderConfig:
    defaults = {
        "batch_size": 6,
        "device": "cpu",
        "threads": 2,
        "photometric": PLAIN,
        "normalise": {"mean": [0.0, 0.0, 0.0], "std": [1 / 255] * 3},
        "crop": {"size": 24, "scale": [1.0, 1.0], "flip_p": 0.0},
        "background": {"kind": "random", "p_pos": 1.0, "donor": "none"},
    }
    return LoaderConfig(**{"shards": shards, **defaults, **values})


def test_shards_of_the_version_before_are_read() -> None:
    with build_loader(_config(V1)) as loader:
        batches = list(islice(loader, 1)) + list(islice(loader, 1))
    for batch in batches:
        assert batch["replaced"].all()
        assert torch.isfinite(batch["query"]).all()
        assert sorted(batch["label"].tolist()) == [0, 0, 0, 1, 1, 1]


def test_either_kind_shows_the_same_tile(textured: Path, textured_pixels: Path) -> None:
    """Thumbnails, by photo: a JPEG of 160 to 256 pixels lies between them."""
    shown: list[dict[bytes, torch.Tensor]] = []
    for shards in (textured, textured_pixels):
        with build_loader(_config(shards, batch_size=10), with_sources=True) as loader:
            shown.append({})
            for batch in loader:
                photos = (photo.numpy().tobytes() for photo in batch["photo"])
                shown[-1] |= dict(zip(photos, batch["tile"].float(), strict=True))
    both = shown[0].keys() & shown[1].keys()
    assert len(both) >= 30
    assert np.mean([(shown[0][photo] - shown[1][photo]).abs().mean() for photo in both]) < 3


def test_the_kind_a_recipe_asks_for_is_the_shards(textured: Path, textured_pixels: Path) -> None:
    for shards, kind, other in ((textured, "geometry", "pixels"), (textured_pixels, "pixels", "geometry")):
        background = {"kind": "random", "tiles": kind}
        build_loader(_config(shards, background=background)).close()
        with pytest.raises(UserError, match=rf"data.background.tiles={other}: the shards .* keep {kind}"):
            build_loader(_config(shards, background=background | {"tiles": other}))


@pytest.mark.parametrize("value", [2**20, -5, 2**31 - 1])
def test_a_tile_beyond_its_photo_is_named(textured: Path, tmp_path: Path, value: int) -> None:
    """A kernel would read past the photo."""
    shards = shutil.copytree(textured, tmp_path / "shards")
    tar = shards / "shard-00000.tar"
    key, places = list(locate_samples(tar.with_suffix(".idx")))[3]
    data = bytearray(tar.read_bytes())
    start = places["tile"][0]
    numbers = np.frombuffer(data[start : start + 32], "<i4").copy()
    numbers[2] = value
    data[start : start + 32] = numbers.tobytes()
    tar.write_bytes(data)
    with (
        pytest.raises(UserError, match=rf"shard-00000.tar: {key}: the tile lies not in its photo"),
        build_loader(_config(shards, verify=False)) as loader,
    ):
        for _ in range(3):
            list(loader)


def test_a_donor_shows_its_own_background(textured: Path) -> None:
    """Two photos, each behind the other: what is seen is the other's photo with its box filled."""
    with build_loader(_config(textured, batch_size=2), with_sources=True) as loader:
        batch = next(iter(loader))
    assert batch["replaced"].all()
    for number in (0, 1):
        tile = batch["tile"][1 - number].permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(tile, 24, mode="bilinear", antialias=True)[0]
        background = batch["mask"][number].permute(2, 0, 1)[None].float()
        background = torch.nn.functional.interpolate(background, 24, mode="area")[0] == 0
        assert (batch["query"][number] - expected).abs()[background].mean() < 3
