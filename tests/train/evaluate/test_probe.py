"""Linear probes and fine-tuning: what is trained and what stays, resumed runs, recipes, what is refused."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from dali_bgaug.config import override, read_yaml
from dali_bgaug.errors import UserError
from tests.helpers.processes import run
from tests.helpers.runs import use_tiny_net
from train import batch_norm, checkpoint
from train.config import RunConfig
from train.distributed import process_group, rank
from train.evaluate.__main__ import main
from train.evaluate.backbone import load_backbone
from train.evaluate.classifier import load_classifier
from train.evaluate.probe import RECIPES, TRANSFER, ProbeJob, probe_config, recipe_of, run_probe
from train.evaluate.robustness.networks import load_run_classifier
from train.export import Backbone, export_backbone
from train.method import Setting
from train.methods.probe import ProbeOptions
from train.networks import AlexNet
from train.signals import StopRequest
from train.trainer import Trainer

CPU = torch.device("cpu")
LINEAR = (
    *("data.batch_size=12", "data.device=cpu", "data.threads=1", "data.crop.scale=[0.5, 1.0]"),
    *("epochs=20", "optim.milestones=[15]", "optim.warmup_epochs=0", "optim.lr_batch=12", "optim.lr=0.3"),
)


class Files(NamedTuple):
    """What a probe is made of, and the words of its command line."""

    checkpoint: Path
    data: Path
    test: Path
    out: Path
    recipe: Path
    words: Sequence[str]

    def config(self) -> RunConfig:
        """The probe's run."""
        backbone, given = load_backbone(self.checkpoint), override({}, list(self.words))
        return probe_config(backbone, self.checkpoint, self.data, self.recipe, given)

    def run(self, stop: StopRequest | None = None) -> dict[str, Any] | None:
        """The probe's result."""
        job = ProbeJob(self.config(), self.test, self.out)
        return run_probe(job, CPU, stop or StopRequest())


@pytest.fixture
def job(untrained: Path, coloured: Path, tmp_path: Path) -> Files:
    """A linear probe of random features for colours."""
    recipe = RECIPES / "linear_moco_v2.yaml"
    return Files(untrained, coloured, coloured.parent / "photos", tmp_path / "probe", recipe, LINEAR)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_linear_probe_trains_nothing_but_the_classifier(job: Files, mode: str) -> None:
    job = job._replace(words=[*LINEAR, f"method.backbone_bn={mode}"])
    result = job.run()
    assert (result["top1"], result["top5"], result["photos"]) == (1.0, 1.0, 36)
    assert (result["bn"], result["recipe"], result["backbone_lr"]) == (mode, "linear_moco_v2", 0)
    before = load_backbone(job.checkpoint)
    assert result["weights"] == before.sha256
    classifier, *_ = load_classifier(job.out)
    assert classifier.classes == ["blue", "green", "red"]
    after = classifier.backbone.state_dict()
    for name, value in before.network.named_parameters():
        assert torch.equal(value, after[name]), name
    adapted = [
        not torch.equal(v, after[name]) for name, v in before.network.named_buffers() if "running" in name
    ]
    assert adapted == [mode == "train"] * 4


def test_fine_tuning_trains_all_of_it_at_two_rates(job: Files) -> None:
    words = [*LINEAR, "optim.backbone_lr=0.003", "method.freeze=false", "epochs=16"]
    config = job._replace(words=words).config()
    with Trainer(config, CPU) as trainer:
        before = {name: value.clone() for name, value in trainer.method.named_parameters()}
        trainer.step(iter(trainer.loader))
        assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([0.3, 0.003])
        for name, value in trainer.method.named_parameters():
            assert not torch.equal(value, before[name]), name
        heads = trainer.optimizer.param_groups[0]["params"]
        assert {id(p) for p in heads} == {id(p) for p in trainer.method.classifier.parameters()}


