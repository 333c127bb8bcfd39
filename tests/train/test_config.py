"""Recipes: every row of the paper's table says what the paper says, and the program shows and refuses
configs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dali_bgaug.config import read_yaml
from dali_bgaug.errors import run_program
from pipelines.config import FREE, free_fields
from tests.helpers.runs import ROOT, read_recipe, write_recipe
from train.__main__ import main
from train.config import RunConfig
from train.methods.probe import ProbeOptions
from train.optim import OptimOptions

CONFIGS = ROOT / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in ("base", "demo", "small"))

# method, setting: epochs, batch, group, learning rate at that batch, decay, warm-up
TABLE = {
    ("moco_v2", "medium"): (220, 1024, 32, 0.12, 1e-4, 20),
    ("moco_v2", "full"): (800, 1024, 32, 0.12, 1e-4, 20),
    ("byol", "medium"): (300, 4096, 512, 4.8, 1e-6, 10),
    ("byol", "full"): (1000, 4096, 512, 3.2, 1.5e-6, 10),
    ("swav", "medium"): (100, 4096, 512, 4.8, 1e-6, 10),
    ("swav", "full"): (800, 4096, 512, 4.8, 1e-6, 10),
    ("supervised", "medium"): (90, 4096, None, 1.6, 1e-4, 5),
    ("supervised", "full"): (300, 4096, None, 1.6, 1e-4, 5),
}
# method: background -> p_pos, fg_min of the views that get it
BACKGROUNDS = {
    "moco_v2": {"none": (None, 0), "rm": (0.2, 0), "random": (0.2, 0), "swaps": (0.2, 0.1)},
    "byol": {"none": (None, 0), "rm": (0.15, 0.05), "random": (0.05, 0.05)},
    "swav": {"none": (None, 0), "rm": (0.25, 0.15), "random": (0.2, 0.15)},
    "supervised": {"none": (None, 0), "rm": (0.2, 0), "random": (0.2, 0)},
}


@pytest.mark.parametrize(
    ("method", "setting", "background"),
    [(*row, background) for row in TABLE for background in BACKGROUNDS[row[0]]],
)
def test_every_row_of_the_table(method: str, setting: str, background: str) -> None:
    config = read_recipe(CONFIGS / f"{method}_{setting}_{background}.yaml")
    epochs, batch, group, rate, decay, warmup = TABLE[method, setting]
    p_pos, fg_min = BACKGROUNDS[method][background]
    assert config.method.name == config.data.pipeline == method
    assert (config.backbone, config.epochs, config.data.batch_size) == ("resnet50", epochs, batch)
    assert config.method.bn_group == group
    optim = config.optim
    assert optim.lr_at(312 * warmup, 312 * epochs, 312, batch) == pytest.approx(rate)
    assert (optim.weight_decay, optim.warmup_epochs, optim.momentum) == (decay, warmup, 0.9)
    assert config.data.background.kind == background
    if p_pos is not None:
        assert config.data.background.p_pos == p_pos
    assert config.data.background.p_neg == 0.2
    for name, view in config.data.views.items():
        assert view.crop.fg_min == (0 if name == "local" else fg_min)
        assert view.background == (name != "local")
        assert view.crop.size == (96 if name == "local" else 224)


def test_optimizers_and_methods_of_the_table() -> None:
    moco, byol, swav, supervised = (
        read_recipe(CONFIGS / f"{method}_medium_none.yaml")
        for method in ("moco_v2", "byol", "swav", "supervised")
    )
    assert [c.optim.kind for c in (moco, byol, swav, supervised)] == ["sgd", "lars", "larc", "sgd"]
    assert [c.optim.exclude_bias_and_norm for c in (moco, byol, swav, supervised)] == [
        False,
        True,
        False,
        True,
    ]
    assert (moco.method.queue, moco.method.momentum, moco.method.temperature) == (65536, 0.999, 0.2)
    assert (byol.method.momentum, byol.optim.trust) == (0.99, 1e-3)
    assert read_recipe(CONFIGS / "byol_full_rm.yaml").method.momentum == 0.996
    options = swav.method
    assert (options.prototypes, options.hidden, options.dim, options.queue) == (3000, 2048, 128, 0)
    assert (options.temperature, options.epsilon, options.sinkhorn_iterations) == (0.1, 0.05, 3)
    assert options.freeze_prototypes_steps == 313
    assert (swav.optim.warmup_lr, swav.optim.final_lr, swav.optim.lr_batch) == (0.3, 0.0048, 4096)
    assert swav.data.normalise.std[0] == 0.228
    assert (supervised.optim.schedule, supervised.optim.milestones) == ("steps", (30, 60, 80))
    assert read_recipe(CONFIGS / "supervised_full_random.yaml").optim.milestones == (75, 150, 225)


@pytest.mark.parametrize("background", ["none", "rm", "random"])
def test_rotnets_row(background: str) -> None:
    config = read_recipe(CONFIGS / f"rotnet_{background}.yaml")
    optim = config.optim
    assert (config.backbone, config.epochs, config.data.batch_size) == ("alexnet", 30, 192)
    rates = [optim.lr_at(epoch * 100, 3000, 100, 192) for epoch in (0, 10, 20)]
    assert rates == pytest.approx([0.01, 0.001, 0.0001])
    assert (optim.nesterov, optim.weight_decay) == (True, 5e-4)
    assert config.data.background.kind == background
    assert config.data.views["image"].crop.fg_min == 0


@pytest.mark.parametrize("setting", ["medium", "full"])
@pytest.mark.parametrize("background", ["none", "rm", "random"])
def test_swavs_with_a_wide_head(setting: str, background: str) -> None:
    """The rows of Figure 4."""
    config = read_recipe(CONFIGS / f"swav_{setting}_{background}_wide.yaml")
    assert (config.method.hidden, config.method.dim) == (4096, 256)
    assert config.epochs == {"medium": 100, "full": 800}[setting]
    views = config.data.views
    assert (views["global"].crop.scale, views["local"].crop.scale) == ((0.14, 1), (0.05, 0.14))
    assert views["global"].crop.fg_min == (0 if background == "none" else 0.15)
    assert (config.data.background.kind, config.data.background.warmup_epochs) == (background, 0)
    if background != "none":
        assert config.data.background.p_pos == 0.25


@pytest.mark.parametrize(("background", "p_pos", "s"), [("rm", 0.25, 0.26), ("random", 0.2, 0.2)])
def test_swavs_with_larger_local_crops(background: str, p_pos: float, s: float) -> None:
    """Appendix C.7, 100 epochs only."""
    config = read_recipe(CONFIGS / f"swav_medium_{background}_wide_larger_local.yaml")
    assert (config.method.hidden, config.method.dim, config.epochs) == (4096, 256, 100)
    assert config.data.views["global"].crop.scale == (s, 1)
    assert config.data.views["local"].crop.scale == (0.05, s)
    assert config.data.background.p_pos == p_pos
    assert config.data.background.warmup_epochs == 5


def test_a_supervised_network_is_fine_tuned() -> None:
    """Appendix A.4.2: .0005 per 256 photos, a cosine from the start, the rest as in training."""
    config = read_recipe(CONFIGS / "supervised_finetune_none.yaml")
    assert (config.method.name, config.epochs, config.data.batch_size) == ("supervised", 20, 4096)
    rates = [config.optim.lr_at(step, 2000, 100, 4096) for step in (0, 1000, 2000)]
    assert rates == pytest.approx([0.008, 0.004, 0])
    assert (config.optim.weight_decay, config.optim.momentum) == (1e-4, 0.9)
    assert config.data.background.kind == "none"


def test_small_swav_is_the_originals_for_small_batches() -> None:
    config = read_recipe(CONFIGS / "swav_small.yaml")
    options = config.method
    assert (options.queue, options.queue_from_epoch, options.freeze_prototypes_steps) == (3840, 15, 5005)
    assert config.optim.lr_at(0, 5005 * 100, 5005, 256) == pytest.approx(0.6)


@pytest.mark.parametrize("name", RECIPES)
def test_every_file_is_a_recipe_that_copies_nothing(name: str) -> None:
    """It is valid, extends others, and says nothing that the one file it extends has said."""
    path = CONFIGS / f"{name}.yaml"
    read_recipe(path)
    own = yaml.safe_load(path.read_text())
    parents = own.pop("extends")
    if isinstance(parents, str):
        assert set(_leaves(own)).isdisjoint(_leaves(read_yaml(CONFIGS / parents)))


def _leaves(values: Any, name: str = "") -> list[tuple[str, str]]:
    if not isinstance(values, dict):
        return [(name, repr(values))]
    return [leaf for key, value in values.items() for leaf in _leaves(value, f"{name}.{key}")]


Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """`python -m train WORDS` in this process: exit status, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train", *words])
        try:
            run_program(main, "")
            status = 0
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methd.queue=32"], "methd: unknown key"),
        (["method.queu=32"], "queu: unknown key"),
        (["data.backgroud.p_pos=1"], "moco_v2.yaml data.backgroud.p_pos=1:\n  data.backgroud: unknown key"),
        (["method.name=mocov2"], "'moco_v2'"),
        (["method.name=byol"], "byol"),
        (["data.pipeline=byol", "data.background.kind=rm"], "method.name=moco_v2 takes the views of moco_v2"),
        (["data.batch_size='8'"], "data.batch_size='8'"),
        (["method.queue=33"], "method.queue=33: must be a multiple of the batch, data.batch_size=8"),
        (["optim.warmup_epochs=9"], "optim.warmup_epochs=9"),
        (["optim.schedule=steps", "optim.milestones=[99]"], "optim.milestones=99"),
        (["data.shards=/nowhere"], "data.shards=/nowhere: does not exist"),
        (["data.batch_size=64", "method.queue=64"], "data.batch_size=64"),
        (["accumulate=3"], "accumulate=3: must divide data.batch_size=8"),
        (["accumulate=2"], "accumulate=2, method.bn_group=4: keys cannot be shuffled"),
        (["method.bn_group=3"], "method.bn_group=3: must divide a rank's batch, 8"),
        (["backbone=alexnet"], "data.views.query.crop.size=32: backbone=alexnet needs 63 pixels"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["--resume"], "has no checkpoint"),
        (["--init", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
        (["--resume", "--auto-resume"], "not allowed with"),
    ],
)
def test_bad_options_are_one_message(
    textured: Path, tmp_path: Path, program: Program, words: list[str], message: str
) -> None:
    recipe = write_recipe(tmp_path, textured)
    status, _, error = program("--config", str(recipe), "--out", str(tmp_path / "out"), *words)
    assert status == 2
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("epoch=1", " (did you mean epochs?)"),
        ("data.backgroud.p_pos=1", " (did you mean background?)"),
        ("data.views.key.crop.siz=1", " (did you mean size?)"),
        ("method.queu=1", " (did you mean queue?)"),
        ("method.prototypes=1", ""),  # SwAV's
    ],
)
def test_the_nearest_key_is_suggested(
    textured: Path, tmp_path: Path, program: Program, word: str, meant: str
) -> None:
    recipe = write_recipe(tmp_path, textured)
    error = program("--config", str(recipe), word)[2]
    assert error.endswith(f"remove it or correct its spelling{meant}\n")


