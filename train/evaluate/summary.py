"""Results of evaluation: the folder they lie in, and a table of one for people."""

from pathlib import Path
from typing import Any


def folder_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    if checkpoint.is_dir():
        return checkpoint
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def prefix_of(checkpoint: Path) -> str:
    """The beginning of a result's name where it is of a file, of which a folder may hold several."""
    return "" if checkpoint.is_dir() else f"{checkpoint.stem}-"


def table(result: dict[str, Any]) -> str:
    """A result for people."""
    rows: list[tuple[str, str]] = []
    if "splits" in result:
        splits, gap = result["splits"].items(), result["bg_gap"]
        rows += [(name, f"{s['accuracy']:8.2%}  {s['photos']:>7} photos") for name, s in splits]
        points = "needs mixed_same and mixed_rand" if gap is None else f"{100 * gap:7.2f}   points"
        rows.append(("BG-Gap", points))
    else:
        names = ["top1", *(["top5"] if result.get("top5", 1) < 1 else [])]  # of five classes or fewer it is 1
        rows += [(name, f"{result[name]:8.2%}") for name in names]
        rows += [("photos", f"{result['test']['photos']:>8}")]
    if "size" in result:
        rows.append(("size", f"{result['size']:>8}  pixels, the centre of {result['resize']}"))
    if labels := result.get("labels"):
        whole = f"of {labels['of']}, {labels['list']}" if "of" in labels else "all of the shards"
        rows.append(("labels", f"{labels['photos']:>8}  {whole}"))
    columns = (result.get(name, ()) for name in ("rates", "held_out", "top1_by_rate"))
    for rate, held_out, top1 in zip(*columns):
        chosen = "  <- chosen" if rate == result["rate"] else ""
        rows.append((f"rate {rate:g}", f"{top1:8.2%}  {held_out:.2%} of photos kept back{chosen}"))
    rows.append(("batch norm", f"     {result['bn']}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
