"""Files of safetensors, against one that the package has written, and damaged ones."""

from pathlib import Path

import pytest
import torch

from dali_bgaug.errors import UserError
from train import checkpoint, safetensors

TENSORS = {
    "b.weight": torch.tensor([[1.0, 2.0], [3.0, -4.0]]),
    "a.n": torch.tensor(7),
    "h": torch.tensor([1.5], dtype=torch.bfloat16),
}
# safetensors.torch.save of these, version 0.8.0.
HEADER = (
    b'{"__metadata__":{"format":"pt"},"a.n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
    b'"b.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},'
    b'"h":{"dtype":"BF16","shape":[1],"data_offsets":[24,26]}}   '
)
DATA = b"\7\0\0\0\0\0\0\0\0\0\x80?\0\0\0@\0\0@@\0\0\x80\xc0\xc0?"
RECORDED = b"\xd0\0\0\0\0\0\0\0" + HEADER + DATA


def test_a_file_is_the_packages_to_the_byte(tmp_path: Path) -> None:
    safetensors.write(tmp_path / "ours.safetensors", TENSORS, {"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == RECORDED
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]


def test_the_packages_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "theirs.safetensors").write_bytes(RECORDED)
    found = checkpoint.read(tmp_path / "theirs.safetensors")
    assert set(found) == set(TENSORS)
    for name, value in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert torch.equal(found[name], value)


def test_a_tensor_may_be_empty_and_have_any_name(tmp_path: Path) -> None:
    tensors = {"metadata": torch.zeros(0, 3), "é": torch.ones(2, dtype=torch.uint8)}
    safetensors.write(tmp_path / "a.safetensors", tensors, {})
    found = safetensors.read(tmp_path / "a.safetensors")
    assert found["metadata"].shape == (0, 3)
    assert found["é"].tolist() == [1, 1]


def _file(header: bytes, data: bytes = DATA) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0", "its header would be of 0 bytes, more than there are"),
        (RECORDED[:-1], r"bytes 24 to 26 are not those of h"),
        (RECORDED + b"\0", "1 bytes at its end belong to no tensor"),
        (b"\xff" * 8 + HEADER, "header would be of 18446744073709551615 bytes"),
        (_file(b"[1]"), "its header"),
        (_file(b"[" * 100_000), "its header"),
        (_file(HEADER.replace(b"[2,2]", b"[2,3]")), r"bytes 8 to 24 are not those of b.weight, F32 \[2, 3\]"),
        (_file(HEADER.replace(b"[2,2]", b"[-2,-2]")), r"its header: b.weight.shape.0"),
        (_file(HEADER.replace(b"[24,26]", b"[22,24]")), "bytes 22 to 24 are not those of h"),
        (_file(HEADER.replace(b"F32", b"F31")), "its header: b.weight.dtype"),
    ],
)
def test_damage_is_said(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=rf"theirs.safetensors: damaged, or no safetensors: .*{message}"):
        checkpoint.read(tmp_path / "theirs.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"<!DOCTYPE html><title>404", "it is a page of HTML"),
    ],
)
def test_downloads_that_failed_are_said(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=rf"theirs.safetensors: {message}"):
        checkpoint.read(tmp_path / "theirs.safetensors")
