"""Corrupted copies: layout, seeds, what is left out, interruptions; with the real package where it is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from dali_bgaug.errors import UserError
from tests.helpers.corruptions import write_stand_in
from tools.synthetic import corruptions
from tools.synthetic.corruptions import (
    CATEGORY,
    STANDARD,
    Corruptions,
    corrupt,
    crop,
    make_corrupted,
    read_names,
    seed_of,
)

ROOT = Path(__file__).parents[3]
FEW = Corruptions(names=("fog", "glass_blur", "saturate"), severities=(5, 2), size=32)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in in place of the package, in this process and, by PYTHONPATH, in those it starts."""
    folder = write_stand_in(tmp_path / "stand_in")
    for name in ("imagecorruptions", "cv2"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    yield folder
    for name in ("imagecorruptions", "cv2"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of six photos in several formats, and two that are none."""
    folder = tmp_path_factory.mktemp("photos")
    names = ("ant/1.JPEG", "ant/2.png", "ant/deep/3.jpg", "bee/1.jpg", "bee/4.x.jpg", "bee/5.webp")
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (50 + number, 60, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    (folder / "bee/empty.jpg").touch()
    (folder / "ant/text.jpg").write_text("no photo")
    return folder


def test_layout_record_and_what_is_left_out(stand_in: Path, photos: Path, tmp_path: Path) -> None:
    result = make_corrupted(photos, tmp_path / "out", FEW)
    copies = ["ant/1.jpg", "ant/2.jpg", "ant/deep/3.jpg", "bee/1.jpg", "bee/4.x.jpg", "bee/5.jpg"]
    kinds = ["weather/fog", "blur/glass_blur", "extra/saturate"]
    expected = [f"{kind}/{severity}/{copy}" for kind in kinds for severity in (2, 5) for copy in copies]
    assert sorted(contents(tmp_path / "out")) == sorted([*expected, "corruptions.json"])
    for name in expected:
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))
    assert json.loads((tmp_path / "out/corruptions.json").read_text()) == result
    chosen = (
        "version",
        "corruptions",
        "severities",
        "size",
        "quality",
        "seed",
        "photos",
        "counts",
        "left_out",
    )
    assert {name: result[name] for name in chosen} == {
        "version": 1,
        "corruptions": ["glass_blur", "fog", "saturate"],
        "severities": [2, 5],
        "size": 32,
        "quality": 85,
        "seed": 0,
        "photos": 6,
        "counts": {"ant": 3, "bee": 3},
        "left_out": [["ant/text.jpg", "not an image"], ["bee/empty.jpg", "empty file"]],
    }
    assert (result["imagecorruptions-imaug"], result["opencv"]) == ("0.2", "0.1")
    assert result["numpy"] == np.__version__


def test_copies_differ_and_follow_the_seed(stand_in: Path, photos: Path, tmp_path: Path) -> None:
    """No two copies share their noise, and another seed changes all of them."""
    for seed in (0, 1):
        make_corrupted(photos, tmp_path / str(seed), Corruptions(names=("fog",), size=32, seed=seed))
    one, other = contents(tmp_path / "0"), contents(tmp_path / "1")
    assert one.keys() == other.keys() and len(one) == 31
    assert not [name for name in one if one[name] == other[name]]
    seeds = {
        seed_of(seed, key, name, severity)
        for seed in (0, 1)
        for key in ("ant/1.jpg", "bee/1.jpg")
        for name in CATEGORY
        for severity in (1, 2)
    }
    assert len(seeds) == 2 * 2 * 19 * 2 and max(seeds) < 2**32
    assert seed_of(0, "ant/1.jpg", "fog", 3) == 1618371830


@pytest.mark.slow
def test_workers_and_a_kill_do_not_matter(stand_in: Path, photos: Path, tmp_path: Path) -> None:
    """Two workers are killed as soon as some copies are there; one process ends with the same bytes."""
    every = Corruptions(size=32)
    make_corrupted(photos, tmp_path / "whole", every)
    out = tmp_path / "killed"
    words = ["--photos", str(photos), "--out", str(out), "--workers", "2", "--size", "32"]
    command = [sys.executable, "-m", "tools.corruptions", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **quiet) as process:
        deadline = time.monotonic() + 60
        while not [*out.glob("*/*/*/*/*.jpg")]:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):  # what they were writing is cleared away once they are gone
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    half = {name: data for name, data in contents(out).items() if name.endswith(".jpg")}
    assert 0 < len(half) < 450 and half.items() <= contents(tmp_path / "whole").items()
    make_corrupted(photos, out, every)
    assert contents(out) == contents(tmp_path / "whole")


def test_interrupted_copies_are_completed(
    stand_in: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_corrupted(photos, tmp_path / "whole", FEW)
    made: list[str] = []

    def fail_at_eighth(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(name)
        return corrupt(image, name, severity, seed)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(corruptions, "corrupt", fail_at_eighth)
        with pytest.raises(KeyboardInterrupt):
            make_corrupted(photos, out, FEW)
    assert len(contents(out)) == 8 and (out / "corruptions.json.unfinished").exists()
    with pytest.raises(UserError, match=r"unfinished: made with seed=0, asked for is seed=1; choose another"):
        make_corrupted(photos, out, Corruptions(names=FEW.names, severities=(2, 5), size=32, seed=1))
    (out / "weather/fog/2/ant/1.jpg").unlink()
    make_corrupted(photos, out, FEW)
    assert contents(out) == contents(tmp_path / "whole")


def test_finished_copies_are_left_alone(
    stand_in: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = make_corrupted(photos, tmp_path / "out", FEW)
    (tmp_path / "out/weather/fog/2/ant/1.jpg").unlink()
    assert make_corrupted(photos, tmp_path / "out", FEW) == result
    assert "corruptions.json is there already, with these settings: nothing to do" in capsys.readouterr().out
    assert not (tmp_path / "out/weather/fog/2/ant/1.jpg").exists()


def test_a_corruption_that_fails_names_the_photo(stand_in: Path, photos: Path, tmp_path: Path) -> None:
    (stand_in / "imagecorruptions.py").write_text("def corrupt(image, **options):\n    raise KeyError(7)\n")
    problem = r"6 photos stop this:\n  \S+/ant/1\.JPEG: glass_blur 2 fails \(KeyError\(7\)\); take it out\n"
    with pytest.raises(UserError, match=problem):
        make_corrupted(photos, tmp_path / "out", FEW)
    assert not (tmp_path / "out/corruptions.json").exists()


def test_bad_options_and_folders(stand_in: Path, photos: Path, tmp_path: Path) -> None:
    for options, message in (
        (
            {"names": ("frog",)},
            r"--corruptions: there is no corruption 'frog'; there are 'all', noise, .*, gaussian",
        ),
        ({"names": ()}, "one corruption and one severity at least"),
        ({"severities": (0,)}, "--severities=0: must be 1 to 5"),
        ({"size": 31}, "--size=31: must be at least 32 pixels"),
        ({"seed": -1}, "--seed=-1: must be 0 or more"),
    ):
        with pytest.raises(UserError, match=message):
            Corruptions(**options)
    with pytest.raises(UserError, match=r"--out=\S+: lies in --photos=\S+; choose a folder outside"):
        make_corrupted(photos, photos / "ant" / "out", FEW)
    with pytest.raises(UserError, match=r"--photos=\S+: neither packed shards .* nor a folder of class"):
        make_corrupted(photos / "bee", tmp_path / "out", FEW)
    for name in ("cow/1.jpg", "cow/1.png"):
        (tmp_path / "twice" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "twice" / name)
    with pytest.raises(UserError, match=r"cow/1\.jpg and cow/1\.png would both be copied as 'cow/1'; rename"):
        make_corrupted(tmp_path / "twice", tmp_path / "out", FEW)
    assert not (tmp_path / "out").exists()


def test_without_the_package(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(corruptions, "version", missing)
        with pytest.raises(
            UserError, match=r"imaug is not there; .*; install .*: pip install -e '\.\[robust"
        ):
            make_corrupted(photos, tmp_path / "out", FEW)
    monkeypatch.setattr(corruptions, "version", lambda name: "0.2")
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)  # as if what it needs were not there
    with pytest.raises(UserError, match=r"imaug cannot be imported \(.*\); .* opencv-python-headless"):
        make_corrupted(photos, tmp_path / "out", FEW)
    assert not (tmp_path / "out").exists()


def test_names_of_corruptions() -> None:
    assert len(STANDARD) == 15 and "saturate" not in STANDARD
    assert read_names(["all"]) == STANDARD
    assert read_names(["noise", "fog"]) == ("gaussian_noise", "shot_noise", "impulse_noise", "fog")
    assert Corruptions(names=read_names(["fog", "noise", "fog"])).names[-1] == "fog"
    assert len(Corruptions(names=read_names(["all", "extra"])).names) == 19


@pytest.mark.parametrize("shape", [(50, 75), (81, 33), (64, 64), (37, 200)])
def test_crop_is_torchvisions(shape: tuple[int, int]) -> None:
    """As `make_imagenet_c.py` has it: Resize(256), CenterCrop(224), here of 8/7 of 33."""
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = v2.CenterCrop(33)(v2.Resize(38)(Image.fromarray(pixels)))
    assert np.array_equal(crop(Image.fromarray(pixels), 33), np.asarray(expected))


def test_exif_orientation_is_not_applied(stand_in: Path, tmp_path: Path) -> None:
    """A photo whose left half is red, to be turned by its EXIF; a stand-in that adds nothing."""
    (stand_in / "imagecorruptions.py").write_text("def corrupt(image, **options):\n    return image\n")
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32] = 200, 0, 0
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos/a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "photos/a/1.jpg", exif=exif)
    make_corrupted(tmp_path / "photos", tmp_path / "out", Corruptions(names=("fog",), size=56))
    with Image.open(tmp_path / "out/weather/fog/1/a/1.jpg") as image:
        red = np.asarray(image)[..., 0]
    assert red[:, :24].min() > 150 and red[:, 32:].max() < 50


def test_command_line(
    stand_in: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "my copies"
    words = ["--photos", str(photos), "--out", str(out), "--severities", "3", "--size", "32"]
    monkeypatch.setattr(sys, "argv", ["corruptions", *words, "--workers", "1"])
    corruptions.main()
    *_, first, second, summary, measure = capsys.readouterr().out.splitlines()
    assert (first, second) == ("  ant/text.jpg: not an image", "  bee/empty.jpg: empty file")
    assert summary.startswith("6 photos of 2 classes under 15 corruptions of 1 severities, 2 left out")
    assert f"train.evaluate robustness --checkpoint RUN --set 'imagenet-c={out}'" in measure
    assert len([*out.glob("*/*/3/*/1.jpg")]) == 15 * 2


# ---------------------------------------------------------------- the package itself

_DIGESTS = """
import hashlib, json, sys
import numpy as np
from tools.synthetic.corruptions import CATEGORY, corrupt
image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
names = list(CATEGORY)[:: int(sys.argv[1])]
copies = {name: [corrupt(image, name, severity, 11) for severity in (1, 5)] for name in names}
digest = lambda copy: hashlib.sha256(copy.tobytes()).hexdigest()
print(json.dumps({name: [*map(digest, copies[name])] for name in names}))
"""


@pytest.fixture
def package() -> ModuleType:
    """The real package; the test skips without it."""
    try:
        version(corruptions.PACKAGE)
    except PackageNotFoundError:
        pytest.skip("imagecorruptions-imaug is not installed (pip install -e '.[robustness]')")
    return pytest.importorskip("imagecorruptions")


def test_names_are_the_packages(package: ModuleType) -> None:
    assert list(CATEGORY) == package.get_corruption_names("all")
    assert list(STANDARD) == package.get_corruption_names("common")


@pytest.mark.slow
def test_corruptions_are_the_same_in_every_process(package: ModuleType) -> None:
    """All nineteen, in two processes, in opposite orders."""
    found = []
    for step in ("1", "-1"):
        command = [sys.executable, "-c", _DIGESTS, step]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] and len(found[0]) == 19
    assert all(weak != strong for weak, strong in found[0].values())


@pytest.mark.slow
def test_chance_follows_the_seed(package: ModuleType) -> None:
    """Corruptions that draw differ by seed; the others do not."""
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    fixed = {
        name
        for name in CATEGORY
        if np.array_equal(corrupt(image, name, 3, seed=1), corrupt(image, name, 3, seed=2))
    }
    without_chance = ["defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"]
    assert fixed == {*without_chance, "gaussian_blur", "saturate"}


@pytest.mark.slow
def test_real_copies(package: ModuleType, photos: Path, tmp_path: Path) -> None:
    few = Corruptions(names=("impulse_noise", "frost", "contrast"), severities=(1, 5), size=64)
    result = make_corrupted(photos, tmp_path / "out", few)
    make_corrupted(photos, tmp_path / "again", few)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    assert result["imagecorruptions-imaug"] == version(corruptions.PACKAGE)
    spreads = []
    for severity in (1, 5):
        with Image.open(tmp_path / f"out/digital/contrast/{severity}/ant/2.jpg") as image:
            spreads.append(np.asarray(image).std())
    assert spreads[0] > 3 * spreads[1]
