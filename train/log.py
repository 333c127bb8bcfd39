"""log.jsonl: one JSON object a line, one line a logged step."""

import json
from pathlib import Path
from typing import Any

from dali_bgaug.files import write_text


class JsonLog:
    """Appends lines to a file; a resumed run first drops what came after its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        """path: the file; step: how many steps the run has done (lines of later ones are dropped)."""
        lines = [line for line in read_log(path) if line["step"] <= step] if step else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        """Add a line."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log (a killed run may leave a part of one); none if there is no file."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
