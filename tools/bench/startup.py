"""Time to the first batch of a large data set, and memory over its course.

The large data set is the given one's tars under many names: their indices repeat their samples until there
are as many as wanted, a thousand a tar.
"""

import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dali_bgaug.files import sha256, write_text
from dali_bgaug.shards import open_shards, write_manifest
from pipelines import LoaderConfig, build_loader
from tools.bench.measure import fullest_stage
from tools.bench.timing import own_memory, peak_memory
from tools.cli import ask, require

PER_SHARD = 1000


@contextmanager
def large_set(shards: Path, samples: int) -> Iterator[Path]:
    """A folder with a data set of so many samples: the first shard, links to it, and indices."""
    manifest = open_shards(shards, False, "--shards")
    with tempfile.TemporaryDirectory(prefix="bench") as place:
        folder, made = Path(place), []
        real = manifest.shards[0]
        version, *lines = (shards / real.index).read_text(encoding="utf-8").splitlines()
        shutil.copyfile(shards / real.name, folder / "first.tar")  # a link out of the folder is refused
        for number, start in enumerate(tqdm(range(0, samples, PER_SHARD), desc="index", unit="shard")):
            count = min(PER_SHARD, samples - start)
            repeated = itertools.islice(itertools.cycle(lines), count)
            tar, index = folder / f"{number:06d}.tar", folder / f"{number:06d}.idx"
            tar.symlink_to("first.tar")
            write_text(index, "\n".join([f"{version.split()[0]} {count}", *repeated, ""]))
            change = {"name": tar.name, "index": index.name, "samples": count, "index_sha256": sha256(index)}
            made.append(real.replaced(**change))
        write_manifest(folder, manifest.replaced(shards=made, samples=samples, digest=""))
        yield folder


def measure(values: dict[str, Any], pipeline: str, samples: int) -> dict[str, Any]:
    """Start the fullest loader of a pipeline in a fresh process; returns what the JSON file holds."""
    require(samples >= 1, f"--startup={samples}: at least one sample")
    with large_set(Path(values["shards"]), samples) as folder:
        stage, config = fullest_stage(values | {"shards": str(folder), "verify": False}, pipeline)
        found = ask("tools.bench.startup", config.model_dump_json(), f"--startup={samples}")
    return {"loader": f"{pipeline}/{stage}", "samples": samples, **found}


def watch_memory(values: dict[str, Any], pipeline: str, batches: int) -> dict[str, Any]:
    """Run the loader of a pipeline's fullest stage; memory from a tenth of the run to its end, every 20th.

    Memory is what is resident without mapped files.
    """
    require(batches >= 20, f"--memory={batches}: at least 20 batches")
    stage, config = fullest_stage(values, pipeline)
    places = {round(batches * twentieth / 20) for twentieth in range(2, 21)}
    taken = []
    with build_loader(config) as loader, tqdm(total=batches, desc="memory", unit="batch") as bar:
        endless = itertools.chain.from_iterable(itertools.repeat(loader))
        for number, _ in enumerate(itertools.islice(endless, batches), 1):
            if number in places:
                taken.append((number, own_memory()))
            bar.update()
    at, memory = np.array(taken, np.float64).T
    return {
        "loader": f"{pipeline}/{stage}",
        "batches": batches,
        "first_mb": round(memory[0] / 1e6, 1),
        "last_mb": round(memory[-1] / 1e6, 1),
        "max_mb": round(memory.max() / 1e6, 1),
        "mb": {int(number): round(value / 1e6) for number, value in taken},
        "slope_kb_per_batch": round(np.polyfit(at, memory / 1e3, 1)[0], 3),
    }


def main() -> None:
    """Start one loader: its config comes from stdin."""
    values = json.load(sys.stdin)
    config = LoaderConfig.model_validate(values | {"shards": Path(values["shards"])})
    start = time.perf_counter()
    with build_loader(config) as loader:
        built = time.perf_counter()
        next(iter(loader))
        first = time.perf_counter()
    seconds = {"build_s": round(built - start, 2), "first_batch_s": round(first - start, 2)}
    print(json.dumps(seconds | {"peak_rss_mb": round(peak_memory() / 1e6, 1)}))


if __name__ == "__main__":
    main()
