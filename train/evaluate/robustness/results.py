"""The file of a network's results: written after every set, so that an interrupted command goes on."""

import json
from pathlib import Path
from typing import Any

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, write_json


class Results:
    """robustness.json: what it is of, and a result by the name of each set."""

    def __init__(self, path: Path, head: dict[str, Any], again: bool = False) -> None:
        """Read what there is.

        Args:
            path: of the file.
            head: all but the sets.
            again: measure anew what is there; of another network, it is replaced.

        Raises:
            UserError: what is there is of other weights, or shows photos with another orientation; or, even
                where it is to be replaced, is another evaluation's.
        """
        self.path, self.head, self._again = path, head, again
        self.sets: dict[str, Any] = {}
        if not path.exists():
            return
        before = read_json(path, "give another file (--json), or delete it")
        if before.get("protocol") != head["protocol"]:
            raise UserError(f"{path}: holds no results of {head['protocol']}; give another file (--json)")
        changed = [
            f"{name} was {old}, now it is {new}"
            for name, old, new in (
                ("weights", before.get("network", {}).get("sha256"), head["network"]["sha256"]),
                ("orientation", before.get("orientation"), head["orientation"]),
            )
            if old != new
        ]
        if not changed:
            self.sets = dict(before["sets"])
        elif not again:
            raise UserError(
                f"{path}: holds other results: {'; '.join(changed)}; give another file (--json), or --again, "
                "which replaces them"
            )

    def finished(self, names: list[str], key: dict[str, Any]) -> dict[str, Any] | None:
        """The result of a set that was measured like this before, or None.

        Args:
            names: of the set, and of its part if it has several.
            key: the values that it must have been measured with.
        """
        found = self._find(names)
        same = json.loads(json.dumps(key))
        stands = found and all(found.get(name) == value for name, value in same.items())
        return found if stands and not self._again else None

    def has(self, names: list[str]) -> bool:
        """Whether there is a result of a set, or of a part of it, however it was measured."""
        return bool(self._find(names))

    def _find(self, names: list[str]) -> dict[str, Any]:
        found = self.sets.get(names[0], {})
        return found if len(names) == 1 else found.get("parts", {}).get(names[1], {})

    def keep(self, names: list[str], result: dict[str, Any]) -> None:
        """Take a set's result, or that of a part of a set; `write` puts it into the file.

        Of parts, the first by name says the set's value: of ImageNet-v2's matched-frequency.
        """
        if len(names) == 1:
            self.sets[names[0]] = result
            return
        name, part = names
        parts = {**self.sets.get(name, {}).get("parts", {}), part: result}
        first = parts[min(parts)]
        self.sets[name] = {
            **{key: first[key] for key in ("protocol", "value", "metric")},
            "folder": str(Path(first["folder"]).parent),
            "photos": sum(one["photos"] for one in parts.values()),
            "unread": [f"{one}/{file}" for one, found in parts.items() for file in found["unread"]],
            "parts": parts,
        }

    def write(self) -> None:
        """Write the file, all or nothing."""
        write_json(self.path, {**self.head, "sets": self.sets})
