"""The report: rows, columns, means, gains and footnotes of result files whose numbers are chosen here."""

import json
from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_json
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


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """MoCo-v2 without backgrounds from three seeds, with BG_RM from two, with BG_Swaps from one."""
    folder = tmp_path / "runs"
    tops = {"none": (0.70, 0.71, 0.72), "rm": (0.718, 0.722), "swaps": (0.73,)}
    for background, values in tops.items():
        for seed, top1 in enumerate(values):
            run = write_run(folder / f"{background}{seed}", f"moco_v2_full_{background}", seed=seed)
            write_top1(run, "linear", top1)
            if seed < 2:
                write_top1(run, "knn", top1 - 0.1)
    return folder


def test_seeds_are_one_row_with_a_standard_error(runs: Path, tmp_path: Path) -> None:
    """none: deviation .01 over root 3; rm: .0028284 over root 2."""
    found, text = report(tmp_path / "out", runs)
    assert tables(text)[0] == (
        "| network | seeds | linear | k-NN |\n"
        "| --- | --: | --: | --: |\n"
        "| moco_v2_full_none | 3 | 71.0 ± 0.6 | 60.5 ± 0.5 (n=2) |\n"
        "| moco_v2_full_rm | 2 | 72.0 ± 0.2 | 62.0 ± 0.2 |\n"
        "| moco_v2_full_swaps | 1 | 73.0 | 63.0 |"
    )
    cell = found["rows"][0]["cells"]["linear"]
    assert (cell["mean"], cell["standard_error"], cell["seeds"]) == (0.71, 0.00577, 3)
    assert cell["values"] == {"0": 0.7, "1": 0.71, "2": 0.72}
    assert found["rows"][1]["cells"]["linear"]["standard_error"] == 0.002
    assert (found["files"], found["ignored"]) == (11, 6)


def test_gains_have_the_error_of_a_difference_where_both_have_seeds(runs: Path, tmp_path: Path) -> None:
    """.01 ± sqrt(.0057735² + .002²) = .0061101"""
    found, text = report(tmp_path / "out", runs, "--baseline=moco_v2_full_none")
    assert tables(text)[1] == (
        "| network | linear | k-NN |\n"
        "| --- | --: | --: |\n"
        "| moco_v2_full_rm | +1.0 ± 0.6 | +1.5 ± 0.5 |\n"
        "| moco_v2_full_swaps | +2.0 | +2.5 |"
    )
    gains = [row["gains"].get("linear") for row in found["rows"]]
    assert gains == [
        None,
        {"gain": 0.01, "standard_error": 0.00611},
        {"gain": 0.02, "standard_error": None},
    ]


def test_a_baseline_that_is_not_there_is_told_what_is(runs: Path, tmp_path: Path) -> None:
    there = "moco_v2_full_none; moco_v2_full_rm; moco_v2_full_swaps"
    with pytest.raises(UserError, match=rf"--baseline=byol: .*there are {there}"):
        report(tmp_path / "out", runs, "--baseline=byol")


def test_a_row_can_be_named(runs: Path, tmp_path: Path) -> None:
    words = [runs / "none0", runs / "rm0", f"--name={runs / 'rm0'}=ours", "--baseline=moco_v2_full_none"]
    words[2] += "=1"
    found, _ = report(tmp_path / "out", *words)
    assert [row["name"] for row in found["rows"]] == ["moco_v2_full_none", "ours=1"]
    assert found["rows"][1]["gains"]["linear"]["gain"] == 0.018
    with pytest.raises(UserError, match="--name=elsewhere=ours"):
        report(tmp_path / "out", runs, "--name=elsewhere=ours")


def test_two_results_for_one_seed_are_refused(runs: Path, tmp_path: Path) -> None:
    again = write_run(runs / "again", "moco_v2_full_none", seed=1)
    write_top1(again, "knn", 0.5)
    with pytest.raises(UserError, match=r"again/knn.json and .*none1/knn.json: both have k-NN .* seed 1"):
        report(tmp_path / "out", runs)


