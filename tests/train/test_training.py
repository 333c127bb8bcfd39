"""Whole runs in real processes: same seed same losses, two ranks, kill -9 and resume, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from train.log import read_log

from dali_bgaug.config import override, read_yaml, validate
from dali_bgaug.errors import run_program
from tests.conftest import free_port
from train import checkpoint
from train.__main__ import main
from train.config import RunConfig
from train.distributed import process_group
from train.loop import _Run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SECONDS = 120


@pytest.fixture
def recipe(textured: Path, tmp_path: Path) -> Path:
    """A run of 24 steps (4 epochs of 6): seconds on a CPU."""
    values = {
        "extends": str(ROOT / "configs" / "moco_v2_demo.yaml"),
        "method": {"queue": 32, "dim": 16, "bn_group": 4},
        "data": {
            "shards": str(textured),
            "batch_size": 8,
            "crop": {"size": 32},
            "device": "cpu",
            "threads": 1,
        },
        "epochs": 4,
        "checkpoint_every": 5,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _command(recipe: Path, out: Path, *words: str, ranks: int = 1) -> list[str]:
    launch = ["-m", "train"]
    if ranks > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "train"]
    return [sys.executable, *launch, "--config", str(recipe), "--out", str(out), *words]


def _run(recipe: Path, out: Path, *words: str, ranks: int = 1) -> subprocess.CompletedProcess:
    command = _command(recipe, out, *words, ranks=ranks)
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS)


def _train(recipe: Path, out: Path, *words: str, ranks: int = 1) -> list[float]:
    result = _run(recipe, out, *words, ranks=ranks)
    assert result.returncode == 0, result.stderr[-3000:]
    return [line["loss"] for line in read_log(out / "log.jsonl")]


def test_the_same_seed_gives_the_same_losses_and_kill_9_loses_nothing(recipe: Path, tmp_path: Path) -> None:
    losses = _train(recipe, tmp_path / "a")
    assert len(losses) == 24
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path / "a" / "checkpoints")] == [
        "step-00000020.pt",
        "step-00000024.pt",
    ]
    lines = read_log(tmp_path / "a" / "log.jsonl")
    assert {"step", "epoch", "loss", "lr", "accuracy", "feature_std", "images_per_s", "data_wait"} == set(
        lines[0]
    )
    assert json.loads((tmp_path / "a" / "config.json").read_text())["method"]["queue"] == 32

    killed = tmp_path / "b"
    process = subprocess.Popen(
        _command(recipe, killed), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + SECONDS
    while len(read_log(killed / "log.jsonl")) < 13:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = [line["loss"] for line in read_log(killed / "log.jsonl")]
    assert len(before) < 24
    assert before == losses[: len(before)]  # the same seed, the same losses

    assert _train(recipe, killed, "--resume") == losses


def _train_rank(number: int, recipe: str, out: str, resume: bool, port: int) -> None:
    os.environ.update(
        RANK=str(number), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1"
    )
    torch.set_num_threads(1)
    values = override(read_yaml(Path(recipe)), ["epochs=2", "seed=1"])
    with (
        process_group(torch.device("cpu")),
        _Run(validate(RunConfig, values, recipe), Path(out), resume, torch.device("cpu")) as run,
    ):
        run.all_epochs()
        state = run.method.state_dict()
    names = [
        name for name in state if "running" not in name and "tracked" not in name and "extra" not in name
    ]
    torch.save({name: state[name] for name in names}, f"{out}-{number}.pt")


def test_two_ranks_hold_the_same_and_resume(recipe: Path, tmp_path: Path) -> None:
    """Queue and weights of both ranks are equal to the bit; resumed, the same losses."""
    out = tmp_path / "run"
    mp.spawn(_train_rank, (str(recipe), str(out), False, free_port()), 2)
    first, second = (torch.load(f"{out}-{number}.pt", weights_only=True) for number in (0, 1))
    assert {"queue", "queue_ptr", "query_encoder.conv1.weight", "key_encoder.fc.2.bias"} <= set(first)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert first["queue_ptr"].tolist() == [12 * 8 % 32]
    losses = [line["loss"] for line in read_log(out / "log.jsonl")]
    assert len(losses) == 12
    checkpoints = checkpoint.list_checkpoints(out / "checkpoints")
    assert [path.name for path in checkpoints] == ["step-00000010.pt", "step-00000012.pt"]
    checkpoints[1].unlink()  # as if killed after step 10
    mp.spawn(_train_rank, (str(recipe), str(out), True, free_port()), 2)
    assert [line["loss"] for line in read_log(out / "log.jsonl")] == losses
    for name, tensor in torch.load(f"{out}-0.pt", weights_only=True).items():
        assert torch.equal(tensor, first[name]), name


def test_torchrun_and_a_changed_number_of_ranks(recipe: Path, tmp_path: Path) -> None:
    """Two ranks stop in mid-epoch: one cannot take over. They stop at its end: one goes on with the next."""
    words = ["data.crop.size=16", "keep_checkpoints=9"]
    assert len(_train(recipe, tmp_path / "a", "epochs=1", *words, ranks=2)) == 6
    checkpoints = tmp_path / "a" / "checkpoints"
    (checkpoints / "step-00000006.pt").rename(tmp_path / "end-of-epoch.pt")
    result = _run(recipe, tmp_path / "a", "epochs=1", "--resume", *words)
    assert result.returncode == 2
    assert "(batch 5 of 6), this is rank 0 of 1; the number of ranks can change between" in result.stderr
    (tmp_path / "end-of-epoch.pt").rename(checkpoints / "step-00000006.pt")
    result = _run(recipe, tmp_path / "a", "epochs=1", "--resume", *words)
    assert result.returncode == 0, result.stderr


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
        (["data.batch_size='8'"], "data.batch_size='8'"),
        (["method.queue=33"], "method.queue=33: must be divisible by data.batch_size=8"),
        (["optim.warmup_epochs=9"], "optim.warmup_epochs=9"),
        (["data.shards=/nowhere"], "data.shards=/nowhere: does not exist"),
        (["data.batch_size=64", "method.queue=64"], "data.batch_size=64"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["--resume"], "has no checkpoint"),
    ],
)
def test_bad_options_are_one_message(
    recipe: Path, tmp_path: Path, program: Program, words: list[str], message: str
) -> None:
    status, _, error = program("--config", str(recipe), "--out", str(tmp_path / "out"), *words)
    assert status == 2
    assert message in error
    assert not (tmp_path / "out").exists()


def test_an_unreadable_checkpoint_is_named(recipe: Path, tmp_path: Path, program: Program) -> None:
    folder = tmp_path / "out" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "step-00000005.pt"
    words = ["--config", str(recipe), "--out", str(tmp_path / "out"), "--resume"]
    executed = tmp_path / "executed"
    pickled = f"cos\nsystem\n(S'touch {executed}'\ntR.".encode()
    for content in (b"", b"not a checkpoint", pickled, b".", b"\x80", b"\x80\x02X"):
        path.write_bytes(content)
        status, _, error = program(*words)
        assert status == 2
        assert f"{path}: cannot be read as a checkpoint" in error
    assert not executed.exists()
    torch.save({"version": 1, "some": "thing"}, path)
    assert "not a checkpoint of version 1" in program(*words)[2]


def test_a_run_is_never_overwritten_or_mixed(recipe: Path, tmp_path: Path, program: Program) -> None:
    words = ["--config", str(recipe), "--out", str(tmp_path / "out"), "data.batch_size=16", "epochs=1"]
    assert program(*words)[0] == 0
    log = (tmp_path / "out" / "log.jsonl").read_text()
    assert len(log.splitlines()) == 3
    status, _, error = program(*words)
    assert status == 2
    assert "holds a run already" in error
    status, _, error = program(*words, "--resume", "epochs=2")
    assert status == 2
    assert "was made with another config" in error
    assert (tmp_path / "out" / "log.jsonl").read_text() == log


def test_print_shows_the_resolved_config(recipe: Path, tmp_path: Path, program: Program) -> None:
    words = ["--config", str(recipe), "--out", str(tmp_path / "out"), "--print", "optim.lr=5e-1"]
    shown = json.loads(program(*words)[1])
    assert shown["optim"]["lr"] == 0.5
    assert shown["method"]["queue"] == 32
    assert shown["data"]["background"]["kind"] == "swaps"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("moco_*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Path, program: Program) -> None:
    status, _, error = program("--config", str(path), "--print")
    assert status == 0, error
