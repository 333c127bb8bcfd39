"""The benchmark's result: every stage measured, ratios of the same run, memory, and the table of them."""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_bgaug.errors import UserError
from pipelines import LoaderConfig
from tools import bench
from tools.bench_stages import TorchvisionStage


def _values(shards: Path) -> dict[str, Any]:
    return {"shards": str(shards), "batch_size": 8, "device": "cpu", "threads": 2, "crop": {"size": 32}}


def test_every_stage_is_measured_and_ratios_are_of_this_run(textured: Path) -> None:
    result = bench.measure(_values(textured), rounds=2, batches=3, pipelines=["moco_v2", "supervised"])
    assert not multiprocessing.active_children()
    assert set(result) == {"machine", "rounds", "batches", "config", "rows", "ratios"}
    assert json.loads(json.dumps(result)) == result
    rows = {(row["pipeline"], row["stage"]): row for row in result["rows"]}
    moco, supervised = ["plain", "bg_rm", "bg_random", "bg_swaps"], ["plain", "bg_rm", "bg_random"]
    assert list(rows) == [
        *(("-", stage) for stage in ("read", "decode")),
        *(("moco_v2", stage) for stage in (*moco, "torchvision")),
        *(("supervised", stage) for stage in (*supervised, "torchvision")),
    ]
    for row in rows.values():
        assert set(row) == {"pipeline", "stage", "images_per_s", "cpu_ms_per_image"}
        assert 0 < row["images_per_s"]["low"] <= row["images_per_s"]["median"] <= row["images_per_s"]["high"]
        assert row["cpu_ms_per_image"] > 0
    rate = {key: row["images_per_s"]["median"] for key, row in rows.items()}
    swaps, plain = rate["moco_v2", "bg_swaps"], rate["moco_v2", "plain"]
    assert result["ratios"]["moco_v2/bg_swaps"] == {
        "full_over_decode": pytest.approx(swaps / rate["-", "decode"], rel=1e-2),
        "with_over_without": pytest.approx(swaps / plain, rel=1e-2),
        "over_torchvision": pytest.approx(swaps / rate["moco_v2", "torchvision"], rel=1e-2),
    }
    assert list(result["ratios"]) == [
        *(f"moco_v2/{stage}" for stage in moco),
        *(f"supervised/{stage}" for stage in supervised),
    ]
    compared = [name for name, ratios in result["ratios"].items() if "over_torchvision" in ratios]
    assert compared == ["moco_v2/bg_swaps", "supervised/bg_random"]
    assert result["config"]["moco_v2"]["background"]["kind"] == "swaps"
    assert result["config"]["supervised"]["views"]["image"]["crop"]["fg_min"] == 0.1
    assert result["machine"]["device"] == "cpu"
    table = bench.table(result)
    assert len(table.splitlines()) == 2 + 2 + len(rows)
    assert all(f"| {pipeline} | {stage} |" in table for pipeline, stage in rows)


def test_the_program_writes_what_it_prints_with_memory(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    options = f"--shards {textured} --json {path} --rounds 1 --batches 2 --memory 20 --no-torchvision"
    overrides = "batch_size=8 device=cpu threads=1 crop.size=32"
    monkeypatch.setattr(sys, "argv", ["bench", *options.split(), "--pipelines=byol", *overrides.split()])
    bench.main()
    result = json.loads(path.read_text())
    assert [row["stage"] for row in result["rows"]] == ["read", "decode", "plain", "bg_rm", "bg_random"]
    memory = result["memory"]
    assert set(memory) == {"loader", "batches", "first_mb", "last_mb", "max_mb", "slope_kb_per_batch"}
    assert (memory["loader"], memory["batches"]) == ("byol/bg_random", 20)  # in epochs of 6
    assert 50 < memory["first_mb"] <= memory["max_mb"] < 10_000
    printed = capsys.readouterr().out
    assert bench.table(result) in printed
    assert "Memory of byol/bg_random over 20 batches:" in printed


def test_the_yardstick_makes_the_batches_of_its_round_and_no_more(textured: Path) -> None:
    values = _values(textured) | {"background": {"kind": "swaps"}}
    with TorchvisionStage(LoaderConfig(**values), 2, torch.device("cpu")) as stage:
        made = []
        for batches in (1, 9):
            made.append(stage.run(batches))
            workers = {child.pid for child in multiprocessing.active_children()}
        assert made == [8, 10]  # four a worker at least, as many by each
        epoch, number, _ = next(stage._round._plans)
        assert (epoch, number) == (3, 0)  # 18 are made, in epochs of 6
        assert len(workers) == 2
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    "words",
    ["--pipelines=evaluation", "--pipelines=moco_v2,mocco", "pipeline=swav", "--memory=3", "--rounds=0"],
)
def test_options_that_cannot_be_are_refused(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", words])
    with pytest.raises(UserError, match=words.partition("=")[0]):
        bench.main()
