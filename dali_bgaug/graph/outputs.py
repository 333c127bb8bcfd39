"""What a graph ends with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert


@dataclass
class Views:
    """The views of a batch, normalised float [size, size, 3] by name, and how they came about."""

    view: dict[str, DataNode]
    replaced: DataNode
    """bool [views]: whether the background was replaced, in the order of `view`; on the CPU."""
    matched: list[DataNode]
    """swaps: for each negative, bool: whether it is to have the background of the view it `matches`."""
    match: Callable[[int, DataNode, DataNode], DataNode] | None = None
    """swaps: (number, images, place) -> that negative, made of another photo's image, which has this place in
    the batch (int32): where it is matched, the image in the foreground of the view it `matches` and that
    view's background; elsewhere the image."""
    sources: dict[str, DataNode] = field(default_factory=dict)
    """For contact sheets: photo, mask, tile (uint8 thumbnails) and window, float32 [views, 4]."""

    @do_not_convert
    def outputs(self) -> dict[str, DataNode]:
        """The outputs of a graph: the views, and what else a batch says of itself."""
        outputs = {**self.view, "replaced": self.replaced}
        if self.matched:
            outputs["matched"] = fn.stack(*self.matched) if len(self.matched) > 1 else self.matched[0]
        return outputs | self.sources
