"""The kernels as operators of DALI, which hands each photo of a batch to a thread of the pipeline."""

from typing import Any

from nvidia.dali import ops, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

from dali_bgaug.graph import kernels

# DALI's operator for code compiled elsewhere: it calls an address for every sample.
_Operator = ops.python_op_factory("NumbaFuncImpl", "NumbaFuncImpl", generated=False)

Input = tuple[DataNode, tuple[types.DALIDataType, int]]
"""A node, its type and its dimensions."""
_PHOTO, _VIEW, _ROW, _PACKED = (types.UINT8, 3), (types.FLOAT, 3), (types.FLOAT, 1), (types.UINT8, 1)
_PLACE, _ADDRESS, _FLAG = (types.INT32, 0), (types.INT64, 0), (types.BOOL, 0)


def make_view(size: int, photo: DataNode, row: DataNode) -> DataNode:
    """`kernels.make_view`: float32 [size, size, 3]; photo: uint8 [H, W, 3], row: float32 [kernels.LENGTH]."""
    return _run(kernels.make_view_entry, size, (photo, _PHOTO), (row, _ROW))


def make_view_over_grey(size: int, photo: DataNode, row: DataNode, packed: DataNode) -> DataNode:
    """`make_view`, and a grey level behind it where the row says so; packed: mask, uint8 [S * S / 8]."""
    return _run(kernels.make_view_over_grey_entry, size, (photo, _PHOTO), (row, _ROW), (packed, _PACKED))


def make_view_over_image(
    size: int, photo: DataNode, row: DataNode, packed: DataNode, images: DataNode, place: DataNode
) -> DataNode:
    """`make_view`, and behind it, where the row says so, one of the batch's images, float32 [size, size, 3];
    place: which, int32."""
    inputs = (photo, _PHOTO), (row, _ROW), (packed, _PACKED), *_others(images, place)
    return _run(kernels.make_view_over_image_entry, size, *inputs)


def copy_over(
    size: int,
    wanted: DataNode,
    images: DataNode,
    place: DataNode,
    view: DataNode,
    row: DataNode,
    packed: DataNode,
) -> DataNode:
    """Copy one of the batch's images, float32 [size, size, 3]; where it is `wanted` (bool), keep of it what
    is in the foreground of a view, and put the view's background behind it."""
    inputs = *_others(images, place), (view, _VIEW), (row, _ROW), (packed, _PACKED), (wanted, _FLAG)
    return _run(kernels.copy_over_entry, size, *inputs)


def _others(images: DataNode, place: DataNode) -> list[Input]:
    """Inputs with which a kernel can read another sample: `fn.permute_batch` would copy it.

    They are its address, and the images themselves, which stay in memory only while they are an input.
    """
    address = _run(kernels.find_entry, None, (images, _VIEW), (place, _PLACE))
    return [(address, _ADDRESS), (images, _VIEW)]


@do_not_convert
def _run(adapter: Any, size: int | None, *inputs: Input) -> DataNode:
    """Define an operator; inputs: nodes, each with its type and dimensions. One output: a view of this size,
    or an address."""
    nodes, kinds = zip(*inputs, strict=True)
    dtypes, dimensions = zip(*kinds, strict=True)
    output = _VIEW if size else _ADDRESS
    operator = _Operator(
        run_fn=adapter.address,
        setup_fn=kernels.shape_setter(size).address,
        in_types=list(dtypes),
        ins_ndim=list(dimensions),
        out_types=[output[0]],
        outs_ndim=[output[1]],
        batch_processing=size is None,
        device="cpu",
    )
    return operator(*nodes)
