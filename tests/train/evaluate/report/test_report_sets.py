"""The report's columns of sets: their order, corruptions, the background gap, what two files have alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dali_bgaug.errors import UserError
from tests.helpers.reports import (
    report,
    tables,
    write_probe,
    write_result,
    write_robustness,
    write_run,
    write_top1,
)

LEVELS = ("1", "2", "3", "4", "5")


def corrupted(value: float) -> dict[str, Any]:
    """ImageNet-C with two of its corruptions and one extra."""
    rows = {"gaussian_noise": value, "fog": value + 0.1, "extra": {"spatter": dict.fromkeys(LEVELS, 0.5)}}
    table = {n: v if n == "extra" else dict.fromkeys(LEVELS, v) for n, v in rows.items()}
    categories = {"noise": value, "blur": None, "weather": value + 0.1, "digital": None}
    return {
        "value": value + 0.05,
        "table": table,
        "by_category": categories,
        "mce": None,
        "cells": "10 of 75",
    }


def test_all_sets_in_their_order(tmp_path: Path) -> None:
    """Those of the paper first, however they are written, the user's own by name; pictures of them."""
    for recipe, more in (("moco_v2_full_none", 0.0), ("moco_v2_full_rm", 0.1)):
        run = write_run(tmp_path / "runs" / recipe, recipe)
        splits = {"mixed_same": {"accuracy": 0.8, "photos": 9}, "mixed_rand": {"accuracy": 0.7, "photos": 9}}
        parts = {"top-images": {"value": 0.7, "photos": 4}, "matched-frequency": {"value": 0.6, "photos": 4}}
        sets = {
            "zebras": {"protocol": "folders", "value": 0.9},
            "apples": {"protocol": "folders", "value": 0.8},
            "imagenet-9": {"value": 0.7, "bg_gap": 0.1 - more / 2, "splits": splits},
            "cue-conflict": {"value": 0.22 + more, "shape": 22, "texture": 78},
            "fgsm": {"value": 0.1, "epsilon": 8},
            "imagenet-c": corrupted(0.3 + more),
            "imagenet-r": {"value": 0.3},
            "only-fg-imagenet-a": {"protocol": "folders", "value": 0.03},
            "imagenet-a": {"value": 0.01},
            "objectnet": {"value": 0.2},
            "imagenet-v2": {"parts": parts, "value": 0.6},
            "real": {"value": 0.78, "top1": 0.71, "top1_photos": 50000},
        }
        write_robustness(run, sets)
    out = tmp_path / "out"
    found, text = report(out, tmp_path / "runs", "--baseline=moco_v2_full_none")
    assert [column["title"] for column in found["columns"]] == [
        *("validation", "ReaL", "v2 MF", "v2 TI", "ObjectNet", "ImageNet-A", "Only-FG ImageNet-A"),
        *("ImageNet-R", "C noise", "C weather", "C mean", "FGSM", "shape bias"),
        *("mixed same", "mixed rand", "BG-gap", "apples", "zebras"),
    ]
    assert [column["title"] for column in found["columns"] if column["lower_is_better"]] == ["BG-gap"]
    (nine,) = [table for table in tables(text) if "mixed same | mixed rand | BG-gap ↓ |" in table][:1]
    assert nine.splitlines()[3] == "| moco_v2_full_rm | 1 | 80.0 | 70.0 | 5.0 |"
    assert "| moco_v2_full_rm | +10.0 | +10.0 | +10.0 |" in text
    for name in ("report.png", "imagenet-c.png"):
        with Image.open(out / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    report(out, tmp_path / "runs", "--baseline=moco_v2_full_none")
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"report.json", "report.md", "report.png", "imagenet-c.png"}


