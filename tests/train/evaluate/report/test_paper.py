"""The paper's figures beside a network: by method, setting and backgrounds, whatever its folder's name."""

from pathlib import Path

import pytest

from tests.helpers.reports import write_run, write_top1
from tests.train.evaluate.report.test_report import report
from train.evaluate.report.paper import PAPER, Figure, figures_of
from train.evaluate.report.runs import Network, network_of


def network(folder: Path, recipe: str, *words: str, protocol: str = "knn", classes: int = 1000) -> Network:
    """The network of a result."""
    run = write_run(folder, recipe, *words, classes=classes)
    return network_of({"protocol": protocol, "checkpoint": str(run)}, run / f"{protocol}.json")


def percent(figures: dict[str, Figure]) -> dict[str, float]:
    return {key: round(100 * figure.value, 1) for key, figure in figures.items()}


@pytest.mark.parametrize(
    "recipe, words, expected",
    [
        ("moco_v2_medium_none", (), {"linear": 67.7}),
        ("moco_v2_medium_swaps", (), {"linear": 69.5}),
        ("byol_full_none", (), {"linear": 73.8, "linear-bn-eval": 74.1}),
        (
            "swav_full_none",
            (),
            {
                "linear": 74.9,
                "linear-bn-train": 74.7,
                "objectnet": 19.3,
                "imagenet-a": 5.2,
                "imagenet-r": 29.4,
            },
        ),
        ("moco_v2_medium_none", ("epochs=800",), {"linear": 71.0, "linear-bn-eval": 71.0}),
        ("moco_v2_medium_none", ("optim.lr=0.06", "data.batch_size=2048"), {"linear": 67.7}),
        ("moco_v2_medium_none", ("epochs=200",), {}),
        ("moco_v2_medium_rm", ("data.background.p_pos=0.5",), {}),
        ("moco_v2_medium_none", ("backbone=resnet18",), {}),
        ("moco_v2_full_random", (), {}),
        ("swav_full_none_wide", (), {}),
    ],
)
def test_the_paper_has_a_row_for(
    tmp_path: Path, recipe: str, words: tuple[str, ...], expected: dict[str, float]
) -> None:
    assert percent(figures_of(network(tmp_path / "some name", recipe, *words))) == expected


def test_supervised_rows_are_of_retrained_networks(tmp_path: Path) -> None:
    own = network(tmp_path / "a", "supervised_medium_rm", "data.background.p_pos=0.5")
    retrained = network(
        tmp_path / "b", "supervised_medium_rm", "data.background.p_pos=0.5", protocol="linear"
    )
    weaker = network(tmp_path / "c", "supervised_medium_rm", protocol="linear")
    assert [figures_of(each) for each in (own, weaker)] == [{}, {}]
    assert figures_of(retrained) == {"linear": Figure(0.751, "the paper's Table 7")}


def test_none_of_other_data_sets_or_untrained_networks(tmp_path: Path) -> None:
    assert figures_of(network(tmp_path / "a", "moco_v2_full_none", classes=10)) == {}
    assert figures_of(network(tmp_path / "b", "moco_v2_full_none", protocol="knn-untrained")) == {}
    assert figures_of(Network("weights abc", "moco_v2_full_none")) == {}


def test_torchvisions_first_resnet50_is_what_the_paper_compares_with() -> None:
    figures = figures_of(Network("weights abc", "torchvision resnet50 IMAGENET1K_V1"))
    assert percent(figures) == {
        **{"real": 82.9, "imagenet-v2/matched-frequency": 63.3, "objectnet": 24.7, "cue-conflict": 22.1},
        **{"imagenet-a": 0.0, "only-fg-imagenet-a": 2.8},
    }
    assert figures_of(Network("weights abc", "torchvision resnet50 IMAGENET1K_V2")) == {}


def test_recipes_of_the_paper_are_there_once() -> None:
    names = [(row.recipe, row.words) for row in PAPER]
    assert len(set(names)) == len(names)


def test_figures_stand_below_their_network(tmp_path: Path) -> None:
    for recipe, top1, photos in (("moco_v2_full_none", 0.708, 50000), ("byol_medium_rm", 0.5, 100)):
        run = write_run(tmp_path / "runs" / recipe, recipe)
        write_top1(run, "linear", top1, photos=photos)
        write_top1(run, "knn", 0.6)
    found, text = report(
        tmp_path / "out", tmp_path / "runs" / "moco_v2_full_none", tmp_path / "runs", "--paper"
    )
    assert (
        "| network | seeds | linear | k-NN |\n"
        "| --- | --: | --: | --: |\n"
        "| moco_v2_full_none | 1 | 70.8 | 60.0 |\n"
        "| *the paper's* |  | 71.0 [3] | – |\n"
        "| byol_medium_rm | 1 | 50.0 [1] [2] | 60.0 |\n"
        "| *the paper's* |  | 73.3 [4] [5] | – |\n"
    ) in text
    assert found["notes"][2:] == [
        "the paper's Tables 2 and A12",
        "the paper, linear top-1 on ImageNet",
        "the paper's is of 50000 photos, ours of 100",
    ]
    assert found["rows"][0]["paper"] == {"linear": {"value": 0.71, "source": "the paper's Tables 2 and A12"}}
