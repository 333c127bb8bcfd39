"""The saliency network of any trunk, and its export."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from train.networks import build_backbone
from train.saliency.network import SaliencyNetwork, export_onnx


@pytest.mark.parametrize("trunk", ["resnet10_narrow", "resnet18", "resnet50", "drn_d_22_narrow", "drn_d_22"])
def test_a_trunk_has_cells_of_eight_pixels_and_its_own_weights(trunk: str) -> None:
    torch.manual_seed(0)
    network = SaliencyNetwork(trunk).eval()
    network.trunk.load_state_dict(build_backbone(trunk).state_dict())
    cells = []
    network.head.register_forward_pre_hook(lambda _, inputs: cells.append(inputs[0].shape))
    with torch.no_grad():
        found = network(torch.randn(2, 3, 64, 80))
    assert cells[0][2:] == (8, 10)
    assert found.shape == (2, 64, 80)
    assert ((found >= 0) & (found <= 1)).all() and found.std() > 0


def test_a_dilated_resnet_sees_what_the_strided_one_does() -> None:
    """Every fourth cell of the last stage: a dilated convolution has the same neighbours, but at borders."""
    torch.manual_seed(0)
    strided = build_backbone("resnet18").eval()
    network = SaliencyNetwork("resnet18").eval()
    network.trunk.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 512, 512)
    with torch.no_grad():
        y = strided.maxpool(strided.relu(strided.bn1(strided.conv1(x))))
        expected = strided.layer4(strided.layer3(strided.layer2(strided.layer1(y))))
        found = network._cells(x)[:, :, ::4, ::4]
    middle = slice(5, 11)
    torch.testing.assert_close(
        found[..., middle, middle], expected[..., middle, middle], rtol=1e-3, atol=1e-4
    )


def test_the_first_class_is_the_object_upsampled_without_corners() -> None:
    network = SaliencyNetwork("resnet10_narrow").eval()
    logits = torch.randn(1, 2, 4, 4)
    network._cells = lambda _: logits
    network.head = torch.nn.Identity()
    expected = F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=False).softmax(1)[:, 0]
    torch.testing.assert_close(network(torch.zeros(1, 3, 32, 32)), expected)


def test_onnx_is_the_network_with_its_normalisation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SaliencyNetwork("drn_d_22_narrow").eval()
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    export_onnx(network, mean, std, 64, tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx", providers=["CPUExecutionProvider"])
    photos = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.float32)
    [found] = session.run(["saliency"], {"photo": photos.transpose(0, 3, 1, 2)})
    normalised = torch.from_numpy(((photos / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(normalised)[:, None].numpy()
    assert found.shape == (3, 1, 64, 64)
    np.testing.assert_allclose(found, expected, atol=1e-4)
