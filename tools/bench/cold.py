"""One stage in a fresh process: seconds to its first batch, peak memory. Reads a job from stdin, writes JSON.

Importing the libraries and opening the GPU are not counted. Memory is that of the process and its workers,
mapped files included; on a GPU, what the stage took of it.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import torch

from pipelines import LoaderConfig
from pipelines.build import choose_device
from tools.bench.measure import Key, open_stage
from tools.bench.timing import peak_memory


def main() -> None:
    """Do one job."""
    job = json.load(sys.stdin)
    key, values = Key(*job["key"]), job["config"]
    config = LoaderConfig.model_validate(values | {"shards": Path(values["shards"])})
    device_id = choose_device(config.device, None)
    free = torch.cuda.mem_get_info(device_id)[0] if device_id is not None else 0
    with contextlib.ExitStack() as stack:
        start = time.perf_counter()
        stage = open_stage(key, config, device_id, None, stack)
        stage.run(job["batches"])
        first = stage.first_at
        taken = free - torch.cuda.mem_get_info(device_id)[0] if device_id is not None else None
        found = {
            "first_batch_s": round(first - start, 2),
            "peak_rss_mb": round(peak_memory() / 1e6, 1),
            "gpu_mb": None if taken is None else round(taken / 1e6, 1),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