def test_print_shows_the_resolved_config(textured: Path, tmp_path: Path, program: Program) -> None:
    recipe = write_recipe(tmp_path, textured)
    words = ["--config", str(recipe), "--out", str(tmp_path / "out"), "--print", "optim.lr=5e-1"]
    shown = json.loads(program(*words, "--init", "a/run")[1])
    assert shown["init"] == "a/run"
    assert shown["optim"]["lr"] == 0.5
    assert shown["method"]["queue"] == 32
    assert shown["data"]["background"]["kind"] == "swaps"
    assert not (tmp_path / "out").exists()


def test_what_may_change_on_resume() -> None:
    assert free_fields(RunConfig) == {
        *("init", "compile", "knn", "log_every", "checkpoint_every", "keep_checkpoints"),
        *("keep_every_epochs", "timeout_s"),
    }
    assert free_fields(ProbeOptions) == {"checkpoint", "pretraining", "recipe"}
    expected = {"shards", "cache", "cache_gb", "threads", "prefetch", "verify", "reader_depth", "preallocate"}
    assert expected == FREE


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("timeout_s=7", True),
        ("knn.every_epochs=0", True),
        ("data.shards=elsewhere", True),
        ("data.preallocate=[640, 480]", True),
        ("data.device=cpu", False),
        ("data.hw_decoder_load=0.5", False),
        ("optim.lr=0.5", False),
        ("seed=1", False),
    ],
)
def test_the_identity_of_a_run(word: str, same: bool) -> None:
    recipe = CONFIGS / "moco_v2_full_swaps.yaml"
    before, after = (read_recipe(recipe, "data.shards=here", *words).identity() for words in ((), (word,)))
    assert (before == after) is same


def test_the_learning_rate_follows_the_batch() -> None:
    options = OptimOptions(lr=0.03)
    assert options.lr_at(0, 100, 10, 512) == pytest.approx(0.06)


def test_a_name_does_not_act_on_the_terminal(program: Program, tmp_path: Path) -> None:
    """Clearing the screen, or beginning a line that looks like one of the program's."""
    name = "a\x1b[2J\nerror: all is lost\r\x9b1m.yaml"
    status, _, error = program("--config", str(tmp_path / name))
    assert status == 2
    assert error.startswith("error: ")
    assert [line.startswith("  ") for line in error.splitlines()] == [False, True]
    assert all(char.isprintable() or char == "\n" for char in error)
    assert r"a\x1b[2J" in error