def test_one_file_by_two_ways_counts_once(runs: Path, tmp_path: Path) -> None:
    found, _ = report(tmp_path / "out", runs, runs / "none0", runs / "none0" / "knn.json")
    assert (found["files"], found["rows"][0]["cells"]["knn"]["seeds"]) == (11, 2)


def test_damaged_results_are_errors_and_other_files_are_counted(runs: Path, tmp_path: Path) -> None:
    (runs / "none0" / "notes.json").write_text("{")
    write_json(runs / "none0" / "study.json", {"protocol": "something else"})
    assert report(tmp_path / "out", runs)[0]["ignored"] == 8
    path = runs / "rm0" / "linear.json"
    whole = path.read_text()
    path.write_text(whole.replace("0.718", "0.818"))
    with pytest.raises(UserError, match=r"rm0/linear.json: damaged or edited"):
        report(tmp_path / "out", runs)
    path.write_text(whole[:50])
    with pytest.raises(UserError, match=r"rm0/linear.json: damaged, or no JSON"):
        report(tmp_path / "out", runs)
    write_json(path, {"protocol": "linear", "checkpoint": str(runs / "rm0"), "bn": "train"})
    with pytest.raises(UserError, match=r"rm0/linear.json: not what linear writes \(KeyError: 'test'\)"):
        report(tmp_path / "out", runs)


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "moco_v2_full_none")
    with pytest.raises(UserError, match="no results of train.evaluate in 1 JSON files"):
        report(tmp_path / "out", run)
    with pytest.raises(UserError, match=r"backbone.json: no result of train.evaluate"):
        report(tmp_path / "out", run / "backbone.json")
    with pytest.raises(UserError, match="elsewhere: no such folder"):
        report(tmp_path / "out", tmp_path / "elsewhere")


def test_what_is_measured_otherwise_has_a_footnote_and_no_gain(runs: Path, tmp_path: Path) -> None:
    byol = write_run(runs / "x", "byol_full_none")
    write_top1(byol, "linear", 0.5, recipe="linear_byol", epochs=3, batch_size=1024, lr=0.2)
    write_top1(byol, "knn", 0.4, photos=100)
    found, text = report(tmp_path / "out", runs, "--baseline=moco_v2_full_none")
    assert "| byol_full_none | 1 | 50.0 [1] | 40.0 [2] |" in text
    assert found["notes"] == [
        "recipe: its method's, epochs=3; the column's others: its method's",
        "photos: 100; the column's others: 50000",
    ]
    (row,) = [row for row in found["rows"] if row["name"] == "byol_full_none"]
    assert row["gains"] == {"knn": {"gain": -0.205, "standard_error": None}}


def test_seeds_that_were_not_measured_alike_have_no_mean(tmp_path: Path) -> None:
    for seed, k in enumerate((20, 200)):
        run = write_run(tmp_path / "runs" / str(seed), "swav_full_none", seed=seed)
        write_top1(run, "knn", 0.5, k=k)
    found, text = report(tmp_path / "out", tmp_path / "runs")
    assert "| swav_full_none | 2 | – [1] |" in text
    assert found["notes"] == [
        "seeds were not measured alike, so there is no mean of them (k: 20 and 200)",
    ]


def test_untrained_networks_are_rows_of_their_own(runs: Path, tmp_path: Path) -> None:
    write_top1(runs / "none0", "knn-untrained", 0.02, weights="untrained w")
    found, _ = report(tmp_path / "out", runs / "none0")
    values = {row["name"]: row["cells"]["knn"]["mean"] for row in found["rows"]}
    assert values == {"moco_v2_full_none, untrained": 0.02, "moco_v2_full_none": 0.6}


