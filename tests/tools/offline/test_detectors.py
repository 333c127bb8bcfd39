"""Every detector on constructed photos, what it records, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from dali_bgaug import stores
from dali_bgaug.errors import UserError
from tests.helpers.detectors import iou, network, scene
from tools.offline.detectors import Photo, read_options
from tools.offline.detectors.base import stretch
from tools.offline.detectors.ncut import cut, refine
from tools.offline.masks import choose_detector, write_mask_store
from tools.offline.photos import open_photo


def _photo(image: np.ndarray, path: Path = Path("photo.jpg")) -> Photo:
    return Photo(path.name, path, image)


def test_stretch() -> None:
    assert stretch(np.array([2.0, 3.0, 4.0])).tolist() == [0, 0.5, 1]
    assert stretch(np.full(3, 7.0)).tolist() == [0, 0, 0]


# --- rbd


def test_rbd_finds_a_disc() -> None:
    image, mask = scene()
    options = read_options("rbd", {}, [])
    (saliency,) = options.build()([_photo(image)])
    assert saliency.dtype == np.uint8
    assert saliency.shape == (120, 160)
    assert iou(saliency >= 255 * options.THRESHOLD, mask) > 0.85
    assert saliency[0].max() < 30  # the border is background


@pytest.mark.parametrize("shape", [(40, 40), (1, 300), (300, 1), (2, 2), (8, 900)])
def test_rbd_copes_with_flat_and_thin_photos(shape: tuple[int, int]) -> None:
    """Nothing to tell apart: no foreground, no error."""
    (saliency,) = read_options("rbd", {}, []).build()([_photo(np.full((*shape, 3), 128, np.uint8))])
    assert saliency.shape == shape
    assert not saliency.any()
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    (saliency,) = read_options("rbd", {}, []).build()([_photo(noise)])
    assert saliency.shape == shape


def test_rbd_does_not_take_the_noise_of_a_flat_photo_for_something(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100), (0, 128, 0)).save(tmp_path / "p.jpg")
    image = np.asarray(open_photo(tmp_path / "p.jpg")).copy()
    image[::3, ::5] += 1
    assert not read_options("rbd", {}, []).build()([_photo(image)])[0].any()


def test_rbd_ignores_how_large_a_photo_is() -> None:
    image, mask = scene(600, 800)
    y, x = np.mgrid[:600, :800]
    mask = np.hypot(x - 400, y - 300) < 150
    image[mask] = [200, 30, 30]
    (saliency,) = read_options("rbd", {}, []).build()([_photo(image)])
    assert iou(saliency >= 128, mask) > 0.85


# --- u2net


@pytest.mark.parametrize(("batch", "photos"), [(1, 1), (4, 3), ("n", 1)])
def test_u2net_prepares_and_stretches_as_the_official_program(
    tmp_path: Path, batch: int | str, photos: int
) -> None:
    """By hand: red / largest value of the photo, normalised, doubled, plus one; then min-max to 0..255."""
    image = np.zeros((640, 320, 3), np.uint8)
    image[:320, :, 0], image[320:, :, 0] = 50, 100
    image[..., 2] = 200  # the largest value
    detector = read_options("u2net", {"weights": str(network(tmp_path / "n.onnx", batch))}, []).build()
    for saliency in detector([_photo(image)] * photos):
        assert saliency.shape == (640, 320)
        assert (saliency[:315] == 0).all()
        assert (saliency[325:] == 255).all()
    detector = read_options("u2net", {"weights": str(tmp_path / "n.onnx")}, ["stretch=false"]).build()
    saliency = detector([_photo(image)] * photos)[0]
    # (100 / 200 - .485) / .229 * 2 + 1 = 1.13: beyond white; (50 / 200 - .485) / .229 * 2 + 1 = -1.05: black
    assert (saliency[0, 0], saliency[-1, -1]) == (0, 255)


def test_u2net_of_a_flat_map_is_empty(tmp_path: Path) -> None:
    detector = read_options("u2net", {"weights": str(network(tmp_path / "n.onnx"))}, []).build()
    for level in (0, 90):
        assert not detector([_photo(np.full((50, 60, 3), level, np.uint8))])[0].any()


def test_u2net_refuses_what_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    whole = network(tmp_path / "n.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name in ("bad", "cut"):
        with pytest.raises(UserError, match=rf"weights=.*{name}.onnx: ONNX Runtime cannot load it"):
            read_options("u2net", {"weights": str(tmp_path / f"{name}.onnx")}, []).build()
    with pytest.raises(UserError, match=r"weights=.*none.onnx: no such file"):
        read_options("u2net", {"weights": str(tmp_path / "none.onnx")}, []).build()
    for other in ({"channels": 1}, {"side": 224}):
        path = network(tmp_path / "other.onnx", **other)
        with pytest.raises(UserError, match=r"its input is .*U²-Net's is \[1, 3, 320, 320\]"):
            read_options("u2net", {"weights": str(path)}, []).build()
    with pytest.raises(UserError, match=r"provider=cuda: this ONNX Runtime has only .*CPUExecutionProvider"):
        read_options("u2net", {"weights": str(tmp_path / "n.onnx")}, ["provider=cuda"]).build()
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs ONNX Runtime: pip install '.\[saliency\]'"):
        read_options("u2net", {"weights": str(tmp_path / "n.onnx")}, []).build()


def test_u2net_equals_masks_made_by_others(real_photos: object) -> None:
    """u2netp's own masks of real photos, made at .5 by another program."""
    folder = real_photos()
    weights = folder.parent / "weights" / "u2netp.onnx"
    detector = read_options("u2net", {"weights": str(weights)}, []).build()
    for path in sorted((folder / "images").iterdir())[:3]:
        (saliency,) = detector([_photo(np.asarray(open_photo(path)), path)])
        truth = np.asarray(Image.open(folder / "masks_u2netp" / f"{path.stem}.png").convert("L")) > 0
        assert iou(saliency >= 128, truth) > 0.995


