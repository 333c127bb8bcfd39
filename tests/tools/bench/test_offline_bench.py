"""The benchmark of the offline tools measures every tool against its baseline, and says so in a table."""

from pathlib import Path

from tests.helpers.detectors import network, scene
from tests.helpers.shards import save
from tools.bench.machine import machine
from tools.bench.offline_bench import measure, table


def test_every_tool_is_measured(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path, f"c/p{number}", *scene())
    weights = network(tmp_path / "n.onnx")
    rows = measure(tmp_path / "photos", tmp_path / "masks", weights, rounds=2)
    assert [row["tool"] for row in rows] == ["masks", "tiles", "shards", "rbd", "u2net"]
    for row in rows:
        assert row["photos"] == (12 if row["tool"] in ("rbd", "u2net") else 16)  # four of each
        assert row["photos_per_s"] > 0
        if row["tool"] != "rbd":
            assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    text = table({"machine": machine(None), "rounds": 2, "rows": rows})
    assert "| shards | " in text
    assert "| tar and the training decoder |" in text