def test_probes_on_other_data_sets_are_columns_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "moco_v2_full_none")
    write_top1(run, "linear", 0.71)
    own = {"protocol": "linear", "bn": "eval", "recipe_bn": "eval", "size": 224, "resize": 256}
    for recipe, top1, photos in (("linear_cifar10", 0.739, 10000), ("linear_places205", 0.287, 20500)):
        write_top1(run, recipe, top1, photos, recipe=recipe, **own)
    bn_train = own | {"bn": "train", "recipe": "linear_cifar10"}
    write_top1(run, "linear_cifar10-bn-train", 0.75, 10000, **bn_train)
    found, text = report(tmp_path / "out", run)
    assert tables(text)[1] == (
        "| network | seeds | CIFAR-10 | CIFAR-10, BN train | Places-205 |\n"
        "| --- | --: | --: | --: | --: |\n"
        "| moco_v2_full_none | 1 | 73.9 | 75.0 | 28.7 |"
    )
    assert found["rows"][0]["cells"]["linear"]["mean"] == 0.71


def test_batch_norm_otherwise_than_the_recipes_is_another_column(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "moco_v2_full_none")
    write_top1(run, "linear", 0.71)
    write_top1(run, "linear-bn-eval", 0.705, protocol="linear", bn="eval")
    _, text = report(tmp_path / "out", run)
    assert tables(text)[0] == (
        "| network | seeds | linear | linear, BN eval |\n"
        "| --- | --: | --: | --: |\n"
        "| moco_v2_full_none | 1 | 71.0 | 70.5 |"
    )


def test_classifiers_belong_to_the_row_of_their_backbone(tmp_path: Path) -> None:
    """But one that is not the usual linear one, which has its own."""
    run = write_run(tmp_path / "run", "byol_medium_rm")
    write_top1(run, "knn", 0.6)
    for name, bn, freeze, value in (("linear", "train", True, 0.1), ("other", "eval", True, 0.2)):
        write_robustness(write_probe(run / name, run, bn, freeze), {"fgsm": {"value": value}})
    write_robustness(write_probe(run / "tuned", run, "train", False), {"fgsm": {"value": 0.3}})
    found, _ = report(tmp_path / "out", run)
    assert {row["name"]: row["cells"]["fgsm"]["mean"] for row in found["rows"]} == {
        "byol_medium_rm": 0.1,
        "byol_medium_rm, probe with BN eval": 0.2,
        "byol_medium_rm, fine-tuned on 100 photos": 0.3,
    }


def test_supervised_networks_retrained_and_fine_tuned_have_rows_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "supervised_medium_rm")
    write_top1(run, "knn", 0.6)
    write_top1(
        run, "linear", 0.75, recipe="linear_supervised", epochs=40, batch_size=4096, lr=0.01, bn="eval"
    )
    write_robustness(write_probe(run / "linear", run, "eval"), {"fgsm": {"value": 0.1}})
    write_robustness(run, {"fgsm": {"value": 0.2}})
    tuned = write_run(tmp_path / "tuned", "supervised_finetune_none", f"init={run}")
    write_robustness(tuned, {"fgsm": {"value": 0.3}})
    found, _ = report(tmp_path / "out", tmp_path)
    assert {
        row["name"]: {key: cell["mean"] for key, cell in row["cells"].items()} for row in found["rows"]
    } == {
        "supervised_medium_rm": {"knn": 0.6, "fgsm": 0.2},
        "supervised_medium_rm, retrained": {"linear": 0.75, "fgsm": 0.1},
        "supervised_finetune_none, from supervised_medium_rm": {"fgsm": 0.3},
    }


def test_runs_that_were_moved_are_found_beside_their_results(runs: Path, tmp_path: Path) -> None:
    write_robustness(
        write_probe(runs / "none0" / "linear", runs / "none0", "train"), {"fgsm": {"value": 0.1}}
    )
    runs.rename(tmp_path / "moved")
    found, _ = report(tmp_path / "out", tmp_path / "moved")
    assert found["rows"][0]["name"] == "moco_v2_full_none"
    assert set(found["rows"][0]["cells"]) == {"linear", "knn", "fgsm"}


