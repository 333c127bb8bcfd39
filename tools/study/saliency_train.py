"""Training of a saliency network without labels: voters' masks, DeepUSPS's two phases, an ONNX file.

    python -m tools.saliency_train --photos DATA --out OUT
    python -m tools.saliency_train --photos DATA --out OUT --config configs/saliency/deepusps2.yaml init=RUN
    python -m tools.masks --photos DATA --detector deepusps --weights OUT/saliency.onnx

Voters are detectors that need no weights; their mask stores are kept in OUT/voters. Interrupted, the same
command goes on. key=value change the recipe (`train.saliency`).
"""

import json
from pathlib import Path

import torch

from dali_bgaug.files import write_text
from dali_bgaug.photo_tree import list_photos
from tools.cli import ALL, default_workers, hold, require, run, start, tool_parser
from tools.offline.detectors import read_options
from tools.offline.lists import read_subset
from tools.offline.masks import write_mask_store

VOTERS = ("mc", "hs", "dsr", "rbd")


def main() -> None:
    parser = tool_parser("tools.saliency_train", __doc__)
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder of photos")
    add("--out", type=Path, required=True, help="folder of the training")
    recipe = Path("configs/saliency/small.yaml")
    add("--config", type=Path, default=recipe, help="recipe (%(default)s)")
    add("--voters", nargs="+", default=VOTERS, metavar="DETECTOR", help=f"({' '.join(VOTERS)})")
    add(
        "--list",
        type=Path,
        help="text file of the photos to train with, one a line (all)",
    )
    add("--size", type=int, default=256, help="side of the voters' maps (%(default)s)")
    add("--workers", type=int, default=default_workers(), help="processes that make masks (all CPUs)")
    what = "ranks that train, a GPU each (as many of this machine's as divide batch_size)"
    add("--nproc", type=int, help=what)
    add("overrides", nargs="*", metavar="key=value", help="changes of the recipe")
    args = parser.parse_intermixed_args()
    require(len(set(args.voters)) == len(args.voters), "--voters: each once")
    detectors = {voter: read_options(voter, {}, []) for voter in args.voters}
    stores = {voter: args.out / "voters" / voter for voter in detectors}
    words = [f"photos={args.photos}", *(f"maps.{voter}={store}" for voter, store in stores.items())]
    if args.list:
        keys = list_photos(args.photos).keys
        chosen = [keys[row] for row in read_subset(args.list, keys, option="--list")]
        write_text(args.out / "photos.txt", "".join(f"{key}\n" for key in chosen))
        words.append(f"photo_list={args.out / 'photos.txt'}")
    command = ["train.saliency", f"--config={args.config}", f"--out={args.out}", *words, *args.overrides]
    # What is wrong with the recipe is said before the masks are made.
    batch = json.loads(start(*command, "--print", quiet=True))["batch_size"]
    gpus = max(1, torch.cuda.device_count())
    nproc = args.nproc or max(count for count in range(1, gpus + 1) if batch % count == 0)
    require(batch % nproc == 0, f"--nproc={nproc}: must divide batch_size={batch}")
    for voter, detector in detectors.items():
        with hold(stores[voter], ALL):
            write_mask_store(
                args.photos, detector, stores[voter], size=args.size, workers=args.workers
            ).finish()
    if nproc > 1:
        command = ["torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}", "-m", *command]
    start(*command)


if __name__ == "__main__":
    run(main)
