"""Settings of a benchmark that ends within seconds."""

from pathlib import Path
from typing import Any


def values(shards: Path) -> dict[str, Any]:
    return {"shards": str(shards), "batch_size": 8, "device": "cpu", "threads": 2, "crop": {"size": 32}}
