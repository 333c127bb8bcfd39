"""The benchmark's result: every stage measured, ratios of the same run."""

from pathlib import Path

import pytest

from tools.bench import measure, table


def test_every_stage_is_measured_and_ratios_are_of_this_run(textured: Path) -> None:
    values = {"shards": str(textured), "batch_size": 8, "device": "cpu", "threads": 2, "crop": {"size": 32}}
    result = measure(values, rounds=2, batches=3)
    rate = {row["stage"]: row["images_per_s"] for row in result["rows"]}
    assert list(rate) == ["read", "decode", "plain", "bg_rm", "bg_random", "bg_swaps"]
    for spread in rate.values():
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    ratios = result["ratios"]["moco_v2/bg_swaps"]
    decode, plain, swaps = (rate[stage]["median"] for stage in ("decode", "plain", "bg_swaps"))
    assert ratios["full_over_decode"] == pytest.approx(swaps / decode, rel=1e-2)
    assert ratios["with_over_without"] == pytest.approx(swaps / plain, rel=1e-2)
    assert result["machine"]["device"] == "cpu"
    assert "| bg_swaps |" in table(result)
