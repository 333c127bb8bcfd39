"""The kernels as operators of DALI, which hands each photo of a batch to a thread of the pipeline."""

from typing import Any, NamedTuple

from nvidia.dali import ops, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

from dali_bgaug.graph import entries

# DALI's operator for code compiled elsewhere: it calls an address for every sample.
_Operator = ops.python_op_factory("NumbaFuncImpl", "NumbaFuncImpl", generated=False)

Input = tuple[DataNode, tuple[types.DALIDataType, int]]
"""A node, its type and its dimensions."""
_PHOTO, _VIEW, _PACKED, _ADDRESS = (types.UINT8, 3), (types.FLOAT, 3), (types.UINT8, 1), (types.INT64, 0)


class Row(NamedTuple):
    """One of the rows that photos have, float32 [rows, kernels.LENGTH]: an operator that cuts it out would
    cost more than it."""

    rows: DataNode
    number: int

    @property
    def inputs(self) -> list[Input]:
        """As a kernel takes it."""
        return [(self.rows, (types.FLOAT, 2)), _constant(self.number)]


class Other(NamedTuple):
    """Another sample of a batch of images, float32 [size, size, 3], whose place is `places[number]`, int32
    [places], or `places` itself."""

    images: DataNode
    places: DataNode
    number: int | None = None

    @property
    def inputs(self) -> list[Input]:
        """Its address, and the images themselves, which stay in memory only while they are an input.
        `fn.permute_batch` would copy them."""
        places = (self.places, (types.INT32, 0 if self.number is None else 1))
        address = _run(entries.find_entry, None, (self.images, _VIEW), places, _constant(self.number or 0))
        return [(address, _ADDRESS), (self.images, _VIEW)]


def make_view(size: int, photo: DataNode, row: Row) -> DataNode:
    """`kernels.make_view`: float32 [size, size, 3]; photo: uint8 [H, W, 3]."""
    return _run(entries.make_view_entry, size, (photo, _PHOTO), *row.inputs)


def make_view_over_grey(size: int, photo: DataNode, row: Row, packed: DataNode) -> DataNode:
    """`make_view`, and a grey level behind it where the row says so; packed: mask, uint8 [S * S / 8]."""
    inputs = (photo, _PHOTO), *row.inputs, (packed, _PACKED)
    return _run(entries.make_view_over_grey_entry, size, *inputs)


def make_view_over_image(size: int, photo: DataNode, row: Row, packed: DataNode, behind: Other) -> DataNode:
    """`make_view`, and an image of the batch behind it where the row says so."""
    inputs = (photo, _PHOTO), *row.inputs, (packed, _PACKED), *behind.inputs
    return _run(entries.make_view_over_image_entry, size, *inputs)


def copy_over(size: int, view: DataNode, row: Row, packed: DataNode, image: Other) -> DataNode:
    """Copy an image of the batch; where the row says so, keep of it what is in the foreground of a view, and
    put the view's background behind it."""
    inputs = (view, _VIEW), *row.inputs, (packed, _PACKED), *image.inputs
    return _run(entries.copy_over_entry, size, *inputs)


@do_not_convert
def _constant(number: int) -> Input:
    return types.Constant(number, dtype=types.INT32, device="cpu"), (types.INT32, 0)


@do_not_convert
def _run(entry: Any, size: int | None, *inputs: Input) -> DataNode:
    """Define an operator; inputs: at most six, DALI has room for no more. One output: a view of this size, or
    an address."""
    assert len(inputs) <= 6
    nodes, kinds = zip(*inputs, strict=True)
    dtypes, dimensions = zip(*kinds, strict=True)
    output = _VIEW if size else _ADDRESS
    operator = _Operator(
        run_fn=entry.address,
        setup_fn=entries.shape_setter(size).address,
        in_types=list(dtypes),
        ins_ndim=list(dimensions),
        out_types=[output[0]],
        outs_ndim=[output[1]],
        batch_processing=size is None,
        device="cpu",
    )
    return operator(*nodes)
