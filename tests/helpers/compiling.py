"""Compiling the Triton kernels for GPUs that are not here."""

import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dali_bgaug.views import gpu_crop_boxes, gpu_pixels
from dali_bgaug.views.gpu import power_of_two

TILE = {"ROWS": gpu_pixels.ROWS, "COLUMNS": gpu_pixels.COLUMNS}
_TYPES = {"parts": "i32", "first": "i32", "offsets": "*i64", "composited": "*i8"}
_TYPES |= dict.fromkeys(("canvas", "blurred", "sums"), "*fp32")
"""Of arguments; all others are addresses."""


def compile_kernels(
    architecture: int, size: int = 224, side: int = 256, fullest: bool = False
) -> dict[str, dict[str, int]]:
    """Compile every kernel in its variants for an architecture (80, 90).

    fullest: only the variant of each that has all there is: masks, tiled backgrounds, distortions.

    Returns:
        By kernel and variant: `registers` and `spilled` bytes a thread, `shared` bytes.
    """
    parts = {"PARTS": power_of_two(-(-size // gpu_pixels.ROWS) * -(-size // gpu_pixels.COLUMNS))}
    grid = {"SIDE": side, "GRID": max(8, power_of_two(side // 8))}
    variants = {
        gpu_crop_boxes.choose_crop_boxes: [{"SIDE": 0, "GRID": 8, "DISTORTED": False}]
        + [grid | {"DISTORTED": d} for d in (False, True)],
        gpu_pixels.resample: [TILE | {"SIDE": s, "TILED": t} for s in (0, side) for t in (False, True)],
        gpu_pixels.colour: [TILE | parts],
        gpu_pixels.blur_rows: [TILE],
        gpu_pixels.finish: [TILE | {"SIDE": s, "HALF": h} for s in (0, side) for h in (False, True)],
        gpu_pixels.copy: [TILE | {"SIDE": s, "HALF": h} for s in (0, side) for h in (False, True)],
    }
    found = {}
    for kernel, choices in variants.items():
        for constants in choices[-1:] if fullest else choices:
            types = {
                name: "constexpr" if name in constants else _TYPES.get(name, "i64")
                for name in kernel.arg_names
            }
            source = ASTSource(kernel, types, constexprs=constants)
            options = {"num_warps": gpu_pixels.WARPS} if "ROWS" in constants else {}
            compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
            name = f"{kernel.__name__} " + " ".join(f"{k}={v}" for k, v in constants.items() if k not in TILE)
            found[name] = _resources(compiled) | {"shared": compiled.metadata.shared}
    return found


def _resources(compiled: object) -> dict[str, int]:
    """Registers and spilled bytes a thread, as the assembler's own tool reads them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", text).groups()
    return {"registers": int(registers), "spilled": int(stack) + int(local)}
