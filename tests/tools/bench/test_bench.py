"""The benchmark's result: every stage measured, ratios of the same run, the modes, the page."""

import contextlib
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json
from dali_bgaug.reading import Reader
from dali_bgaug.shards import open_shards
from pipelines import LoaderConfig
from tests.helpers import programs
from tests.helpers.bench import values
from tools.bench import __main__ as bench
from tools.bench import feeding, measure, page, profile, startup, sweep
from tools.bench.stages import TorchvisionStage, our_stage
from tools.bench.timing import Rounds, cpu_seconds, interleave


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    bench.main()


def test_every_stage_is_measured_and_ratios_are_of_this_run(textured: Path) -> None:
    options = measure.Options(rounds=2, batches=3, pipelines=["moco_v2", "supervised"], cold=False)
    result = measure.measure(values(textured), options)
    assert not multiprocessing.active_children()
    assert json.loads(json.dumps(result)) == result
    rows = {(row["pipeline"], row["stage"]): row for row in result["rows"]}
    moco, supervised = ["plain", "bg_rm", "bg_random", "bg_swaps"], ["plain", "bg_rm", "bg_random"]
    assert list(rows) == [
        *(("-", stage) for stage in ("read", "decode")),
        *(("moco_v2", stage) for stage in (*moco, "torchvision", "dali", "webdataset")),
        *(("supervised", stage) for stage in (*supervised, "torchvision")),
    ]
    for (pipeline, stage), row in rows.items():
        rate = row["images_per_s"]
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
        assert row["cpu_ms_per_image"] > 0
        views = {"moco_v2": 3 if stage in ("bg_swaps", "torchvision") else 2, "supervised": 1, "-": 0}[
            pipeline
        ]
        assert row["views_per_s"] == pytest.approx(views * rate["median"], rel=1e-3)
        assert row["mb_per_s"] == pytest.approx(row["bytes_per_image"] * rate["median"] / 1e6, rel=0.05)
        assert row["threads"] == 2
    rate = {key: row["images_per_s"]["median"] for key, row in rows.items()}
    swaps, plain = rate["moco_v2", "bg_swaps"], rate["moco_v2", "plain"]
    [slow, fast] = [row for row in result["scaling"] if row["pipeline"] == "moco_v2"]
    assert (slow["threads"], fast["threads"]) == (1, 2)
    assert fast["images_per_s"]["median"] == swaps
    assert result["ratios"]["moco_v2/bg_swaps"] == {
        "full_over_decode": pytest.approx(swaps / rate["-", "decode"], rel=1e-2),
        "with_over_without": pytest.approx(swaps / plain, rel=1e-2),
        "over_torchvision": pytest.approx(swaps / rate["moco_v2", "torchvision"], rel=1e-2),
        "threads_2_over_1": pytest.approx(swaps / slow["images_per_s"]["median"], rel=1e-2),
    }
    assert result["ratios"]["moco_v2/plain"] == {
        "full_over_decode": pytest.approx(plain / rate["-", "decode"], rel=1e-2),
        "with_over_without": 1.0,
        "over_dali": pytest.approx(plain / rate["moco_v2", "dali"], rel=1e-2),
        "over_webdataset": pytest.approx(plain / rate["moco_v2", "webdataset"], rel=1e-2),
    }
    for name, ratios in result["ratios"].items():
        for ratio, value in ratios.items():
            low, high = result["ratio_intervals"][name][ratio]
            assert low <= value <= high
    compared = [name for name, ratios in result["ratios"].items() if "over_torchvision" in ratios]
    assert compared == ["moco_v2/bg_swaps", "supervised/bg_random"]
    assert result["config"]["moco_v2"]["background"]["kind"] == "swaps"
    assert result["config"]["supervised"]["views"]["image"]["crop"]["fg_min"] == 0.1
    assert result["machine"]["device"] == "cpu"
    assert result["data"]["photos"] == 50
    assert set(result["cannot"]) == {"dali", "webdataset"}


