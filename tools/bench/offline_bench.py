"""Measure the offline tools against the least that their work needs, in one run, interleaved.

    python -m tools.offline_bench --photos DATA --masks TREE [--weights u2netp.onnx] [--json FILE]

    masks      import: decode every photo and its mask          against decoding both
    tiles      decode, tile, shrink, encode                     against decoding and encoding the same tiles
    shards     check every photo, pack it with mask and tile    against `tar` of these files, and that check
    u2net      photos to maps in the store                      against ONNX Runtime alone on the same inputs
    rbd        (seconds a photo; it has no baseline)

One process and one thread each, on files in the page cache; a ratio is the baseline's time over the tool's,
of the same round; figures are medians over rounds.
"""

import io
import json
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dali_bgaug import markdown, stores
from dali_bgaug.decoding import Decoder
from dali_bgaug.files import write_text
from dali_bgaug.photo_tree import list_photos
from tools.bench.machine import machine
from tools.cli import require, run, tool_parser
from tools.offline import photos
from tools.offline.detectors import read_options
from tools.offline.detectors.u2net import U2Net, prepare
from tools.offline.masks import write_mask_store
from tools.offline.shards import write_shards
from tools.offline.tiles import write_tile_store

COPIES = 4  # of every photo: what is done once a shard should weigh as little as in a whole one
SLOW = 12  # photos of the detectors that compute long


class Bench:
    """The photos, and a folder to work in."""

    def __init__(self, folder: Path, masks: Path, work: Path) -> None:
        self.work, self.folder, self.masks = work, work / "photos", work / "masks"
        originals = read_options("import", {"folder": str(masks)}, [])
        for key in list_photos(folder).keys:
            for copy in range(COPIES):
                _link(folder / key, self.folder / f"{copy}" / key)
                mask = originals.find(key)
                _link(mask, (self.masks / f"{copy}" / key).with_suffix(mask.suffix))
        self.keys = list_photos(self.folder).keys
        self.import_ = read_options("import", {"folder": str(self.masks)}, [])
        self._count = 0
        write_mask_store(self.folder, self.import_, work / "ms")
        write_tile_store(work / "ms", work / "ts", photo_folder=self.folder)
        files = stores.list_files(work / "ts", "tiles")
        rows = [(file, row) for file, path in enumerate(files) for row in range(stores.count_rows(path))]
        with stores.StoreReader(files) as reader:
            jpegs = [reader.tile(*row) for row in rows]
        self.tiles = [jpeg and Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in jpegs]
        self.decoder = Decoder()
        self.members = work / "members"
        write_shards(self.folder, work / "ms", work / "ts", work / "shards")
        for path in (work / "shards").glob("*.tar"):
            with tarfile.open(path) as tar:
                tar.extractall(self.members, filter="data")

    def fresh(self) -> Path:
        """A folder that is not there yet."""
        self._count += 1
        return self.work / f"out{self._count}"

    def masks_tool(self) -> None:
        """Import all masks."""
        write_mask_store(self.folder, self.import_, self.fresh())

    def masks_least(self) -> None:
        """Decode photos and masks."""
        for key in self.keys:
            photos.open_photo(self.folder / key)
            with Image.open(self.import_.find(key)) as mask:
                mask.load()

    def tiles_tool(self) -> None:
        """Make all tiles."""
        write_tile_store(self.work / "ms", self.fresh(), photo_folder=self.folder)

    def tiles_least(self) -> None:
        """Decode photos, and encode images as the tiles are."""
        for key, image in zip(self.keys, self.tiles, strict=True):
            if not image:  # it lends none
                continue
            photos.open_photo(self.folder / key)
            image.save(io.BytesIO(), "JPEG", quality=90)

    def shards_tool(self) -> None:
        """Pack all."""
        write_shards(self.folder, self.work / "ms", self.work / "ts", self.fresh())

    def shards_least(self) -> None:
        """Tar the same files, and decode the photos as the packer does."""
        out = self.fresh().with_suffix(".tar")
        subprocess.run(["tar", "cf", str(out), "-C", str(self.members), "."], check=True)
        for key in self.keys:
            self.decoder.size((self.folder / key).read_bytes())


