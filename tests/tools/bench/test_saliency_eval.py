"""The measures against pysodmetrics' own numbers, and the program on stores, folders and bad input."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers import programs
from tests.helpers.shards import save
from tools.bench.map_scores import score_map, score_stretched
from tools.bench.saliency_eval import Reading, evaluate, main
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store


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
    words = ["--truth", str(tmp_path / "masks"), "--workers", "1"]
    words += ["--predictions", f"mine={tmp_path / 'store'}", "--out", str(tmp_path / "s")]
    done = programs.run("tools.saliency_eval", *words)
    assert done.returncode == 0, done.stderr
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


@pytest.mark.parametrize(
    ("saliency", "truth", "f", "mae"),
    [
        ([[255, 0]], [[1, 0]], 1, 0.125),  # the middle half of the columns is off by .25 on average
        ([[255, 0]], [[1, 0, 0, 0]], 0.65 / 1.15, 0.25),  # precision 1/2, recall 1
        ([[255], [0], [0], [0]], [[1], [0]], 0.65 / 0.8, 0.25),  # precision 1, recall 1/2
        ([[128]], [[1, 0]], 0.65 / 1.15, 0.5),
        ([[127]], [[1, 0]], 0, 0.5),  # nothing predicted: precision 1, recall 0
        # Column 13 of 432 lies between the first two of 32 and is exactly .5: 13 columns are above it.
        ([[255] + 31 * [0]], [[1]], 1.3 * 13 / (0.3 * 432 + 13), 1 - 1 / 32),
        ([[0]], [[0]], 1, 0),
        ([[51]], [[0]], 1, 0.2),
        ([[255]], [[0]], 0, 1),  # truth empty: precision 0, recall 1
        ([[0, 0, 255, 255]], [[1, 1, 0, 0]], 0, 1 - 1 / 16),  # precision and recall 0
    ],
)
def test_deepusps_scores_what_is_stretched(
    saliency: list[list[int]], truth: list[list[int]], f: float, mae: float
) -> None:
    found = score_stretched(np.array(saliency, np.uint8), np.array(truth, bool))
    assert found == pytest.approx((f, mae), abs=1e-6)


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Maps and true masks, in percent by deepusps: a/0 F 56.5, MAE 25; a/1 100, 12.5; b/1 0, 50."""
    images = {"maps/a/0": [255, 0], "maps/a/1": [255, 0], "maps/b/1": [127]}
    images |= {"truth/a/0": [255, 0, 0, 0], "truth/a/1": [255, 0], "truth/b/1": [255, 0]}
    for name, levels in images.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([levels], np.uint8)).save(path)
    return tmp_path / "maps", tmp_path / "truth"


def test_f_is_the_mean_of_the_photos_f(trees: tuple[Path, Path]) -> None:
    result, curves = evaluate("x", *trees, protocol="deepusps")
    assert result == {"name": "x", "photos": 3, "protocol": "deepusps", "f_fixed": 0.52174, "mae": 0.29167}
    assert curves is None
    assert evaluate("x", *trees)[0]["protocol"] == "native"


@pytest.mark.parametrize(
    ("text", "photos", "mae"),
    [
        ("a/0\na/1\n", 2, 0.1875),
        ("0.jpg\n", 1, 0.25),
        ("\ufeff0.JPEG\r\n./a/1.png\r\n\r\na/0\r\n0\r\n", 2, 0.1875),  # the first of them three times
    ],
)
def test_a_list_chooses_photos(text: str, photos: int, mae: float, trees: tuple[Path, Path]) -> None:
    listed = trees[0].with_name("test.txt")
    listed.write_text(text, newline="")
    (trees[1] / "a" / "2.png").write_bytes(b"not looked at")
    (trees[0] / "a" / "3.png").write_bytes(b"not looked at")
    result, _ = evaluate("x", *trees, protocol="deepusps", listed=listed)
    assert (result["photos"], result["mae"]) == (photos, mae)
    assert result["list"]["name"] == "test.txt"
    assert len(result["list"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "7.jpg\na/0\n7\nb/9\n",
            r"test\.txt: 2 of its 3 photos have .*: line 1 '7\.jpg' \(no map\), line 4 ",
        ),
        ("a/2\n", r"test\.txt: 1 of its 1 photos have no map in .*maps, .*: line 1 'a/2' \(no map\); make"),
        ("a/0\n3\n", r"test\.txt: 1 of its 2 photos .*: line 2 '3' \(no true mask\); make them, or"),
        ("1.jpg\n", r"test\.txt: line 1 '1\.jpg' may be a/1 or b/1; give paths"),
        ("0.v2\n", r"test\.txt: 1 of its 1 photos .*: line 1 '0\.v2' \(no map\)"),
        ("\n", r"--list=.*test\.txt: is empty"),
    ],
)
def test_what_a_list_names_must_be_there(text: str, message: str, trees: tuple[Path, Path]) -> None:
    listed = trees[0].with_name("test.txt")
    listed.write_text(text)
    (trees[1] / "a" / "2.png").write_bytes(b"")
    (trees[0] / "a" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        evaluate("x", *trees, listed=listed)


def run_eval(monkeypatch: pytest.MonkeyPatch, trees: tuple[Path, Path], *words: str) -> Path:
    """Run the program in this process: the stem of what it writes."""
    out = trees[0].with_name("out")
    paths = ["--predictions", f"rbd={trees[0]}", "--truth", str(trees[1]), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["tools.saliency_eval", *paths, "--workers", "1", *words])
    main()
    return out


def test_the_papers_figures_stand_below_ours(
    trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (trees[0].with_name("test.txt")).write_text("a/0\na/1\n")
    words = ["--protocol", "deepusps", "--paper", "--list", str(trees[0].with_name("test.txt"))]
    out = run_eval(monkeypatch, trees, *words)
    text = out.with_suffix(".md").read_text()
    lines = text.splitlines()
    assert lines[0] == "| masks | photos | F .5 | MAE | CPU s/photo |"
    assert lines[2] == "| rbd | 2 | 78.3 | 18.8 |  |"
    assert [line.split(" | ")[1:] for line in lines[-3:]] == [
        ["90.3 / 4.0", "87.4 / 6.3", "73.6 / 6.3 |"],
        ["90.5 ± 0.1 / 3.9", "87.9 ± 0.1 / 6.3", "72.1 ± 0.2 / 6.8 |"],
        ["91.3 ± 0.0 / 3.6", "90.0 ± 0.0 / 5.4", "71.1 ± 0.0 / 6.9 |"],
    ]
    assert text in capsys.readouterr().out
    assert json.loads(out.with_suffix(".json").read_text())[0]["protocol"] == "deepusps"
    assert not out.with_suffix(".png").exists()


def test_the_papers_figures_are_not_of_the_native_protocol(
    trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"^--paper: .* give --protocol deepusps"):
        run_eval(monkeypatch, trees, "--paper")