# --- ncut


def _backbone(folder: Path, architecture: str = "resnet18", seed: int = 0) -> Path:
    """A ResNet of random weights with its card, as a run leaves it."""
    torch.manual_seed(seed)
    network = getattr(torchvision.models, architecture)(weights=None)
    network.fc = torch.nn.Identity()
    torch.save(network.state_dict(), folder / "backbone.pt")
    normalise = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    card = {"architecture": architecture, "input": {"normalise": normalise}}
    (folder / "backbone.json").write_text(json.dumps(card))
    return folder / "backbone.pt"


def _cells(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two kinds of features with noise, of unit length: [8, h, w]."""
    maps = np.random.default_rng(seed).normal(0, 0.1, (8, *mask.shape))
    maps[0] += np.where(mask, 1, -1)
    return maps / np.linalg.norm(maps, axis=0)


def test_the_cut_is_the_object_whose_cells_are_alike() -> None:
    mask = np.zeros((12, 16), bool)
    mask[4:9, 5:11] = True
    assert np.array_equal(cut(_cells(mask), 0.2), mask)
    assert cut(np.ones((3, 4, 4)) / 3**0.5, 0.2) is None


def test_refinement_follows_the_finer_map() -> None:
    """A guess that is a cell too large on all sides; the finer features know better."""
    mask = np.zeros((24, 32), bool)
    mask[9:16, 12:22] = True
    guess = np.zeros((12, 16), bool)
    guess[3:9, 5:12] = True
    saliency = refine(_cells(mask), guess, rounds=5)
    assert np.array_equal(saliency > 0.5, mask)
    assert saliency.min() >= 0
    assert saliency.max() <= 1


def test_ncut_makes_a_map_of_a_photo_of_any_shape(tmp_path: Path) -> None:
    options = read_options("ncut", {"weights": str(_backbone(tmp_path))}, ["side=128"])
    options.build()
    for shape in ((60, 200), (300, 90), (1, 50)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
        (saliency,) = options.build()([_photo(image)])
        assert saliency.shape == shape
        assert saliency.dtype == np.uint8


def test_ncut_refuses_what_is_no_backbone(tmp_path: Path) -> None:
    weights = _backbone(tmp_path)
    options = read_options("ncut", {"weights": str(weights)}, [])
    with pytest.raises(UserError, match=r"weights=.*none.pt: no such file"):
        read_options("ncut", {"weights": str(tmp_path / "none.pt")}, []).build()
    card = weights.with_suffix(".json").read_text()
    weights.with_suffix(".json").write_text(card.replace("resnet18", "resnet50"))
    with pytest.raises(UserError, match=r"backbone.pt: not the weights of a resnet50"):
        options.build()
    weights.with_suffix(".json").write_text(card.replace("resnet18", "alexnet"))
    with pytest.raises(UserError, match="a alexnet; ncut needs a ResNet"):
        options.build()
    weights.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"its card .*backbone.json: cannot be read"):
        options.build()
    weights.with_suffix(".json").write_text(card)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"backbone.pt: not the weights of a resnet18"):
        options.build()


# --- the command line


def test_the_command_line_chooses(tmp_path: Path) -> None:
    assert choose_detector(None, None, None, []).name == "fused"
    assert choose_detector(None, tmp_path, None, []).name == "import"
    assert choose_detector("rbd", None, None, ["superpixels=100"]).superpixels == 100
    assert choose_detector("ncut", None, tmp_path / "b.pt", ["tie=0.1"]).tie == 0.1
    for arguments, message in (
        (("u2net", None, None, []), r"--detector u2net: give --weights, the .onnx file"),
        (("rbd", None, tmp_path, []), r"--weights=.*: the detector rbd has none"),
        (("rbd", tmp_path, None, []), r"--masks=.*: only the detector 'import' reads masks"),
        (("import", None, None, []), r"--detector import: give --masks"),
        (
            ("best", None, None, []),
            r"--detector=best: there are import, u2net, rbd, mc, dsr, hs, fused, ncut",
        ),
        (("rbd", None, None, ["size=3"]), r"--detector rbd:\n  size: unknown key"),
        (("rbd", None, None, ["side=3"]), r"side=3"),
    ):
        with pytest.raises(UserError, match=message):
            choose_detector(*arguments)


def test_what_a_store_says_of_its_detector(tmp_path: Path) -> None:
    """Options, and of files what is in them, not where they lie."""
    assert read_options("rbd", {}, []).record() == {
        "side": 300,
        "superpixels": 200,
        "compactness": 40.0,
        "sigma": 1.0,
    }
    record = read_options("u2net", {"weights": str(network(tmp_path / "n.onnx"))}, []).record()
    assert len(record.pop("weights_sha256")) == 64
    assert record == {"provider": "cpu", "stretch": True}
    masks = {"folder": str(tmp_path)}
    assert read_options("import", masks, []).record() == {}
    assert read_options("import", masks, ["scale=auto", "drawn_on=auto"]).record() == {}
    assert read_options("import", masks, ["scale=1", "drawn_on=stored", "channel=grey"]).record() == {
        "scale": 1,
        "channel": "grey",
        "drawn_on": "stored",
    }
    with pytest.raises(UserError, match=r"scale.*=0.*what white is: 1, 255 or 65535"):
        read_options("import", masks, ["scale=0"])


def test_other_weights_at_the_same_path_are_used(tmp_path: Path) -> None:
    """As in a notebook that trains a backbone again and makes masks again."""
    Image.fromarray(scene()[0]).save(tmp_path / "p.jpg")
    found = []
    for seed in (0, 1):
        weights = tmp_path / "w" / "backbone.pt"
        weights.parent.mkdir(exist_ok=True)
        _backbone(weights.parent, seed=seed)
        options = read_options("ncut", {"weights": str(weights)}, [])
        out = tmp_path / f"out{seed}"
        write_mask_store(tmp_path, options, out, min_area=0, threshold=0.01)
        with stores.StoreReader(stores.list_files(out, "out")) as reader:
            found.append(reader.saliency(0, 0))
    assert not np.array_equal(*found)
