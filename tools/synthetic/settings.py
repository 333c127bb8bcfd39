"""Folders that are made by settings: kept once they are finished, gone on with after an interruption."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dali_bgaug.errors import UserError


def read_finished(
    finished: Path, started: Path, settings: Mapping[str, Any], what: str, **before: Any
) -> dict[str, Any] | None:
    """What the settings file of a finished folder holds; None of a new folder, or of one that was begun.

    finished, started: the file, and its name until all is there. what: the folder should be. before: settings
    of files from before there were these.

    Raises:
        UserError: made or begun with other settings, or it holds anything else.
    """
    out, remedy = finished.parent, "choose another --out, or delete that folder first"
    path = finished if finished.exists() else started
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: neither {what} nor an empty folder; choose another --out")
        return None
    try:
        found = {**before, **json.loads(path.read_text(encoding="utf-8"))}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a settings file ({error}); {remedy}") from error
    for key, value in settings.items():
        if found.get(key) != value:
            raise UserError(f"{path}: made with {key}={found.get(key)}, asked for is {key}={value}; {remedy}")
    if path == finished:
        print(f"{finished} is there already, with these settings: nothing to do")
    return found if path == finished else None
