"""Normalised cut on the features of a self-supervised backbone: the project's own networks make its masks.

Every cell of the feature map is a node; two are tied if their features are alike. The second eigenvector of
the normalised graph Laplacian (J. Shi, J. Malik, "Normalized Cuts and Image Segmentation", 2000) splits photo
into two parts; the one that holds its largest entry is foreground, and of it what hangs together with that
cell, as in TokenCut (Y. Wang et al., 2022). That first guess gives a mean feature of foreground and of
background; on a finer map each cell then joins the nearer one, a few times over.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from PIL import Image
from pydantic import Field
from scipy.linalg import eigh
from scipy.ndimage import label
from torch import nn
from torch.nn import functional as F

from dali_bgaug.errors import UserError
from dali_bgaug.files import read_json, sha256
from tools.offline.detectors.base import Detector, DetectorOptions

WEAK_TIE = 1e-5
"""Between cells that are not alike: it keeps the graph in one piece."""
SHARPNESS = 10.0
"""How fast saliency goes from 0 to 1 as a cell comes nearer to the foreground's centroid (cosine)."""


class NCutOptions(DetectorOptions):
    """Options of the normalised cut."""

    WEIGHTS = "the backbone.pt of a run"

    name: Literal["ncut"] = "ncut"
    weights: Path
    """A run's backbone.pt (a ResNet), with its card backbone.json beside it."""
    stage: Literal[3, 4] = 3
    """The stage of the network that is cut; small or little-trained ones know more in the third."""
    side: int = Field(default=384, ge=64)
    """The photo goes into the network with its longest side this long, in pixels."""
    tie: float = Field(default=0.2, ge=-1, le=1)
    """Cells are alike from this cosine of their centred features on."""
    rounds: int = Field(default=5, ge=0)
    """Of the refinement with two centroids; 0: the cut itself."""

    def record(self) -> dict[str, Any]:
        """The options, and hashes of the weights and of the card, which says how photos are normalised."""
        hashes = {"weights_sha256": self.weights, "card_sha256": self.weights.with_suffix(".json")}
        return super().record() | {name: sha256(path) for name, path in hashes.items()}

    def _build(self) -> "NCut":
        return NCut(self)


class NCut(Detector):
    """Normalised cut on features of a backbone."""

    batch = 1  # photos differ in size

    def __init__(self, options: NCutOptions) -> None:
        torch.set_num_threads(1)  # see Detector
        self.options = options
        self.network, normalise = _load(options.weights)
        self.mean, self.std = (np.array(normalise[name], np.float32) for name in ("mean", "std"))

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """Uint8 [H, W, 3] -> float [h, w] in [0, 1], a value a cell of the finer map."""
        height, width = image.shape[:2]
        scale = self.options.side / max(height, width)
        size = [max(32, round(side * scale / 32) * 32) for side in (width, height)]
        pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), np.float32) / 255
        pixels = torch.from_numpy((pixels - self.mean) / self.std).permute(2, 0, 1)[None]
        with torch.inference_mode():
            fine, coarse = features(self.network, pixels, self.options.stage)
        foreground = cut(coarse.numpy(), self.options.tie)
        if foreground is None:
            return np.zeros(fine.shape[1:])
        return refine(fine.numpy(), foreground, self.options.rounds)


def features(network: nn.Module, pixels: torch.Tensor, stage: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[1, 3, H, W] -> centred features of unit length, [C, h, w]: of a stage and the one before, and of the
    stage.

    The first have the size of the stage before. Stage 3 has a cell for 16 x 16 pixels, stage 4 for 32 x 32.
    """
    x = network.maxpool(network.relu(network.bn1(network.conv1(pixels))))
    maps = [x := getattr(network, f"layer{number}")(x) for number in range(1, stage + 1)]
    before, last = (F.normalize(_centre(map_), dim=1) for map_ in maps[-2:])
    larger = F.interpolate(_centre(maps[-1]), before.shape[2:], mode="bilinear", align_corners=False)
    both = torch.cat([before, F.normalize(larger, dim=1)], 1)
    return F.normalize(both, dim=1)[0], last[0]


def _centre(maps: torch.Tensor) -> torch.Tensor:
    """Without what all cells share: behind a ReLU all features point the same way."""
    return maps - maps.mean((2, 3), keepdim=True)


def cut(maps: np.ndarray, tie: float) -> np.ndarray | None:
    """Features of unit length [C, h, w] -> foreground, bool [h, w]; None if all cells are alike."""
    count = maps.shape[1] * maps.shape[2]
    cells = maps.reshape(len(maps), count)
    ties = np.where(cells.T @ cells >= tie, 1.0, WEAK_TIE)
    degree = ties.sum(1)
    if count < 3 or (ties == ties[0, 0]).all():
        return None
    vector = eigh(np.diag(degree) - ties, np.diag(degree), subset_by_index=[1, 1])[1][:, 0]
    seed = int(np.abs(vector).argmax())
    side = (vector > vector.mean()) == (vector[seed] > vector.mean())
    parts, _ = label(side.reshape(maps.shape[1:]))
    return parts == parts.ravel()[seed]


def refine(maps: np.ndarray, foreground: np.ndarray, rounds: int) -> np.ndarray:
    """A coarse foreground, bool [h, w], on features [C, H, W] -> saliency, float [H, W] in [0, 1]."""
    rows = np.arange(maps.shape[1]) * foreground.shape[0] // maps.shape[1]
    columns = np.arange(maps.shape[2]) * foreground.shape[1] // maps.shape[2]
    mask = foreground[rows[:, None], columns]
    saliency = mask.astype(float)
    for _ in range(rounds):
        if mask.all() or not mask.any():
            break
        inside, outside = (maps[:, part].mean(1) for part in (mask, ~mask))
        inside, outside = (mean / max(np.linalg.norm(mean), 1e-12) for mean in (inside, outside))
        nearer = np.tensordot(inside - outside, maps, 1)
        saliency = 1 / (1 + np.exp(-SHARPNESS * nearer))
        mask = nearer > 0
    return saliency


def _load(weights: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The backbone in evaluation mode, and the mean and standard deviation of its input."""
    card_path = weights.with_suffix(".json")
    if not weights.is_file():
        raise UserError(f"weights={weights}: no such file; give the backbone.pt of a finished run")
    remedy = "python -m train.export RUN writes both"
    try:
        card = read_json(card_path, remedy)
        architecture, normalise = card["architecture"], card["input"]["normalise"]
    except UserError as error:
        raise UserError(f"weights={weights}: its card {error}") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"weights={weights}: {card_path} is not its card (no {error}); {remedy}") from error
    if not architecture.startswith("resnet"):
        raise UserError(f"weights={weights}: a {architecture}; ncut needs a ResNet")
    network = getattr(torchvision.models, architecture)(weights=None)
    network.fc = nn.Identity()
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # a file cut short, of another kind, or of another network
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"weights={weights}: not the weights of a {architecture} ({reason}); python -m train.export RUN "
            "writes them"
        ) from error
    return network.eval(), normalise
