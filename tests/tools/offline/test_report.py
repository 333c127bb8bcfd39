"""Summaries of the offline tools: counts, rates, JSON, and what parallel runs do."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_bgaug.errors import UserError
from dali_bgaug.photo_tree import Oddity
from tests.helpers.processes import holding
from tests.helpers.shards import save
from tools.cli import ALL, Part
from tools.offline import masks
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.places import Output
from tools.offline.report import Done, LeftOut, Report, format_bytes


def _report(out: Path, part: Part = ALL) -> Report:
    return Report(tool="masks", out=Output(out), part=part, workers=2, options={"size": 3})


def test_a_report_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = _report(tmp_path / "store")
    report.oddities = {".png files, not taken": Oddity(2, "a/1.png")}
    report.add(Done(photos=30, read=3_000_000, written=500, cpu_seconds=2.5, counts={"empty": 2}))
    report.add(Done(photos=10, read=9_000_000, written=100, kept=True, cpu_seconds=1.0, counts={"empty": 1}))
    report.add(Done(photos=5, read=1_000_000, written=100, left_out=[LeftOut("a.jpg", "empty file")]))
    report.seconds = 4.0
    report.finish()
    assert report.to_json() == {
        "tool": "masks",
        "part": "1/1",
        "workers": 2,
        "options": {"size": 3},
        "photos": 45,
        "empty": 3,
        "left_out": 1,
        "left_out_by_reason": {"empty file": 1},
        "left_out_photos": [{"photo": "a.jpg", "reason": "empty file", "detail": ""}],
        "oddities": {".png files, not taken": {"count": 2, "example": "a/1.png"}},
        "files": 3,
        "files_kept_from_before": 1,
        "bytes_written": 700,
        "bytes_of_photos_read": 4_000_000,
        "problems": [],
        "seconds": 4.0,
        "cpu_seconds": 2.5,
        "photos_worked_on": 36,
        "photos_per_s": 9.0,
        "mb_per_s": 1.0,
    }
    text = capsys.readouterr().out
    assert "45 photos in 3 files, 700 B, 3 empty, 1 left out" in text
    assert "left out: 1 empty file\n  a.jpg: empty file" in text
    assert "4.0 s, 9.0 photos/s, 1.0 MB/s of photos, 2 workers (1 file kept from before)" in text


def test_a_run_with_nothing_to_do_has_no_speed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = _report(tmp_path / "masks")
    report.add(Done(photos=10, written=100, kept=True, counts={"empty": 1, "full_frame": 4}))
    report.finish()
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("1 empty, 4 without a usable background strip, 0 left out")
    assert second.startswith("nothing to do: 1 file already finished; report: ")


def test_many_bad_photos_are_not_all_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = _report(tmp_path / "store", Part(2, 4))
    report.add(Done(left_out=[LeftOut(f"{number}.jpg", "bad") for number in range(50)]))
    report.finish()
    text = capsys.readouterr().out
    assert "(part 2/4)" in text
    assert "19.jpg: bad\n  and 30 more" in text
    assert report.path == tmp_path / "store-report-2-of-4.json"
    assert len(report.to_json()["left_out_photos"]) == 50


def test_a_disk_that_is_too_small_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _report(tmp_path / "a" / "store").run(_one, [(1,)], [1], [1e15])
    assert "needs about 1050.0 TB" in capsys.readouterr().err


def test_problems_of_all_jobs_come_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 photos stop this:\n  1: bad\n  2: bad"):
        _report(tmp_path).run(_bad, [(2,), (1,)], [1, 1], [0, 0])


def _one(number: int) -> Done:
    return Done(photos=number)


def _bad(number: int) -> Done:
    return Done(problems=[f"{number}: bad"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_part_without_work_is_none_the_less_done(tmp_path: Path, workers: int) -> None:
    """Of a set with fewer files than parts."""
    save(tmp_path, "a", np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))
    masks = ImportOptions(folder=tmp_path / "masks")
    report = write_mask_store(tmp_path / "photos", masks, tmp_path / "ms", workers=workers, part=Part(2, 2))
    report.finish()
    assert json.loads((tmp_path / "ms-report-2-of-2.json").read_text())["photos"] == 0


def test_bytes_are_readable() -> None:
    assert [format_bytes(count) for count in (0, 999, 1000, 1_500_000, 2e9, 3e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.0 GB",
        "3.0 TB",
    ]


def test_workers_compute_in_one_thread_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the parent was told about threads stays."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    report = Report(tool="t", out=Output(tmp_path), part=ALL, workers=2, options={})
    report.run(_threads, [(), ()], [1, 1], [0, 0])
    assert report.counts == {"threads": 2}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def _threads() -> Done:
    return Done(counts={"threads": int(os.environ["OMP_NUM_THREADS"])})


def test_a_report_is_written_also_of_a_run_with_problems(tmp_path: Path) -> None:
    report = _report(tmp_path / "store")
    with pytest.raises(UserError, match="stop this"):
        report.run(_bad, [(2,)], [1], [0])
    assert json.loads(report.path.read_text())["problems"] == ["2: bad"]


def test_the_mask_tool_reports_what_it_left_out(tmp_path: Path) -> None:
    photo = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:40, 10:40] = True
    for name in ("a", "b"):
        save(tmp_path, name, photo, mask)
    (tmp_path / "photos" / "b.jpg").write_bytes(b"x")
    write_mask_store(tmp_path / "photos", ImportOptions(folder=tmp_path / "masks"), tmp_path / "ms").finish()
    values = json.loads((tmp_path / "ms-report.json").read_text())
    assert values["left_out_by_reason"] == {"not an image": 1}
    assert values["options"]["detector"] == "import"
    assert values["bytes_of_photos_read"] == (tmp_path / "photos" / "a.jpg").stat().st_size


def test_a_report_describes_the_store_after_a_run_that_was_killed(tmp_path: Path) -> None:
    """The killed run's workers finished what it did not live to count."""
    for name in "abcde":
        save(tmp_path, name, np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))

    def again() -> dict[str, Any]:
        masks = ImportOptions(folder=tmp_path / "masks")
        write_mask_store(tmp_path / "photos", masks, tmp_path / "ms", per_file=2, workers=1).finish()
        return json.loads((tmp_path / "ms-report.json").read_text())

    whole = again()
    assert (whole["photos"], whole["files"], whole["files_kept_from_before"]) == (5, 3, 0)
    assert again() == whole  # the report of the run that did the work says more than this one's would
    for left in (json.dumps(whole | {"photos": 2, "files": 1}), '{"photos": 5}', '{"photos": 5, "fi', ""):
        (tmp_path / "ms-report.json").write_text(left)
        found = again()
        assert (found["photos"], found["files"], found["bytes_written"]) == (5, 3, whole["bytes_written"])


@pytest.mark.parametrize(("part", "free"), [("1/2", False), ("2/2", True)])
def test_a_part_is_worked_on_by_one_tool_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, free: bool
) -> None:
    save(tmp_path, "a", np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))
    words = ("--photos", "photos", "--masks", "masks", "--out", "ms", "--workers", "1", "--part", part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["masks", *words])
    with holding(tmp_path / "ms-1-of-2.lock") as holder:
        if free:
            masks.main()
        else:
            with pytest.raises(UserError, match=rf"in use by .* process {holder.pid}"):
                masks.main()
    masks.main()
    assert not (tmp_path / f"ms-{part.replace('/', '-of-')}.lock").exists()