@pytest.mark.parametrize(("there", "name", "seed"), [(3, "byol_full_none", "3"), (5, "run", "–")])
def test_a_run_that_took_the_place_of_another_is_not_it(
    there: int, name: str, seed: str, tmp_path: Path
) -> None:
    """By what a result says of the pre-training: of seed 3, whose run was moved, or is gone."""
    write_run(tmp_path / "run", "byol_full_none", seed=4)
    moved = write_run(tmp_path / "moved", "byol_full_none", seed=there)
    pretraining = {"method": "byol", "epochs": 1000, "seed": 3}
    write_top1(moved, "knn", 0.5, checkpoint=str(tmp_path / "run"), pretraining=pretraining)
    found, _ = report(tmp_path / "out", moved)
    assert (Path(found["rows"][0]["name"]).name, found["rows"][0]["seeds"]) == (name, [seed])


def test_networks_without_a_config_are_known_by_their_weights(tmp_path: Path) -> None:
    """Of other projects, of torchvision, or of runs that are gone."""
    gone = write_top1(tmp_path / "results", "knn", 0.5, checkpoint="/runs/gone", weights="abc")
    network = {"name": "torchvision resnet50", "sha256": "def"}
    sets = {"fgsm": {"protocol": "fgsm", "value": 0.1, "photos": 5, "unread": []}}
    other = write_result(tmp_path / "more", "robustness", orientation="ignored", network=network, sets=sets)
    values = json.loads(other.read_text())
    del values["checkpoint"]
    write_json(other, values)
    found, text = report(tmp_path / "out", gone, other)
    assert [row["name"] for row in found["rows"]] == ["/runs/gone", "torchvision resnet50"]
    assert "| /runs/gone | – | not known | – |" in text


def test_another_projects_file_is_called_by_its_name(tmp_path: Path) -> None:
    """A run of ours beside it is not it."""
    run = write_run(tmp_path / "run", "moco_v2_full_none")
    pretraining = {"source": "moco", "method": "moco_v2"}
    given = {
        "checkpoint": "/w/moco_800.pth.tar",
        "pretraining": pretraining,
        "bn": "eval",
        "recipe_bn": "train",
    }
    write_top1(run, "linear", 0.7, **given)
    found, _ = report(tmp_path / "out", run)
    (row,) = found["rows"]
    assert (row["name"], list(row["cells"])) == ("moco_800.pth.tar of moco", ["linear-bn-eval"])


def test_rows_that_are_called_alike_are_told_apart(tmp_path: Path) -> None:
    """Networks of other projects by their files, those of one RUN by what was done to them."""
    for name in ("one", "two"):
        run = write_run(tmp_path / name, "moco_v2_full_none", imported_from="their.pth", sha256=name)
        write_top1(run, "knn", 0.5)
    ours = write_run(tmp_path / "ours", "moco_v2_full_none")
    write_top1(ours, "knn", 0.6)
    write_top1(ours, "knn-untrained", 0.1, weights="untrained w")
    found, _ = report(tmp_path / "out", tmp_path / "one", tmp_path / "two", ours, f"--name={ours}=A")
    assert [row["name"] for row in found["rows"]] == [
        "moco_v2_full_none, imported (their.pth one)",
        "moco_v2_full_none, imported (their.pth two)",
        "A, untrained",
        "A",
    ]


@pytest.mark.parametrize("value", ["0.5", True, float("nan"), [0.5]])
def test_a_value_that_is_no_number_is_an_error(value: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "moco_v2_full_none")
    write_top1(run, "knn", value)
    with pytest.raises(
        UserError, match=r"run/knn.json: not what knn writes .*; evaluate again, or delete it"
    ):
        report(tmp_path / "out", run)


def test_an_earlier_report_changes_nothing(runs: Path) -> None:
    """Neither its own file, where it lies among the runs, nor a picture of what is no more there."""
    (runs / "out").mkdir()
    (runs / "out" / "imagenet-c.png").touch()
    first = report(runs / "out", runs)
    assert report(runs / "out", runs) == first
    assert not (runs / "out" / "imagenet-c.png").exists()
