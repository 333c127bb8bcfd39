"""Linear probes and fine-tuning: what is trained and what stays, resumed runs, recipes, what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_bgaug.errors import UserError
from tests.helpers.probes import CPU, LINEAR, Files
from tests.helpers.processes import run
from tests.helpers.runs import use_tiny_net
from train import checkpoint
from train.distributed import process_group, rank
from train.evaluate.__main__ import main
from train.evaluate.backbone import load_backbone
from train.evaluate.classifier import load_classifier
from train.evaluate.robustness.networks import load_run_classifier
from train.export import export_backbone
from train.method import Setting
from train.methods.probe import ProbeOptions
from train.signals import StopRequest
from train.trainer import Trainer


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
