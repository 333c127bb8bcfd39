"""Write lists of 1 % and 10 % of the photos of every class, which semi-supervised evaluation trains on.

    python -m tools.subsets --photos DATA --out out/subsets      1percent.txt and 10percent.txt

Each class gives its share, rounded, one photo at least; a smaller list is part of a larger one. `tools.shards
--subset LIST` packs only the photos of a list, also of one made elsewhere.
"""

from pathlib import Path

import numpy as np

from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from dali_bgaug.photo_tree import list_photos, told
from tools.cli import require, run, tool_parser
from tools.offline.classes import read_classes


def choose(keys: list[str], label: np.ndarray, percent: float, seed: int) -> list[str]:
    """The share of every class of a list of photos, sorted. label: int64 [N]."""
    require(0 < percent <= 100, f"--percent={percent}: must be above 0 and at most 100")
    order = np.random.default_rng(seed).permutation(len(keys))
    by_class = order[np.argsort(label[order], kind="stable")]
    chosen: list[int] = []
    for members in np.split(by_class, np.flatnonzero(np.diff(label[by_class])) + 1):
        chosen += members[: max(1, round(len(members) * percent / 100))].tolist()
    return sorted(keys[index] for index in chosen)


def main() -> None:
    parser = tool_parser("tools.subsets", __doc__)
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder of class folders of JPEGs")
    add("--classes", type=Path, help="list of 'PHOTO CLASS' (default: folders)")
    add("--percent", type=float, nargs="+", default=[1, 10], help="(1 and 10)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--out", type=Path, default=Path("out/subsets"), help="(%(default)s)")
    args = parser.parse_args()
    tree = list_photos(args.photos)
    keys = tree.keys
    print(tree.describe())
    if broken := [key for key in keys if "\n" in key or "\r" in key]:
        raise UserError(f"--photos: {broken[0]!r} has a line break in it, and a list is by lines; rename it")
    labels = read_classes(args.classes, keys)
    print("\n".join(told(labels.oddities)), end="\n" if labels.oddities else "")
    for percent in args.percent:
        chosen = choose(keys, labels.label, percent, args.seed)
        path = args.out / f"{percent:g}percent.txt"
        write_text(path, "\n".join(chosen) + "\n")
        print(f"{path}: {len(chosen)} of {len(keys)} photos, {len(labels.classes)} classes")


if __name__ == "__main__":
    run(main)