def test_an_interrupted_probe_ends_as_if_it_had_not_been(job: Files, tmp_path: Path) -> None:
    whole = job._replace(out=tmp_path / "whole").run()
    stop = StopRequest()
    stop.name = "SIGTERM"
    assert job.run(stop) is None
    assert checkpoint.load(job.out / "checkpoints" / "latest.pt").step == 1
    assert job.run() == whole
    ends = [load_classifier(folder)[0].state_dict() for folder in (job.out, tmp_path / "whole")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert job.run() == whole  # finished: tested again, not trained
    with pytest.raises(UserError, match=r"optim.lr was 0.3, now it is 0.2"):
        job._replace(words=[*LINEAR, "optim.lr=0.2"]).run()


def _probe_on_a_rank(job: Files) -> None:
    use_tiny_net()
    with process_group(CPU):
        result = job.run()
        (job.out / f"{rank()}.json").write_text(json.dumps(result))


def test_ranks_probe_together(job: Files) -> None:
    """Twelve photos a step on two ranks; each tests its half of 36 photos, and both have the result."""
    run(_probe_on_a_rank, job, ranks=2)
    first, second = (json.loads((job.out / f"{number}.json").read_text()) for number in range(2))
    assert first == second
    assert (first["top1"], first["photos"], first["batch_size"]) == (1.0, 36, 12)


def test_another_architecture_or_other_weights_are_refused(job: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)run as a resnet50: these weights.*missing: .* and \d+ more"):
        job._replace(words=[*LINEAR, "backbone=resnet50"]).run()
    with pytest.raises(UserError, match=r"layer=conv5: of alexnet, this is a resnet18"):
        job._replace(words=[*LINEAR, "method.layer=conv5"]).run()
    options = ProbeOptions(checkpoint=job.checkpoint, weights="0" * 64)
    with pytest.raises(UserError, match=r"holds other weights than when this began"):
        options.build(Setting("resnet18", photos=8, classes=3))
    assert not (tmp_path / "probe" / "checkpoints").exists()
    with pytest.raises(UserError, match=r"backbone_lr=0.1: the backbone is frozen"):
        job._replace(words=[*LINEAR, "optim.backbone_lr=0.1"]).run()


def test_files_that_are_no_backbones_are_refused(job: Files, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, foreign)
    for load in (load_backbone, load_classifier):
        with pytest.raises(UserError, match=r"neither a checkpoint of a run .*their card, foreign.json"):
            load(foreign)
    foreign.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match=r"foreign.json: damaged, or no JSON"):
        load_backbone(foreign)


