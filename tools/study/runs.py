"""What tools share that train: photos made into shards, and training as a program of its own (tools do not
import it)."""

import os
import subprocess
import sys
from pathlib import Path

from dali_bgaug.errors import UserError
from tools.offline.detectors.imported import ImportOptions
from tools.offline.masks import write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store


def pack_split(photos: Path, masks: Path, out: Path, workers: int) -> Path:
    """Photos and their exact masks -> out/masks, out/tiles, out/shards; what is finished is kept.

    Returns:
        The folder of the shards.
    """
    write_mask_store(photos, ImportOptions(folder=masks), out / "masks", workers=workers)
    write_tile_store(out / "masks", out / "tiles", workers=workers)
    write_shards(photos, out / "masks", out / "tiles", out / "shards", workers=workers)
    return out / "shards"


def program(module: str, *words: str, threads: int | None = None) -> None:
    """Run `python -m module words…` to its end, in silence.

    threads: that it computes in; None leaves it the choice.

    Raises:
        UserError: it failed; quotes the end of what it said.
    """
    environment = None if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(
        [sys.executable, "-m", module, *words], capture_output=True, text=True, check=False, env=environment
    )
    if result.returncode:
        raise UserError(f"python -m {module} {' '.join(words)} failed:\n{result.stderr.strip()[-2000:]}")
