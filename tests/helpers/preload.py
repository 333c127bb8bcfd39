"""What processes of tests are forked with: the trainer's modules and the CPU's kernels, loaded once."""

import gc

import tools.bench.measure
import tools.offline.shards  # noqa: F401
import train.loop
import train.saliency.training  # noqa: F401
from dali_bgaug.views.cpu import CpuRenderer

CpuRenderer(1).close()
gc.freeze()  # or every process copies all this when it looks for garbage