def test_a_backbone_that_moved_is_the_same(job: Files, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.name = "SIGTERM"
    job.run(stop)
    job.checkpoint.rename(tmp_path / "elsewhere")
    assert job._replace(checkpoint=tmp_path / "elsewhere").run()["top1"] == 1.0


def test_passes_may_be_accumulated_where_batch_norm_stays(job: Files) -> None:
    words = [*LINEAR, "method.backbone_bn=eval", "accumulate=2"]
    assert job._replace(words=words).run()["top1"] == 1.0
    with pytest.raises(UserError, match=r"accumulate=2: batch statistics"):
        job._replace(words=[*LINEAR, "accumulate=2"], out=job.out / "2").run()


def test_other_classes_are_refused(job: Files, textured: Path) -> None:
    with pytest.raises(UserError, match=r"--test=.*its 3 classes are not the 3 of --data="):
        job._replace(test=textured).run()


def test_a_classifier_of_other_classes_is_refused(job: Files) -> None:
    job._replace(words=[*LINEAR, "epochs=16"]).run()
    path = job.out / "checkpoints" / "latest.pt"
    state = checkpoint.read(path)
    state["data"]["classes"] = 5
    torch.save(state, path)
    with pytest.raises(
        UserError, match=r"classifier of 5 classes.*\n.*weight \[3, 32\] instead of \[5, 32\]"
    ):
        load_classifier(path)
    with pytest.raises(UserError, match=r"trained by moco_v2 has no classifier"):
        load_classifier(job.checkpoint)


def test_an_exported_backbone_is_probed_too(job: Files, tmp_path: Path) -> None:
    export_backbone(checkpoint.load(job.checkpoint / "checkpoints" / "latest.pt"), tmp_path / "b.pt")
    exported = job._replace(checkpoint=tmp_path / "b.pt").config()
    own = job.config()
    assert exported.method.weights == own.method.weights
    assert exported.data == own.data


# ---------------------------------------------------------------- recipes

LINEARS = {
    # epochs, batch, rate at that batch, milestones, factor, warm-up, decay, Nesterov, batch norm, its photos
    "moco_v2": (120, 2048, 240.0, (60, 80, 100), 0.1, 10, 0, False, "train", 64),
    "byol": (140, 1024, 0.8, (80, 100, 120), 0.1, 0, 0, True, "train", 64),
    "swav": (100, 2048, 2.4, (), 0.1, 5, 1e-6, False, "eval", None),
    "rotnet": (35, 256, 0.1, (5, 15, 25), 0.2, 0, 5e-4, True, "eval", 256),
    "supervised": (40, 4096, 0.16, (), 0.1, 0, 1e-4, False, "eval", None),
}
FINETUNES = {
    # epochs, milestones, factor, head, trunk, photos of a batch norm
    ("moco_v2", 1): (50, (30, 40), 0.1, 1.0, 1e-4, None),
    ("moco_v2", 10): (50, (30, 40), 0.1, 0.3, 1e-4, None),
    ("byol", 1): (50, (30, 40), 0.1, 1.0, 1e-3, None),
    ("byol", 10): (50, (30, 40), 0.1, 0.1, 1e-3, None),
    ("swav", 1): (20, (12, 16), 0.2, 5.0, 0.02, 256),
    ("swav", 10): (20, (12, 16), 0.2, 0.2, 0.01, 256),
}


@pytest.mark.parametrize("method", LINEARS)
def test_linear_recipes(job: Files, method: str) -> None:
    config = job._replace(recipe=recipe_of("linear", method), words=()).config()
    epochs, batch, rate, milestones, factor, warmup, decay, nesterov, mode, group = LINEARS[method]
    optim, options = config.optim, config.method
    assert (config.epochs, config.data.batch_size) == (epochs, batch)
    assert optim.lr_at(warmup * 10, epochs * 10, 10, batch) == pytest.approx(rate)
    assert (optim.milestones, optim.factor, optim.warmup_epochs) == (milestones, factor, warmup)
    assert (optim.weight_decay, optim.nesterov, optim.momentum) == (decay, nesterov, 0.9)
    assert (options.backbone_bn, options.bn_group, options.freeze) == (mode, group, True)
    kind = ("conv5", "normalised") if method == "rotnet" else ("last", "linear")
    assert (options.layer, options.classifier) == kind
    view = config.data.views["image"]
    assert (view.crop.scale, view.crop.flip_p, view.crop.size) == ((0.08, 1.0), 0.5, 32)
    assert (view.photometric.jitter_p, view.photometric.blur_p) == (0, 0)


@pytest.mark.parametrize(("method", "percent"), FINETUNES)
def test_fine_tuning_recipes(job: Files, method: str, percent: int) -> None:
    recipe = recipe_of("finetune", method, percent)
    config = job._replace(recipe=recipe, words=()).config()
    epochs, milestones, factor, head, trunk, group = FINETUNES[method, percent]
    optim = config.optim
    assert (config.epochs, config.data.batch_size, optim.milestones, optim.factor) == (
        epochs,
        256,
        milestones,
        factor,
    )
    assert (optim.lr, optim.backbone_lr, optim.weight_decay) == (head, trunk, 0)
    assert (config.method.freeze, config.method.bn_group) == (False, group)


@pytest.mark.parametrize(
    ("recipe", "plans"),
    [
        # ranks -> groups of a rank, or ranks that share one
        ("linear_moco_v2", {1: (32, 1), 8: (4, 1), 32: (1, 1), 64: (1, 2)}),  # 64 of 2048 photos
        ("linear_byol", {1: (16, 1), 8: (2, 1), 16: (1, 1), 32: (1, 2)}),  # 64 of 1024
        ("finetune_swav_1percent", {1: (1, 1), 2: (1, 2), 8: (1, 8)}),  # all 256
        ("finetune_swav_10percent", {1: (1, 1), 2: (1, 2), 8: (1, 8)}),
    ],
)
def test_batch_norm_of_a_recipe_does_not_depend_on_the_ranks(
    recipe: str, plans: dict[int, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_yaml(RECIPES / f"{recipe}.yaml")
    options = ProbeOptions(checkpoint=Path("unread"), **values["method"])
    found = {}
    for ranks in plans:
        monkeypatch.setattr(batch_norm, "world_size", lambda ranks=ranks: ranks)
        found[ranks] = options.grouping(Setting("resnet50", photos=values["data"]["batch_size"] // ranks))
    assert found == plans


@pytest.mark.parametrize("freeze", [True, False])
def test_a_backbone_in_train_mode_is_normalised_by_groups(job: Files, freeze: bool) -> None:
    """Twelve photos in groups of four give the features of three batches of four."""
    options = {"checkpoint": job.checkpoint, "freeze": freeze, "backbone_bn": "train"}
    setting = Setting("resnet18", photos=12, classes=3)
    grouped, plain = (
        ProbeOptions(**options, bn_group=size).build(setting).train().network for size in (4, None)
    )
    x = torch.randn(12, 3, 32, 32) * torch.arange(1, 13).view(-1, 1, 1, 1)
    found = grouped(x)
    torch.testing.assert_close(found, torch.cat([plain(part) for part in x.split(4)]))
    assert (found - plain(x)).abs().max() > 0.01


def test_all_recipes_are_tested() -> None:
    names = (
        {f"linear_{name}" for name in LINEARS}
        | {*TRANSFER}
        | {f"finetune_{m}_{p}percent" for m, p in FINETUNES}
    )
    assert {path.stem for path in RECIPES.glob("*.yaml")} == names
    assert all("extends" not in read_yaml(path) for path in RECIPES.glob("*.yaml"))
    with pytest.raises(UserError, match=r"no recipe finetune_rotnet_1percent .*; choose one with --recipe"):
        recipe_of("finetune", "rotnet", 1)


def test_conv5_of_alexnet(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Backbone(AlexNet().state_dict(), {})
    monkeypatch.setattr("train.methods.probe.read_backbone", lambda path: stored)
    options = ProbeOptions(checkpoint=Path("alexnet"), layer="conv5")
    probe = options.build(Setting("alexnet", photos=2, classes=3))
    assert probe.classifier.in_features == 9216
    x, label = torch.randn(2, 3, 63, 63), torch.tensor([0, 1])
    with torch.no_grad():
        probe.eval()
        expected = probe.classifier(probe.network.pool(probe.network.features(x)).flatten(1))
        loss, _ = probe({"image": x, "label": label})
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(expected, label).item())


def test_rotnets_classifier_normalises_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 256 channels over the batch and its 36 cells, by what it is while training, by what it was
    afterwards; nothing else is learned than the linear layer, whose weights start as wide as RotNet's."""
    stored = Backbone(AlexNet().state_dict(), {})
    monkeypatch.setattr("train.methods.probe.read_backbone", lambda path: stored)
    options = {"checkpoint": Path("alexnet"), "layer": "conv5", "classifier": "normalised"}
    probe = ProbeOptions(**options, backbone_bn="eval").build(Setting("alexnet", photos=2, classes=8)).train()
    linear = probe.classifier
    assert [name for name, p in probe.named_parameters() if p.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]
    assert linear.weight.std().item() == pytest.approx(0.5, rel=0.02)  # sqrt(2 / 8)
    assert not linear.bias.any()
    x = 3 + 2 * torch.randn(8, 256, 36)
    normal = (x - x.mean((0, 2), keepdim=True)) / x.std((0, 2), correction=0, keepdim=True)
    expected = normal.flatten(1) @ linear.weight.T
    assert torch.allclose(linear(x.flatten(1)), expected, rtol=1e-3, atol=1e-3)
    assert linear.norm.running_mean.mean().item() == pytest.approx(0.3, abs=0.02)  # a tenth of the way to 3
    assert not probe.network.training


def test_a_normalised_classifier_is_tested_with_its_statistics(job: Files) -> None:
    words = [*LINEAR, "method.classifier=normalised", "method.backbone_bn=eval", "method.bn_group=12"]
    assert job._replace(words=words).run()["top1"] == 1.0
    linear = load_classifier(job.out).network.linear
    assert linear.norm.num_batches_tracked == 60


# ---------------------------------------------------------------- the command line


def _main(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, words)])
    main()


def test_from_the_command_line(
    job: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--checkpoint", job.checkpoint, "--data", job.data, "--test", job.test]
    _main(monkeypatch, "linear", *places, "--bn", "eval", *LINEAR)
    result = json.loads((job.checkpoint / "linear-bn-eval.json").read_text())
    assert (result["protocol"], result["bn"], result["recipe_bn"]) == ("linear", "eval", "train")
    assert (result["top1"], result["recipe"]) == (1.0, "linear_moco_v2")
    assert result["pretraining"] == {
        **{"source": None, "method": "moco_v2", "background": "swaps", "p_pos": 0.2},
        **{"epochs": 8, "seed": 0, "init": None},
    }
    assert (job.checkpoint / "linear-bn-eval" / "checkpoints" / "latest.pt").exists()
    shown = capsys.readouterr().out
    assert "top1         100.00%" in shown
    assert "top5" not in shown  # of three classes
    assert "batch norm       eval" in shown
    short = (*LINEAR, "epochs=2", "optim.milestones=[1]")
    finetune = ["finetune", *places, "--percent", 10, *short, "data.batch_size=8", "--out", job.out / "ft"]
    with pytest.raises(UserError, match=r"nothing of a subset \(36 photos"):
        _main(monkeypatch, *finetune)
    _main(monkeypatch, *finetune, "--any-subset")
    result = json.loads((job.out / "ft.json").read_text())
    assert result["protocol"] == "finetune-10percent-any-subset"
    assert (result["recipe"], result["backbone_lr"]) == ("finetune_moco_v2_10percent", 1e-4)
    assert result["labels"] == {"photos": 36}
    assert "labels            36  all of the shards" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--untrained=True: a probe by a recipe"):
        _main(monkeypatch, "linear", *places, "--untrained")


def test_another_projects_file_from_the_command_line(
    job: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From MoCo's file to a probe, whose classifier needs the file no more."""
    theirs = load_backbone(job.checkpoint).network.state_dict()
    weights = {f"module.encoder_q.{name}": value for name, value in theirs.items()}
    weights |= {"module.queue": torch.zeros(2), "module.encoder_q.fc.0.weight": torch.zeros(2)}
    torch.save({"state_dict": weights, "epoch": 200}, path := tmp_path / "moco.pth.tar")
    small = ("data.crop.size=32", "crop.size=32", "resize=36")
    places = ["--checkpoint", path, "--from", "moco", "--data", job.data, "--test", job.test]
    places += ["--backbone", "resnet18"]
    _main(monkeypatch, "linear", *places, *LINEAR, small[0])
    result = json.loads((tmp_path / "moco.pth-linear.json").read_text())
    assert (result["top1"], result["recipe"], result["bn"]) == (1.0, "linear_moco_v2", "train")
    assert (result["pretraining"]["source"], result["pretraining"]["method"]) == ("moco", "moco_v2")
    _main(monkeypatch, "linear", *places, "--bn", "eval", *LINEAR, small[0])
    assert json.loads((tmp_path / "moco.pth-linear-bn-eval.json").read_text())["bn"] == "eval"
    _main(monkeypatch, "knn", *places, "--k", 3, *small[1:])
    knn = json.loads((tmp_path / "moco.pth-knn.json").read_text())
    assert (knn["weights"], knn["top1"], knn["pretraining"]["source"]) == (result["weights"], 1.0, "moco")
    _main(monkeypatch, "linear", "--fast", *places, "--rates=1", *small[1:])
    assert json.loads((tmp_path / "moco.pth-linear-fast.json").read_text())["pretraining"]["source"] == "moco"
    path.unlink()
    loaded = load_run_classifier(tmp_path / "moco.pth-linear")
    assert loaded.name == f"linear_moco_v2 {tmp_path.name}/moco.pth-linear"
    assert (loaded.classes, loaded.size) == (["blue", "green", "red"], 32)
    assert loaded.record["pretraining"]["source"] == "moco"
    assert (loaded.record["training"], loaded.record["bn"]) == ("linear", "train")
    assert loaded.record["recipe"] == "linear_moco_v2"
    assert load_run_classifier(tmp_path / "moco.pth-linear-bn-eval").record["bn"] == "eval"
    with pytest.raises(UserError, match=r"--backbone=resnet18: a run says itself what its backbone is"):
        _main(monkeypatch, "knn", "--checkpoint", job.checkpoint, *places[4:])
    with pytest.raises(UserError, match=r"--untrained --from=moco"):
        _main(monkeypatch, "knn", *places, "--untrained")
