"""Heads reach the accuracy that their features allow, whatever the scale; the rate is chosen without the
test set."""

import json
import sys
from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from tests.helpers.processes import run
from tests.helpers.sets import untrained_run
from train.distributed import process_group, rank, world_size
from train.evaluate.__main__ import main
from train.evaluate.backbone import load_backbone
from train.evaluate.fast import fit_fast, linear_fast
from train.evaluate.heads import fit_and_choose, fit_heads
from train.features import Features, evaluation_config, extract_features


def _accuracy(train: Features, test: Features, classes: int) -> float:
    fitted = fit_and_choose(train, classes, epochs=10)
    answers = fitted.heads.logits(test.rows)[fitted.best].argmax(dim=1)
    return (answers == test.labels).float().mean().item()


def _gaussians(photos: int, distance: float, seed: int) -> Features:
    """Two classes in 8 dimensions, `distance` standard deviations apart along one."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(photos) % 2
    rows = torch.randn(photos, 8, generator=generator)
    rows[:, 3] += distance * labels
    return Features(rows, labels)


def test_separable_features_are_separated() -> None:
    assert _accuracy(_gaussians(400, 12, 0), _gaussians(400, 12, 1), 2) == 1.0


def test_overlapping_features_reach_the_best_possible_accuracy() -> None:
    """Two standard deviations apart: the normal distribution at 1 is .8413."""
    found = _accuracy(_gaussians(2000, 2, 0), _gaussians(20000, 2, 1), 2)
    assert found == pytest.approx(0.8413, abs=0.01)


def test_labels_that_features_say_nothing_of_are_guessed() -> None:
    generator = torch.Generator().manual_seed(3)
    sets = [
        Features(
            torch.randn(2000, 16, generator=generator), torch.randint(0, 5, (2000,), generator=generator)
        )
        for _ in range(2)
    ]
    assert _accuracy(*sets, 5) == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("rates", [(0.1, 0.0), (float("nan"),), ()])
def test_bad_rates_are_refused(rates: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"--rates=.*: learning rates must be above 0"):
        fit_and_choose(_gaussians(40, 4, 0), 2, rates=rates)


def test_too_few_photos_and_damaged_features_are_refused() -> None:
    with pytest.raises(UserError, match=r"a rank has 1 photos to fit on, two are needed"):
        fit_and_choose(Features(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)), 2)
    rows, labels = _gaussians(40, 4, 0)
    rows[3, 3] = torch.nan
    with pytest.raises(UserError, match=r"features are not finite"):
        fit_and_choose(Features(rows, labels), 2)


def test_scale_and_constant_features_do_not_matter() -> None:
    train, test = _gaussians(400, 4, 0), _gaussians(400, 4, 1)
    plain = fit_heads(train, 2).logits(test.rows)
    odd = [
        Features(torch.cat([1e4 * rows + 3e5, torch.full((400, 1), 0.1)], dim=1), labels)
        for rows, labels in (train, test)
    ]
    assert torch.allclose(fit_heads(odd[0], 2).logits(odd[1].rows), plain, atol=1e-2)


def _on_a_rank(path: Path) -> None:
    with process_group(torch.device("cpu")):
        rows, labels = _gaussians(400, 4, 0)
        own = slice(400 * rank() // world_size(), 400 * (rank() + 1) // world_size())
        fitted = fit_and_choose(Features(rows[own], labels[own]), 2, epochs=10)
        torch.save((fitted.heads.weight, fitted.held_out), path / f"{rank()}.pt")


def test_ranks_fit_the_same_heads(tmp_path: Path) -> None:
    run(_on_a_rank, tmp_path, ranks=3)
    (first, held_out), *others = [torch.load(tmp_path / f"{number}.pt") for number in range(3)]
    for weight, own in others:
        assert torch.equal(weight, first)
        assert own == held_out
    test = _gaussians(400, 4, 1)
    alone = fit_heads(_gaussians(400, 4, 0), 2, epochs=10)
    answers = torch.einsum("nd,dc->nc", test.rows - test.rows.mean(0), first[3]).argmax(dim=1)
    own = alone.logits(test.rows)[3].argmax(dim=1)
    assert (answers == own).float().mean() > 0.95


# ---------------------------------------------------------------- on photos


def test_random_networks_know_colours_but_not_what_is_unrelated(
    tmp_path: Path, coloured: Path, textured: Path
) -> None:
    """A class that is the photo's colour is told by any features; numbers given at random by none."""
    backbone = load_backbone(untrained_run(tmp_path, coloured))
    sets = (coloured, coloured.parent / "photos", textured)
    colours, photos, numbers = (evaluation_config(backbone.config.data, path) for path in sets)
    known = linear_fast(backbone, colours, photos, torch.device("cpu"))
    assert (known["top1"], known["top5"], known["photos"]) == (1.0, 1.0, 36)
    fast = fit_fast(backbone, numbers, torch.device("cpu"))
    assert fast.result["data"]["photos"] == 50
    # Classes of `textured` are numbers in turn: whatever is learnt by heart says nothing of other photos.
    rows, labels = extract_features(backbone.network, numbers, torch.device("cpu"), "features")
    turns = []
    for turn in range(10):
        test = torch.arange(len(rows)) % 10 == turn
        heads = fit_heads(Features(rows[~test], labels[~test]), 3, (0.1,), epochs=20)
        turns.append(heads.logits(rows[test])[0].argmax(dim=1) == labels[test])
    assert 0.13 < torch.cat(turns).float().mean() < 0.54  # a third, give or take three standard deviations


def test_from_the_command_line(
    untrained: Path, coloured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "linear", "--fast", "--checkpoint", str(untrained), "--data", str(coloured)]
    words += ["--test", str(coloured), "data.batch_size=16", "data.device=cpu"]
    monkeypatch.setattr(sys, "argv", [*words, "--rates", "0.1", "1e-9"])
    main()
    result = json.loads((untrained / "linear-fast.json").read_text())
    assert (result["rates"], result["rate"], result["top1"]) == ([0.1, 1e-9], 0.1, 1.0)
    assert (result["bn"], result["untrained"], result["protocol"]) == ("eval", False, "linear-fast")
    assert "<- chosen" in capsys.readouterr().out
    for wrong, message in (
        (["--bn", "train"], r"--bn=train: --fast: features are extracted once, in evaluation mode"),
        (["--recipe", "x.yaml"], "--recipe=x.yaml: --fast"),
    ):
        monkeypatch.setattr(sys, "argv", [*words, *wrong])
        with pytest.raises(UserError, match=message):
            main()


def test_a_head_as_a_layer_gives_its_logits() -> None:
    features = _gaussians(100, 3, 0)
    features.rows[:, 5] = 2.5  # constant, so it does not count
    heads = fit_heads(features, 2, (0.01, 0.1), epochs=3)
    torch.testing.assert_close(heads.layer(1)(features.rows), heads.logits(features.rows)[1])
