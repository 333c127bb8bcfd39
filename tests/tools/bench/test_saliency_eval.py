"""The measures against pysodmetrics' own numbers, and the program on stores, folders and bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers.shards import save
from tools.bench.saliency_eval import Reading, evaluate, score_map
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    data = dict(np.load(Path(__file__).parents[2] / "data" / "saliency.npz"))
    data["truths"] = np.unpackbits(data["truths"], axis=2).astype(bool)
    return data


@pytest.mark.parametrize("field", ["f_fixed", "f_adaptive", "mae", "iou"])
def test_every_map_scores_as_in_pysodmetrics(oracle: dict[str, np.ndarray], field: str) -> None:
    """Twelve maps: soft, noisy, all white, all black; truths empty and full among them."""
    found = [
        getattr(score_map(saliency, truth)[0], field)
        for saliency, truth in zip(oracle["maps"], oracle["truths"], strict=True)
    ]
    assert found == pytest.approx(oracle[field].tolist(), abs=1e-9)


@pytest.mark.parametrize(
    ("field", "key"), [("f", "f_curve"), ("precision", "precision"), ("recall", "recall")]
)
def test_mean_curves_are_those_of_pysodmetrics(oracle: dict[str, np.ndarray], field: str, key: str) -> None:
    pairs = zip(oracle["maps"], oracle["truths"], strict=True)
    curves = [getattr(score_map(saliency, truth)[1], field) for saliency, truth in pairs]
    assert np.allclose(np.mean(curves, axis=0), oracle[key], atol=1e-9)


def test_a_folder_scores_as_the_mean_of_its_maps(oracle: dict[str, np.ndarray], tmp_path: Path) -> None:
    for number, (saliency, truth) in enumerate(zip(oracle["maps"], oracle["truths"], strict=True)):
        for name, image in (("maps", saliency), ("truth", truth)):
            (tmp_path / name / "a").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / name / "a" / f"{number}.png")
    result, _ = evaluate("x", tmp_path / "maps", tmp_path / "truth")
    assert result["photos"] == 12
    assert result["mae"] == pytest.approx(0.24398, abs=1e-5)
    assert result["f_max"] == pytest.approx(0.54729, abs=1e-5)
    assert result["f_fixed"] == pytest.approx(oracle["f_fixed"].mean(), abs=1e-5)


def test_floats_are_read_as_it_is_said(tmp_path: Path) -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 4:] = 1
    for name, image in (("maps", truth.astype(np.float32)), ("truth", truth)):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "0.tif")
    folders = tmp_path / "maps", tmp_path / "truth"
    with pytest.raises(UserError, match=r"0\.tif: floats do not say what white is; give scale=1, "):
        evaluate("x", *folders)
    result, _ = evaluate("x", *folders, reading=Reading(scale=1.0), truth_reading=Reading(scale=1.0))
    assert (result["mae"], result["iou"]) == (0, 1)


def test_a_store_of_the_truth_itself_is_nearly_perfect(tmp_path: Path) -> None:
    y, x = np.mgrid[:300, :400]
    for number in range(3):
        mask = np.hypot(x - 150 - 20 * number, y - 150) < 80
        save(tmp_path, f"c/p{number}", np.zeros((300, 400, 3), np.uint8), mask)
    write_mask_store(
        tmp_path / "photos", ImportOptions(folder=tmp_path / "masks"), tmp_path / "store"
    ).finish()
    command = [
        sys.executable,
        "-m",
        "tools.saliency_eval",
        "--truth",
        str(tmp_path / "masks"),
        "--workers",
        "1",
    ]
    command += ["--predictions", f"mine={tmp_path / 'store'}", "--out", str(tmp_path / "s")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    (result,) = json.loads((tmp_path / "s.json").read_text())
    assert result["iou"] > 0.98
    assert result["mae"] < 0.003
    assert result["options"]["detector"] == "import"
    assert "| mine | 3 | " in done.stdout
    assert (tmp_path / "s.md").read_text() in done.stdout
    assert Image.open(tmp_path / "s.png").width > 300


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    save(tmp_path, "c/p0", np.zeros((30, 40, 3), np.uint8), np.ones((30, 40), bool))
    (tmp_path / "empty").mkdir()
    write_mask_store(
        tmp_path / "photos", ImportOptions(folder=tmp_path / "masks"), tmp_path / "out" / "masks"
    )
    with pytest.raises(UserError, match=r"--predictions=.*/out: is no store; did you mean .*/out/masks\?"):
        evaluate("x", tmp_path / "out", tmp_path / "masks")
    with pytest.raises(UserError, match=r"--truth=.*empty: no mask images"):
        evaluate("x", tmp_path / "masks", tmp_path / "empty")
    (tmp_path / "masks" / "c" / "p1.png").write_bytes(b"")
    (tmp_path / "truth" / "c").mkdir(parents=True)
    (tmp_path / "masks" / "c" / "p0.png").rename(tmp_path / "truth" / "c" / "p0.png")
    with pytest.raises(UserError, match=r"has no mask for c/p1 \(1 of 1 maps"):
        evaluate("x", tmp_path / "masks", tmp_path / "truth")
    (tmp_path / "truth" / "c" / "p1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"p1.png: not a readable mask image"):
        evaluate("x", tmp_path / "masks", tmp_path / "truth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("c/0.jpg", r"--truth=.*: .*c/0.PNG and .*c/0.jpg are of one photo; leave the mask alone"),
        (
            "d/link.png",
            r"--truth=.*: 1 of what may be photos cannot be read.*\n  .*link.png is a link to /not/",
        ),
    ],
)
def test_trees_of_maps_are_looked_at(name: str, message: str, tmp_path: Path) -> None:
    for place in ("maps/c/0.png", "truth/c/0.PNG"):
        (tmp_path / place).parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / place)
    assert evaluate("x", tmp_path / "maps", tmp_path / "truth")[0]["photos"] == 1
    (tmp_path / "truth" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "truth" / name).symlink_to("/not/mounted.png" if "link" in name else "0.PNG")
    with pytest.raises(UserError, match=message):
        evaluate("x", tmp_path / "maps", tmp_path / "truth")
