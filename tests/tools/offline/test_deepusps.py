"""A trained saliency network as a detector."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from dali_bgaug.errors import UserError
from tests.helpers.detectors import network, scene
from tools.offline.detectors import Photo, read_options


def _reddish(path: Path, side: int = 64) -> Path:
    """A network whose probability is red / 255."""
    info = onnx.helper.make_tensor_value_info
    weight = np.zeros((1, 3, 1, 1), np.float32)
    weight[0, 0] = 1 / 255
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["photo", "w"], ["saliency"])],
        "g",
        [info("photo", onnx.TensorProto.FLOAT, ["photos", 3, side, side])],
        [info("saliency", onnx.TensorProto.FLOAT, ["photos", 1, side, side])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_the_photo_is_stretched_and_the_map_stretched_back(tmp_path: Path) -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:, 0] = 204
    options = read_options("deepusps", {"weights": str(_reddish(tmp_path / "n.onnx"))}, ["crf=false"])
    [found] = options.build()([Photo("p.jpg", tmp_path / "p.jpg", image)])
    assert found.shape == (100, 200)
    assert (found[:, :90] == 0).all()
    assert (found[:, 110:] == 204).all()


def test_by_default_it_is_refined(tmp_path: Path) -> None:
    """A red disc in noise: the map's greys become nearly 0 and 255."""
    image, mask = scene()
    options = read_options("deepusps", {"weights": str(_reddish(tmp_path / "n.onnx"))}, [])
    [found] = options.build()([Photo("p.jpg", tmp_path / "p.jpg", image)])
    assert np.abs(found / 255 - mask).mean() < 0.02
    assert set(options.record()) == {"crf", "provider", "weights_sha256"}


def test_another_network_is_refused(tmp_path: Path) -> None:
    options = read_options("deepusps", {"weights": str(network(tmp_path / "u2net.onnx"))}, [])
    with pytest.raises(
        UserError, match="weights=.*u2net.onnx: a network of photo, fused, .*give the saliency.onnx"
    ):
        options.build()
    missing = read_options("deepusps", {"weights": str(tmp_path / "no.onnx")}, [])
    with pytest.raises(UserError, match="no.onnx: no such file; give the saliency.onnx of a training"):
        missing.build()