def test_medians_ratios_and_intervals_of_given_rounds() -> None:
    times = Rounds(
        {"fast": [0.1, 0.2, 0.1, 0.1, 0.1], "slow": [0.4, 0.4, 0.8, 0.4, 0.4]},
        {"fast": [0.1, 0.3, 0.2, 0.2, 0.2], "slow": [1, 1, 1, 1, 1]},
    )
    assert times.rate("fast", 10) == {"median": 100, "low": 50, "high": 100}
    assert times.ratio("fast", "slow") == {"median": 4, "low": 2, "high": 8}
    assert times.cpu_median("fast") == 0.2


def test_stages_take_turns_and_each_has_all_rounds() -> None:
    calls: list[tuple[str, int]] = []

    class Counting:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, batches: int) -> int:
            calls.append((self.name, batches))
            return batches + 1

    interleave({name: Counting(name) for name in "abc"}, 4, 5)
    rounds = [sorted(name for name, _ in calls[start : start + 3]) for start in range(0, 12, 3)]
    assert rounds == [["a", "b", "c"]] * 4
    assert {batches for _, batches in calls} == {5}
    calls.clear()
    assert interleave({"a": Counting("a")}, 4, 5, limit_s=0).count == 1  # one round at least


def test_cpu_time_of_workers_counts_while_they_live() -> None:
    def burn(ready: Any, go: Any) -> None:
        sum(range(10_000_000))
        ready.set()
        go.wait()

    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    before = cpu_seconds()
    child = context.Process(target=burn, args=(ready, go))
    child.start()
    ready.wait(60)
    taken = cpu_seconds() - before
    go.set()
    child.join()
    assert taken > 0.1


