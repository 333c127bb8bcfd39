"""A scene for detectors, a network, and how well masks agree."""

from pathlib import Path

import numpy as np
import onnx


def scene(height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A red disc before a noisy green meadow, and its mask."""
    y, x = np.mgrid[:height, :width]
    mask = np.hypot(x - 90, y - 55) < 30
    image = np.random.default_rng(0).integers(0, 40, (height, width, 3)).astype(np.uint8)
    image[..., 1] += 100
    image[mask] = image[mask] // 2 + np.array([180, 20, 20], np.uint8)
    return image, mask


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def network(path: Path, batch: int | str = 1, channels: int = 3, side: int = 320) -> Path:
    """An ONNX network whose first output is the photo's red channel as U²-Net gets it, doubled, plus one."""
    info = onnx.helper.make_tensor_value_info
    weight = np.zeros((1, channels, 1, 1), np.float32)
    weight[0, 0] = 2
    nodes = [
        onnx.helper.make_node("Conv", ["photo", "w", "b"], ["fused"]),
        onnx.helper.make_node("Neg", ["fused"], ["side"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [info("photo", onnx.TensorProto.FLOAT, [batch, channels, side, side])],
        [info(name, onnx.TensorProto.FLOAT, [batch, 1, side, side]) for name in ("fused", "side")],
        [
            onnx.numpy_helper.from_array(weight, "w"),
            onnx.numpy_helper.from_array(np.ones(1, np.float32), "b"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path
