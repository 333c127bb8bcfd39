"""What a cluster needs and what binds it, from literal benchmarks; the check; refusals; the program."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from dali_bgaug.errors import UserError
from tools.bench import plan as planning
from tools.bench.plan import BUSY, RATE, STORAGE, THREADS, Benchmark, Cluster, Plan, check, plan, read_row


def _row(stage: str, rate: float, cpu_ms: float, size: float | None, **others: Any) -> dict[str, Any]:
    rates = {"median": rate, "low": rate - 10, "high": rate + 10}
    row = {"stage": stage, "images_per_s": rates, "cpu_ms_per_image": cpu_ms, "bytes_per_image": size}
    return {"pipeline": "moco_v2", **row, "peak_rss_mb": None, **others}


def _benchmark(**others: Any) -> dict[str, Any]:
    return {
        "machine": {"device": "cpu", "cpus": 2, "dali": "2.4.0"},
        "config": {"moco_v2": {"batch_size": 64, "threads": 2}, "swav": {"batch_size": 64, "threads": 2}},
        "rows": [
            _row("decode", 1600, 1.2, 80_000, pipeline="-"),
            _row("plain", 400, 4.8, 80_000),
            _row("bg_random", 320, 6, None),
            _row("bg_swaps", 250, 7.2, 100_000),
            _row("torchvision", 160, 12, None),
            _row("bg_random", 200, 10, 100_000, pipeline="swav"),
        ],
    } | others


GPU = {"device": "NVIDIA H100", "cpus": 16}


def _plan(name: str = "moco_v2/bg_swaps", benchmark: dict[str, Any] | None = None, **flags: Any) -> Plan:
    """Of 16 GPUs in two nodes, each of which trains 1000 images/s, on a million photos."""
    measured = Benchmark.model_validate(benchmark or _benchmark())
    row = next(row for row in measured.rows if row.name == name)
    values = {"images": 1_000_000, "gpus": 16, "gpus_per_node": 8, "images_per_second": 1000.0}
    return plan(Cluster(**values | flags), measured, row)


def test_what_a_gpu_a_node_and_the_cluster_need() -> None:
    result = _plan()
    assert list(result.needs) == [RATE, BUSY, THREADS, STORAGE]
    assert result.needs[RATE] == (1000, 8000, 16000)
    assert result.needs[BUSY] == pytest.approx((7.2, 57.6, 115.2))
    assert result.needs[THREADS] == pytest.approx((8, 64, 128))  # 125 images/s a thread
    assert result.needs[STORAGE] == pytest.approx((100, 800, 1600))
    assert result.disk_gb == pytest.approx(100)
    assert (result.fits_in_ram, result.epochs_to_cache, result.days) == (None, None, None)
    assert result.limits == {"model": (16000, 1)}
    assert result.epochs_per_day == pytest.approx(1382.4)


@pytest.mark.parametrize(
    ("flags", "shares", "advice", "epochs_per_day"),
    [
        (
            {"cpus_per_node": 128, "storage_mb_per_second": 3200.0},
            {"model": 1, "CPU": 2, "storage": 2},
            "the model binds first: nothing else that was given delivers less",
            1382.4,
        ),
        (
            {"cpus_per_node": 32, "storage_mb_per_second": 1200.0},
            {"model": 1, "CPU": 0.5, "storage": 0.75},
            "the CPU binds first: give a node 64 threads instead of 32",
            691.2,
        ),
        (
            {"cpus_per_node": 32, "storage_mb_per_second": 400.0},
            {"model": 1, "CPU": 0.5, "storage": 0.25},
            "the storage binds first: raise it to 1600 MB/s, or cache 100 GB in each node",
            345.6,
        ),
    ],
)
def test_the_scarcest_resource_binds(
    flags: dict[str, Any], shares: dict[str, float], advice: str, epochs_per_day: float
) -> None:
    result = _plan(**flags)
    assert {name: share for name, (_, share) in result.limits.items()} == pytest.approx(shares)
    assert {name: rate / 16000 for name, (rate, _) in result.limits.items()} == pytest.approx(shares)
    assert result.binds == min(shares, key=shares.__getitem__)
    assert result.advice.startswith(advice)
    assert result.epochs_per_day == pytest.approx(epochs_per_day)


def test_a_stage_that_reads_less_still_needs_the_whole_shards_on_disk() -> None:
    result = _plan("moco_v2/plain")
    assert result.needs[STORAGE][0] == pytest.approx(80)
    assert result.disk_gb == pytest.approx(100)


def test_a_row_without_bytes_is_taken_to_read_everything() -> None:
    assert _plan("moco_v2/bg_random").needs[STORAGE][0] == pytest.approx(100)


def test_without_any_bytes_only_the_rest_is_planned() -> None:
    benchmark = _benchmark(rows=[_row("bg_swaps", 250, 7.2, None)])
    result = _plan(benchmark=benchmark, cpus_per_node=32)
    assert (list(result.needs), result.disk_gb, result.binds) == ([RATE, BUSY, THREADS], None, "CPU")
    for name, flag in (
        ("storage_mb_per_second", "--storage-mb-per-second=5"),
        ("ram_gb_per_node", "--ram-gb"),
    ):
        with pytest.raises(UserError, match=f"^{flag}.*: --measured has no bytes_per_image; .* make bench"):
            _plan(benchmark=benchmark, **{name: 5.0})


def test_a_set_in_ram_is_read_once_a_node_and_then_the_storage_idles() -> None:
    """An epoch takes 62.5 s by the models; the storage, at a quarter, slows it by 4, then 2, then no more:
    half of what a node has not read comes new to it in the first epoch, a quarter in the second."""
    result = _plan(storage_mb_per_second=400.0, ram_gb_per_node=100.5, epochs=4)
    assert (result.fits_in_ram, result.epochs_to_cache, result.binds) == (True, 7, "model")
    assert result.limits["storage"] == pytest.approx((4000, 0.25))
    assert result.days == pytest.approx(62.5 * (4 + 2 + 1 + 1) / 86400)
    alone = _plan(
        gpus=8, storage_mb_per_second=400.0, ram_gb_per_node=100.5, epochs=4
    )  # at one half, of 125 s
    assert alone.epochs_to_cache == 1
    assert alone.days == pytest.approx(125 * (2 + 1 + 1 + 1) / 86400)


def test_a_set_too_large_for_ram_is_read_every_epoch() -> None:
    result = _plan(storage_mb_per_second=400.0, ram_gb_per_node=99.5, epochs=4)
    assert (result.fits_in_ram, result.epochs_to_cache, result.binds) == (False, None, "storage")
    assert result.days == pytest.approx(1000 / 86400)


def test_a_node_that_is_not_full_and_one_that_is_the_last() -> None:
    assert _plan(gpus=4).needs[RATE] == (1000, 4000, 4000)
    assert _plan(gpus=12).needs[RATE] == (1000, 8000, 12000)


def test_more_threads_than_cpus_are_no_more_than_the_cpus() -> None:
    result = _plan(benchmark=_benchmark(config={"moco_v2": {"threads": 8}}))
    assert result.needs[THREADS][0] == pytest.approx(8)


def test_cpu_time_counts_where_a_thread_keeps_more_than_one_cpu_busy() -> None:
    benchmark = _benchmark(config={"moco_v2": {"threads": 1}})
    result = _plan(benchmark=benchmark, cpus_per_node=48)
    assert result.needs[THREADS][1] == pytest.approx(32)
    assert result.limits["CPU"][1] == pytest.approx(48 / 57.6)


def test_on_a_gpu_the_measured_rate_limits_and_cpu_time() -> None:
    benchmark = _benchmark(machine=GPU, rows=[_row("bg_swaps", 800, 0.5, 100_000)])
    result = _plan(benchmark=benchmark, cpus_per_node=16)
    assert list(result.needs) == [RATE, BUSY, STORAGE]
    assert result.limits == {"model": (16000, 1), "loader": (12800, 0.8), "CPU": (64000, 4)}
    assert result.advice.startswith("the loader binds first: a GPU made 800 images/s")


def test_a_node_has_a_cpu_for_each_gpu() -> None:
    assert _plan(cpus_per_node=8).binds == "CPU"
    assert _plan(gpus=4, cpus_per_node=4).binds == "CPU"
    with pytest.raises(UserError, match="--cpus-per-node=7: fewer than a node's 8 GPUs"):
        _plan(cpus_per_node=7)


SCALING = [
    _row("bg_swaps", 125, 7.0, None, threads=1),
    _row("bg_swaps", 200, 7.2, None, threads=2),
    _row("bg_swaps", 250, 7.2, None, threads=4),
    _row("plain", 999, 7.2, None, threads=2),
]


def test_rates_are_predicted_from_cpu_time_and_from_one_thread() -> None:
    measured = Benchmark.model_validate(_benchmark(scaling=SCALING))
    busy, two, four = check(measured, measured.rows[3])
    assert busy == {
        "what": "2 CPUs, all busy",
        "predicted": pytest.approx(277.7778),
        "median": 250,
        "low": 240,
        "high": 260,
        "ratio": pytest.approx(1.111111),
    }
    assert (two["what"], two["predicted"], two["ratio"]) == ("2 threads, from 1", 250, 1.25)
    assert (four["what"], four["predicted"], four["ratio"]) == ("4 threads, from 1", 250, 1)  # on 2 CPUs


def test_a_gpu_is_predicted_from_its_scaling_only() -> None:
    measured = Benchmark.model_validate(_benchmark(machine=GPU, scaling=SCALING))
    assert [(one["what"], one["predicted"]) for one in check(measured, measured.rows[3])] == [
        ("2 threads, from 1", 250),
        ("4 threads, from 1", 500),
    ]
    assert check(measured, measured.rows[1]) == []  # has no rate with one thread


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["plan", *words])
    planning.main()


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(_benchmark(scaling=SCALING)))
    return path


def test_the_program_prints_a_table_and_writes_json(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "--images=1000000 --gpus=16 --images-per-second=1000 --cpus-per-node=64 --storage-mb-per-second=400"
    )
    out = measured.with_name("plan.json")
    _run(
        monkeypatch,
        f"--measured={measured}",
        *words.split(),
        "--ram-gb-per-node=512",
        "--epochs=4",
        f"--json={out}",
    )
    cells = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    rows = {row[0]: row[1:] for row in cells if len(row) > 1}
    assert rows["images/s"] == ["1000", "8000", "16000"]
    assert rows["CPU threads, all busy"] == ["7.2", "57.6", "115"]
    assert rows["CPU threads, as busy as measured"] == ["8", "64", "128"]
    assert rows["storage MB/s, nothing cached"] == ["100", "800", "1600"]
    assert [rows[name] for name in ("model", "CPU", "storage")] == [
        ["1.00", "16000"],
        ["1.00", "16000"],
        ["0.25", "4000"],
    ]
    [*_, shards, ram, binds, days] = [row[0] for row in cells]
    assert "100.0 GB" in shards and "99 %" in ram and "epoch 7" in ram and binds.startswith("the model binds")
    assert re.findall(r"[\d.]+", days) == ["1382", "0.00579", "4"]
    result = json.loads(out.read_text())
    assert (result["pipeline"], result["gpus"], result["binds"]) == ("moco_v2/bg_swaps", 16, "model")
    assert result["limits"]["storage"] == [4000, 0.25]


def test_the_program_checks_a_benchmark(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(monkeypatch, f"--measured={measured}", "--check")
    _, *rows, _, busy = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["2 CPUs, all busy", "278", "250", "240", "260", "1.11"],
        ["2 threads, from 1", "250", "200", "190", "210", "1.25"],
        ["4 threads, from 1", "250", "250", "240", "260", "1.00"],
    ]
    assert "0.90" in busy[0]
    measured.write_text(json.dumps(_benchmark(machine=GPU)))
    _run(monkeypatch, f"--measured={measured}", "--check")
    assert "CPU time does not set the rate on NVIDIA H100: measure with device=cpu" in capsys.readouterr().out


def test_the_default_row_is_the_fullest_background_of_the_first_pipeline(measured: Path) -> None:
    assert read_row(measured, None)[1].name == "moco_v2/bg_swaps"
    assert read_row(measured, "swav/bg_random")[1].median == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--images-per-second=0", "--images-per-second=0: .* greater than 0"),
        ("--images-per-second=nan", "--images-per-second=nan: .* finite"),
        ("--images-per-second=9 --gpus=-8", "--gpus=-8: .* greater than 0"),
        ("--images-per-second=9 --epochs=1.5", "--epochs=1.5: .* integer"),
        ("", "--images-per-second=: Field required; --help"),
        (
            "--pipeline=moco_v2/bg_rm --check",
            "--pipeline=moco_v2/bg_rm: .*there are -/decode, moco_v2/plain, ",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(
    words: str, message: str, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=message):
        _run(monkeypatch, f"--measured={measured}", *words.split())


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"rows": []}', json.dumps(_benchmark(rows=[{"stage": "x"}]))]
)
def test_a_file_that_is_no_benchmark_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"--measured={path}: no .*; run make bench"):
        read_row(path, None)


def test_a_benchmark_without_backgrounds_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(_benchmark(rows=[_row("plain", 400, 4.8, None)])))
    with pytest.raises(UserError, match="--pipeline=moco_v2/bg_…: .*there are moco_v2/plain"):
        read_row(path, None)


def test_the_disk_is_that_of_whole_shards_where_the_benchmark_says_it() -> None:
    result = _plan(benchmark=_benchmark(data={"photos": 1000, "mb": 110.0}))
    assert result.disk_gb == pytest.approx(110)
    assert result.needs[STORAGE] == pytest.approx((100, 800, 1600))  # of what the row reads


def test_the_rate_of_a_held_batch_comes_from_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    train = {"ranks": 2, "images_per_s": {"held": 2400.0, "loader": 1}}
    path.write_text(json.dumps(_benchmark(train=train)))
    with pytest.raises(UserError, match="--images-per-second"):  # a CPU's is no GPU's
        _run(monkeypatch, f"--measured={path}", "--gpus=4")
    path.write_text(json.dumps(_benchmark(train=train, machine=GPU)))
    _run(monkeypatch, f"--measured={path}", "--gpus=4")
    assert capsys.readouterr().out.splitlines()[1].split() == ["images/s", "1200", "4800", "4800"]


def test_a_log_of_the_cluster_says_what_its_gpus_train(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two GPUs train 1500 images/s, and the slower loader is waited for a quarter of the time."""
    log, out = measured.with_name("log.jsonl"), measured.with_name("plan.json")
    ranks = {"data_wait": [0.05, 0.25], "step_s": [0.3, 0.2], "probe_ms": [0.5, 0.5], "memory_mb": [9, 9]}
    lines = [{"step": step, "images_per_s": 1500.0, "ranks": ranks} for step in (10, 20)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _run(monkeypatch, f"--measured={measured}", f"--log={log}", "--gpus=4", f"--json={out}")
    said, late, _, _, rate, *_ = capsys.readouterr().out.splitlines()
    assert said.startswith("measured on 2 GPUs: 750 images/s a GPU, 25% of the time waiting for data; 1000 ")
    assert late.startswith("rank 1: waits for data 25% of the time, the median rank 5%")
    assert rate.split() == ["images/s", "1000", "4000", "4000"]
    assert json.loads(out.read_text())["log"] == {"images_per_second": 750, "data_wait": 0.25, "ranks": 2}