def test_corruptions_by_severity_are_means_over_seeds(tmp_path: Path) -> None:
    """Those that all seeds have."""
    for seed, value in enumerate((0.3, 0.5)):
        run = write_run(tmp_path / "runs" / str(seed), "byol_full_none", seed=seed)
        found = corrupted(value)
        if seed == 1:
            del found["table"]["fog"], found["table"]["gaussian_noise"]["5"]
        write_robustness(run, {"imagenet-c": found})
    found, _ = report(tmp_path / "out", tmp_path / "runs")
    assert found["rows"][0]["cells"]["imagenet-c"]["table"] == {
        "gaussian_noise": {"1": 0.4, "2": 0.4, "3": 0.4, "4": 0.4},
        "fog": {},
        "spatter": dict.fromkeys(LEVELS, 0.5),
    }


def test_a_set_may_have_any_name(tmp_path: Path) -> None:
    """That of a protocol, one with a slash, one sample of ImageNet-v2 that does not say which."""
    run = write_run(tmp_path / "run", "moco_v2_full_none")
    write_top1(run, "knn", 0.6)
    sets = {"knn": 0.1, "imagenet-9": 0.2, "my/set": 0.3, "imagenet-a": 0.4}
    values = {name: {"protocol": "folders", "value": value} for name, value in sets.items()}
    write_robustness(run, values | {"imagenet-v2": {"value": 0.5}})
    found, _ = report(tmp_path / "out", run)
    titles = {column["key"]: column["title"] for column in found["columns"]}
    (row,) = found["rows"]
    assert {titles[key]: cell["mean"] for key, cell in row["cells"].items()} == {
        **{"k-NN": 0.6, "set knn": 0.1, "set imagenet-9": 0.2, "my-set": 0.3, "set imagenet-a": 0.4},
        "imagenet-v2": 0.5,
    }


def test_the_background_gap_is_told_by_whose_classifier_it_is(tmp_path: Path) -> None:
    """A fast one's is not in the column of a probe's."""
    run = write_run(tmp_path / "run", "moco_v2_full_none")
    splits = {"mixed_same": {"accuracy": 0.8, "photos": 9}, "mixed_rand": {"accuracy": 0.7, "photos": 9}}
    write_result(run, "background-gap", splits=splits, bg_gap=0.1, classifier={"rates": [1.0]}, bn="eval")
    probe = write_probe(run / "linear", run, "train")
    write_result(probe, "background-gap", splits=splits, bg_gap=0.08, classifier="its own", bn="train")
    found, _ = report(tmp_path / "out", run)
    (row,) = found["rows"]
    gaps = {key: cell["mean"] for key, cell in row["cells"].items() if "bg_gap" in key}
    assert gaps == {"imagenet-9/bg_gap": 0.08, "imagenet-9/bg_gap fast": 0.1}
    assert [column["lower_is_better"] for column in found["columns"]] == [False, False, True] * 2


def test_a_measurement_that_two_files_have_alike_is_one_cell(tmp_path: Path) -> None:
    """The background gap is a protocol of its own and a set of robustness."""
    run = write_run(tmp_path / "run", "supervised_medium_none")
    splits = {"mixed_same": {"accuracy": 0.8, "photos": 9}, "mixed_rand": {"accuracy": 0.7, "photos": 9}}
    write_result(run, "background-gap", splits=splits, bg_gap=0.1, classifier="its own", bn="train")
    nine = {"imagenet-9": {"value": 0.7, "bg_gap": 0.1, "splits": splits}}
    write_robustness(run, nine, "applied")
    found, _ = report(tmp_path / "out", run)
    cell = found["rows"][0]["cells"]["imagenet-9/bg_gap"]
    assert (cell["mean"], cell["seeds"], cell["files"]) == (0.1, 1, {"0": f"{run}/background-gap.json"})
    write_robustness(run, nine)
    with pytest.raises(
        UserError,
        match=r"both have mixed same of .*, seed 0, but differ \(EXIF orientation: applied and ignored\); .*"
        r"--orientation=apply",
    ):
        report(tmp_path / "out", run)
    write_robustness(run, nine | {"imagenet-9": {"value": 0.7, "bg_gap": 0.2, "splits": splits}}, "applied")
    with pytest.raises(
        UserError, match=r"both have BG-gap of .* but differ \(value: 10 and 20 %\); give one"
    ):
        report(tmp_path / "out", run)
