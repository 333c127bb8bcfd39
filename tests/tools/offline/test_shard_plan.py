"""Which photo goes where: limits, parts, and a million photos."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dali_bgaug.errors import UserError
from tools.cli import parse_part
from tools.offline.shard_plan import cut

ROOT = Path(__file__).parents[3]


def test_shards_end_at_either_limit() -> None:
    assert cut(np.array([4, 4, 4, 4, 4]), 9, 10).tolist() == [2, 4, 5]
    assert cut(np.array([4, 4, 4, 4, 4]), 100, 3).tolist() == [3, 5]
    assert cut(np.array([50, 1, 1, 50]), 10, 10).tolist() == [1, 3, 4]  # one that is too large has its own
    assert cut(np.array([], np.int64), 10, 10).tolist() == []


def test_parts_are_read() -> None:
    assert parse_part("2/8") == (2, 8)
    assert list(range(10))[parse_part("2/4").slice] == [1, 5, 9]
    for text in ("0/4", "5/4", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match=rf"--part={text}: must be i/n"):
            parse_part(text)


PLAN_A_MILLION = """
import json, time
from pathlib import Path
import numpy as np
from dali_bgaug import stores
from tools.offline.masks import *
from tools.offline.photos import reject_equal_names
from tools.offline.shards import *
from tools.offline.shard_plan import make_plan
start = time.process_time()
options = {"mask_size": 256}
entries = []
for file in range(2500):
    keys = [f"n{(512 * file + i) // 1300:08d}/n_{512 * file + i:08d}.JPEG" for i in range(512)]
    entries.append(stores.Entries(
        keys=keys, box=np.zeros((512, 4), np.int32), size=np.full((512, 2), 500, np.int32),
        flags=np.zeros(512, np.uint8), bytes=np.full(512, 110_000), left_out=[], options=options, source="",
        listing=""))
tiles = [np.full(512, 25_000)] * 2500
reject_equal_names([key for part in entries for key in part.keys])
plan = make_plan(entries, tiles, target_bytes=200_000_000, per_shard=10_000, seed=0)
rows = [plan.rows(number) for number in range(5)]
print(json.dumps({"photos": len(plan.order), "classes": len(plan.classes), "shards": len(plan.ends),
    "first": len(rows[0]), "seconds": time.process_time() - start,
    "mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000}))
"""


@pytest.mark.slow
def test_a_million_photos_are_planned_in_seconds_and_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAN_A_MILLION],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout)
    assert (found["photos"], found["classes"], found["shards"]) == (1_280_000, 985, 935)
    assert found["first"] == 1370
    assert found["mb"] < 1000
    assert found["seconds"] < 30