def test_the_program_writes_what_it_prints_and_modes_add_to_it(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sub" / "bench.json"
    common = [f"--shards={textured}", f"--json={path}", "--rounds=1", "--batches=2", "--pipelines=byol"]
    common += ["batch_size=8", "device=cpu", "threads=1", "crop.size=32"]
    _run(monkeypatch, *common, "--no-torchvision", "--no-cold")
    result = json.loads(path.read_text())
    assert [row["stage"] for row in result["rows"]] == ["read", "decode", "plain", "bg_rm", "bg_random"]
    assert result["command"] == (
        "python -m tools.bench --shards=SHARDS --json=bench.json --rounds=1 --batches=2 --pipelines=byol "
        "batch_size=8 device=cpu threads=1 crop.size=32 --no-torchvision --no-cold"
    )
    assert page.table(result) in capsys.readouterr().out
    assert path.with_suffix(".png").stat().st_size > 10_000
    _run(monkeypatch, *common, "--memory=20")
    assert "Memory of byol/bg_random over 20 batches:" in capsys.readouterr().out
    both = json.loads(path.read_text())
    assert both["rows"] == result["rows"]
    assert (both["memory"]["loader"], both["memory"]["batches"]) == ("byol/bg_random", 20)  # in epochs of 6
    assert 50 < both["memory"]["first_mb"] <= both["memory"]["max_mb"] < 10_000
    assert list(both["memory"]["mb"].values())[-1] == pytest.approx(both["memory"]["last_mb"], abs=0.6)
    text = path.with_suffix(".md").read_text()
    assert page.table(both) in text
    path.with_suffix(".md").unlink()
    monkeypatch.setattr(sys, "argv", ["page", str(path)])
    page.main()
    assert path.with_suffix(".md").read_text() == text


@pytest.mark.slow
def test_a_stage_by_itself_in_a_fresh_process(textured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ask", programs.ask)
    config = LoaderConfig(**values(textured))
    key = measure.Key("moco_v2", "torchvision", 2)
    [found] = measure._cold({key: config}, measure.Options(batches=2)).values()
    assert 0 < found["first_batch_s"] < 60
    assert 50 < found["peak_rss_mb"] < 10_000
    assert found["gpu_mb"] is None


def test_nothing_is_measured_that_could_not_be_kept(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bench.json"
    words = [f"--shards={textured}", f"--json={path}", "--memory=20", "batch_size=8", "crop.size=32"]
    _run(monkeypatch, *words)
    first = read_json(path, "")
    assert set(first) == {"machine", "data", "memory"}
    monkeypatch.setattr(bench, "_mode", lambda *_: pytest.fail("measured in vain"))
    for change, name in (
        ({"machine": first["machine"] | {"cpus": 99}}, r"machine\.cpus=99"),
        ({"data": first["data"] | {"photos": 7}}, r"data\.photos=7"),
        ({"machine": None}, "no result"),
    ):
        text = json.dumps({key: value for key, value in (first | change).items() if value is not None})
        path.write_text(text)
        with pytest.raises(UserError, match=name):
            _run(monkeypatch, *words)
        assert path.read_text() == text


def test_the_profile_adds_up_to_the_loader(textured: Path) -> None:
    result = profile.measure(values(textured), "moco_v2", rounds=2, batches=2)
    assert [row["step"] for row in result["rows"]] == [
        "read",
        "decode",
        "crop and normalise",
        "jitter",
        "grayscale",
        "blur",
        "foreground-aware crop boxes",
        "masks and a grey behind (rm)",
        "tiles instead of grey (random)",
        "the tiles' jitter and blur",
        "matched negatives (swaps)",
    ]
    last = result["rows"][-1]["images_per_s"]["median"]
    assert sum(row["adds_ms"]["median"] for row in result["rows"]) == pytest.approx(1000 / last, rel=1e-2)
    assert sum(row["share"] for row in result["rows"]) == pytest.approx(1, abs=1e-2)


def test_a_profile_has_only_the_steps_its_method_has(textured: Path) -> None:
    rotnet = profile.steps(values(textured), "rotnet")
    assert list(rotnet) == [
        "crop and normalise",
        "foreground-aware crop boxes",
        "masks and a grey behind (rm)",
        "tiles instead of grey (random)",
    ]
    assert "solarize" in profile.steps(values(textured), "byol")
    swaps = profile.steps(values(textured), "moco_v2")["matched negatives (swaps)"]
    assert swaps == measure.stage_configs(values(textured), "moco_v2")["bg_swaps"]


def test_a_sweep_keeps_the_best_value_and_prints_config_lines(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def rates(values: dict[str, Any], _: str, name: str, candidates: list[Any], *__: Any) -> dict[Any, Any]:
        seen.append({**values, name: candidates})
        return {
            value: {"median": median, "low": median, "high": median}
            for value, median in zip(candidates, (100.0, 120.0, 122.0))
        }

    monkeypatch.setattr(sweep, "_rates", rates)
    path = tmp_path / "sweep.json"
    words = ["--sweep", "threads=1,2,4", "hw_decoder_load=0,.5", "batch=8,16", "prefetch=2", "device=cpu"]
    _run(monkeypatch, f"--shards={textured}", f"--json={path}", *words)
    found = json.loads(path.read_text())["sweep"]
    assert found["config"] == ["data.threads=2", "data.batch_size=16"]  # 4 is less than 2 % faster than 2
    assert found["skipped"] == ["hw_decoder_load"]
    assert [values["threads"] for values in seen] == [[1, 2, 4], 2]
    assert {values["prefetch"] for values in seen} == {2}  # one value alone is the config's
    assert "    data.threads=2" in capsys.readouterr().out


def test_a_real_sweep(textured: Path) -> None:
    result = sweep.measure(values(textured), "supervised", ["prefetch=1,2"], rounds=1, batches=2)
    assert [(row["setting"], row["value"]) for row in result["rows"]] == [("prefetch", 1), ("prefetch", 2)]
    assert [row["best"] for row in result["rows"]].count(True) == 1


def test_a_large_set_repeats_the_samples_of_the_real_one(textured: Path) -> None:
    with startup.large_set(textured, 2500) as folder:
        manifest = open_shards(folder, False, "--shards")
        assert (manifest.samples, len(manifest.shards)) == (2500, 3)
        config = LoaderConfig.model_validate(values(textured) | {"shards": folder, "verify": False})
        with measure.contextlib.ExitStack() as stack:
            key = measure.Key("moco_v2", "plain", 2)
            assert measure.open_stage(key, config, None, None, stack).run(3) == 3


@pytest.mark.slow
def test_starting_a_large_set_is_timed(textured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "ask", programs.ask)
    found = startup.measure(values(textured), "moco_v2", 5000)
    assert (found["loader"], found["samples"]) == ("moco_v2/bg_swaps", 5000)
    assert 0 < found["build_s"] <= found["first_batch_s"] < 30
    assert found["peak_rss_mb"] > 50


@pytest.mark.slow
def test_training_is_compared_with_a_held_batch(
    textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "start", programs.start)
    path = tmp_path / "train.json"
    words = [
        "--train",
        "configs/supervised_demo.yaml",
        "--rounds=1",
        "--batches=2",
        "batch_size=16",
        "device=cpu",
    ]
    _run(monkeypatch, f"--shards={textured}", f"--json={path}", *words, "crop.size=32")
    found = json.loads(path.read_text())["train"]
    assert (found["config"], found["method"], found["batch_size"]) == (
        "supervised_demo.yaml",
        "supervised",
        16,
    )
    assert set(found["steps_per_s"]) == {"loader", "held"}
    assert found["loader_over_held"] == pytest.approx(
        found["steps_per_s"]["loader"] / found["steps_per_s"]["held"], rel=1e-2
    )
    assert 0 <= found["waiting"] < 1


def test_the_reference_makes_the_batches_of_its_round_and_no_more(textured: Path) -> None:
    changed = values(textured) | {"background": {"kind": "swaps"}}
    with TorchvisionStage(LoaderConfig(**changed), 2, torch.device("cpu")) as stage:
        made = []
        for batches in (1, 9):
            made.append(stage.run(batches))
            workers = {child.pid for child in multiprocessing.active_children()}
        assert made == [4, 10]  # two a worker at least, as many by each
        epoch, number, _ = next(stage._round._plans)
        assert (epoch, number) == (2, 2)  # 14 are made, in epochs of 6
        assert len(workers) == 2
    assert not multiprocessing.active_children()


def test_a_loaders_stage_reads_what_its_round_takes_and_no_more(
    textured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def count(name: str) -> None:
        right = getattr(Reader, name)
        monkeypatch.setattr(Reader, name, lambda reader: (calls.append(name), right(reader))[1])

    count("schedule")
    count("take")
    config = LoaderConfig(**values(textured), prefetch=3, background={"kind": "random"})
    with contextlib.ExitStack() as stack:
        stage = our_stage("bg_random", config, None, stack)
        assert calls == ["schedule", "take", "take", "take"]  # the first schedules as many as are prefetched
        for batches in (1, 3, 7):
            calls.clear()
            assert stage.run(batches) == batches
            assert calls.count("schedule") == calls.count("take") == batches
            assert calls[: min(batches, 3) + 1] == ["schedule"] * min(batches, 3) + ["take"]


@pytest.mark.parametrize(
    "words",
    [
        "--pipelines=evaluation",
        "--pipelines=moco_v2,mocco",
        "pipeline=swav",
        "--memory=3",
        "--rounds=0",
        "--opponents=dali,dly",
        "--startup=0",
        "crop.fg_min=0.3 crop.size=32",
        "background.kind=rm --no-cold",
        "--sweep threads=1,two",
        "--sweep threads=2,2",
        "--no-cold batch_size=64",
    ],
)
def test_options_that_cannot_be_are_refused(
    words: str, textured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_path = tmp_path / "bench.json"
    with pytest.raises(
        UserError,
        match=words.rpartition(" ")[2].partition("=")[0] if "batch" in words else words.partition("=")[0],
    ):
        _run(monkeypatch, *words.split(), f"--shards={textured}", f"--json={json_path}")
    assert not json_path.exists()


@pytest.mark.parametrize("text", [None, "no json", "[]", '{"rows": []}'])
def test_a_file_that_is_no_result_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"bench\.json"):
        page.load(path)
