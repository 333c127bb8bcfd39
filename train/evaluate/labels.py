"""The labelled subset that shards are, by their manifest: the 1 % or 10 % fine-tuning is said to be on."""

from pathlib import Path
from typing import Any

from dali_bgaug.errors import UserError
from dali_bgaug.shards import read_manifest


def labels_of(shards: Path, percent: int, any_subset: bool = False) -> dict[str, Any]:
    """The record of the labels in a result: `photos`; of how many, and on which list, where the manifest
    says so.

    A list of `percent` of every class, one photo at least, is within a photo a class of that share.

    Args:
        shards: what is trained on.
        percent: of the labels.
        any_subset: take them as they are.

    Raises:
        UserError: the manifest does not say that they are such a part, and `any_subset` is false.
    """
    manifest = read_manifest(shards, "--data")
    subset = manifest.options.get("subset")
    found = {"photos": manifest.samples, **({} if subset is None else {"of": subset["of"]})}
    if subset is not None:
        found |= {"list": subset["list"], "list_sha256": subset["sha256"]}
    if any_subset:
        return found
    remedy = (
        f"pack {percent} % with tools.shards --subset (tools.subsets makes the list), or train on what there "
        "is with --any-subset"
    )
    if subset is None:
        raise UserError(
            f"--data={shards}: its manifest says nothing of a subset ({manifest.samples} photos, packed "
            f"whole or before subsets were recorded), --percent={percent} is for a part of the labels; "
            f"{remedy}"
        )
    photos, whole = subset["photos"], subset["of"]
    if abs(photos - whole * percent / 100) > len(manifest.classes):
        raise UserError(
            f"--data={shards}: its manifest says {photos} of {whole} photos ({subset['list']}), "
            f"{photos / whole:.2%} of the labels, not --percent={percent}; {remedy}"
        )
    return found
