"""What processes of tests are forked with: the trainer's modules and the CPU's kernels, loaded once."""

import train.loop  # noqa: F401
from dali_bgaug.views.cpu import CpuRenderer

CpuRenderer(1).close()
