"""Delete what the project made: known outputs in OUT, and the virtual environment.

    python -m tools.clean OUT VENV      make clean

Anything else that lies in OUT stays, and is named. Needs nothing but Python.
"""

import shutil
import sys
from pathlib import Path

NAMES = ("demo", "experiment", "learning", "subsets", "bench.*", "gpu.*", "views.png", "*.html")
"""What make targets write into OUT under these names; beside"""
REPORTS = ("*-report.json", "*-report-*-of-*.json", "*-inspect.png", ".*.lock", "*.lock")
"""these, of stores and shards, and"""
SIGNS = ("*.h5", "manifest.json", "shard-*.tar", "config.json", "log.jsonl", "checkpoints", "backbone.pt")
"""folders that hold one of these: stores, shards, runs."""


def is_ours(path: Path) -> bool:
    """True of something in OUT that the project made."""
    if any(path.match(name) for name in (*NAMES, *REPORTS)):
        return True
    return path.is_dir() and not path.is_symlink() and any(any(path.glob(sign)) for sign in SIGNS)


def clean(out: Path, venv: Path) -> list[str]:
    """Delete; returns lines on what was not deleted, and why."""
    kept = []
    if out.is_dir():
        for path in sorted(out.iterdir()):
            if not is_ours(path):
                kept.append(f"{path}: stays, it is not known as an output of the project")
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not kept:
            out.rmdir()
    if (venv / "pyvenv.cfg").is_file():
        shutil.rmtree(venv)
    elif venv.exists():
        kept.append(f"{venv}: stays, it is no virtual environment")
    return kept


if __name__ == "__main__":
    print("".join(f"{line}\n" for line in clean(Path(sys.argv[1]), Path(sys.argv[2]))), end="")