def _link(file: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(file.resolve())


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(folder: Path, masks: Path, weights: Path | None, rounds: int) -> list[dict[str, Any]]:
    """A row a tool: photos, its rate, and its baseline's time over its own (median, lowest, highest)."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(folder, masks, Path(name))
        every, few = len(bench.keys), min(SLOW, len(bench.keys))
        some = bench.work / "few"
        for key in (bench.keys[int(index)] for index in np.linspace(0, every - 1, few)):
            _link(bench.folder / key, some / key)
        pairs: dict[str, tuple[int, Callable[[], Any], Callable[[], Any] | None]] = {
            "masks": (every, bench.masks_tool, bench.masks_least),
            "tiles": (every, bench.tiles_tool, bench.tiles_least),
            "shards": (every, bench.shards_tool, bench.shards_least),
        }
        rbd = read_options("rbd", {}, [])
        pairs["rbd"] = (few, lambda: write_mask_store(some, rbd, bench.fresh()), None)
        if weights is not None:
            u2net = read_options("u2net", {"weights": str(weights)}, [])
            tool = lambda: write_mask_store(some, u2net, bench.fresh())  # noqa: E731
            pairs["u2net"] = (few, tool, _network_alone(u2net.build(), some))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in pairs}
        for number in range(rounds + 1):
            for name, (_, tool, least) in pairs.items():
                pair = (_seconds(tool), _seconds(least) if least else float("nan"))
                if number:  # the first warms up
                    times[name].append(pair)
    return [_row(name, pairs[name][0], np.array(times[name])) for name in pairs]


def _network_alone(detector: U2Net, folder: Path) -> Callable[[], None]:
    """ONNX Runtime on inputs that are ready, with the detector's own settings."""
    images = [np.asarray(photos.open_photo(folder / key)) for key in list_photos(folder).keys]
    inputs = [prepare(image)[None] for image in images]

    def alone() -> None:
        for pixels in inputs:
            detector.session.run([detector.output.name], {detector.input.name: pixels})

    return alone


def _row(name: str, count: int, times: np.ndarray) -> dict[str, Any]:
    ratios, seconds = times[:, 1] / times[:, 0], float(np.median(times[:, 0]))
    row = {"tool": name, "photos": count, "photos_per_s": round(count / seconds, 2)}
    row["ms_per_photo"] = round(1000 * seconds / count, 3)
    if np.isfinite(ratios).all():
        found = {"median": np.median(ratios), "low": ratios.min(), "high": ratios.max()}
        row["ratio"] = {key: round(float(value), 3) for key, value in found.items()}
    return row


BASELINES = {
    "masks": "decoding photo and mask",
    "tiles": "decoding the photo and encoding the tile",
    "shards": "tar and the training decoder",
    "u2net": "ONNX Runtime alone",
}


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    place = result["machine"]
    columns = [
        ("tool", "{tool}"),
        ("photos/s", "{photos_per_s:.1f}"),
        ("ms/photo", "{ms_per_photo:.2f}"),
        ("rate ÷ baseline's", "{ratio[median]:.2f} ({ratio[low]:.2f}-{ratio[high]:.2f})"),
        ("baseline", "{baseline}"),
    ]
    rows = [row | {"baseline": BASELINES.get(row["tool"], "")} for row in result["rows"]]
    return (
        f"{place['cpus']} CPUs, one process and thread, {place['date']}, medians of {result['rounds']} rounds"
        f"\n\n{markdown.formatted(rows, columns)}"
    )


def main() -> None:
    parser = tool_parser("tools.offline_bench", __doc__)
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder of JPEGs")
    add("--masks", type=Path, required=True, help="parallel folder tree of masks")
    add("--weights", type=Path, help="of U²-Net, to measure it too")
    add("--rounds", type=int, default=5, help="(%(default)s)")
    add("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    require(args.rounds >= 1, f"--rounds={args.rounds}: must be at least 1")
    rows = measure(args.photos, args.masks, args.weights, args.rounds)
    result = {"machine": machine(None), "rounds": args.rounds, "rows": rows}
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    run(main)
