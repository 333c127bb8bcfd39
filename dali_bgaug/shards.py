"""The training stream on disk: WebDataset tars, each with DALI's index, and one manifest.

A sample is four members of a tar, so one sequential read brings everything (KEY is the photo's relative path
without its suffix; dots and blanks of the file name become `_`, since an extension starts at the first dot):

    KEY.jpg        the photo's own bytes, never re-encoded
    KEY.mask       the binary mask, S x S bits, rows from the top, most significant bit first: S*S/8 bytes
    KEY.tile       the tiled background as geometry (`tiles.py`), eight int32, little-endian; or, in shards
    KEY.tile.jpg   that say `tiles: pixels`, as a JPEG; zeros, or empty, for what must never be a donor
    KEY.cls        the label, LABEL_DIGITS decimal digits

`manifest.json` is written last: a folder without one is not a data set. Opening a data set checks the
shards against it.
"""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Collection, Container, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from dali_bgaug import __version__, storage
from dali_bgaug.config import Options
from dali_bgaug.decoding import MAX_PIXELS
from dali_bgaug.errors import UserError
from dali_bgaug.files import atomic, require_folder, sha256, write_text
from dali_bgaug.shard_index import REMEDY, Members, locate_samples, read_index
from dali_bgaug.storage import Location
from dali_bgaug.tiles import NUMBERS

VERSION = 1
MANIFEST = "manifest.json"
TileKind = Literal["geometry", "pixels"]
TILE_EXTENSION = {"geometry": "tile", "pixels": "tile.jpg"}
LABEL_DIGITS = 6
VERIFY_BELOW_BYTES = 1 << 30  # checksums of a set below 1 GiB cost a second at most


class Sample(NamedTuple):
    """One photo with everything training needs of it."""

    key: str
    photo: bytes
    mask: np.ndarray
    """bool [S, S]."""
    tile: bytes | np.ndarray | None
    """A JPEG, or geometry int32 [8]; None if it must never be a donor."""
    label: int


class Shard(Options):
    """One tar and its index."""

    name: str
    samples: int = Field(ge=0)
    bytes: int
    sha256: str
    index: str
    index_sha256: str

    @field_validator("name", "index")
    @classmethod
    def _in_the_folder(cls, name: str) -> str:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not the name of a file in the shards' folder")
        return name


class Manifest(Options):
    """`manifest.json`: what a data set is made of."""

    format: str = "dali_bgaug shards"
    version: int = VERSION
    samples: int
    donors: int
    """Samples whose tile may be used as another photo's background."""
    classes: list[str]
    mask_size: int
    tiles: TileKind = "pixels"
    """Kind of tiled backgrounds; sets packed before there was a choice have pixels."""
    options: dict[str, Any]
    """Options that masks, tiles and shards were made with: detector, threshold, sizes, seed."""
    source: str
    """Hash of what the shards were packed from."""
    left_out: list[tuple[str, str, str]] = Field(default=[])
    """Photos that could not be packed: path, reason, detail; those without a mask are in the masks'
    report."""
    suspicious: list[str] = Field(default=[])
    """Photos that are packed, though damaged inside, which decoders forgive."""
    shards: list[Shard] = Field(min_length=1)
    package_version: str = ""
    """Of dali_bgaug, which wrote this; sets packed before it was recorded have none."""
    digest: str = ""
    """SHA-256 of all this without the digest, as JSON; sets packed before there was one have none."""

    @model_validator(mode="after")
    def _adds_up(self) -> "Manifest":
        together = sum(shard.samples for shard in self.shards)
        if self.samples != together:
            raise ValueError(f"samples: {self.samples}, but its shards have {together}")
        names = Counter(name for shard in self.shards for name in (shard.name, shard.index))
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise ValueError(f"shards: {', '.join(twice)} listed twice")
        if self.digest and self.digest != self._digest(self.model_fields_set):
            raise ValueError("digest: not that of its content, which was changed or damaged")
        return self

    def _digest(self, names: Collection[str]) -> str:
        """Of these fields: a manifest of before there were some has the digest of the others."""
        content = self.model_dump_json(include=set(names) - {"digest"})
        return hashlib.sha256(content.encode()).hexdigest()

    def signed(self) -> "Manifest":
        """The same with the version of this package, and its digest."""
        signed = self.replaced(**dict(self) | {"package_version": __version__, "digest": ""})
        return signed.replaced(digest=signed._digest(type(self).model_fields))

    @property
    def max_pixels(self) -> int:
        """Of a photo that may be packed and read."""
        return self.options.get("max_pixels", MAX_PIXELS)

    @property
    def is_looked_into(self) -> bool:
        """Whether packing looked at photos' EXIF blocks and for damage inside, which it once did not."""
        return "suspicious" in self.model_fields_set

    @property
    def bytes(self) -> int:
        """Bytes of all tars."""
        return sum(shard.bytes for shard in self.shards)


def member_key(relative_path: str) -> str:
    """The name of a photo inside the tars: `n01/a b.c.JPEG` -> `n01/a_b_c`."""
    folder, slash, name = relative_path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return "_".join(folder.split()) + slash + "_".join(stem.replace(".", " ").split())


def pack_mask(mask: np.ndarray) -> bytes:
    """bool [S, S] -> S*S/8 bytes."""
    return np.packbits(mask, axis=1).tobytes()


def unpack_mask(data: bytes, size: int) -> np.ndarray:
    """S*S/8 bytes -> bool [S, S]."""
    return np.unpackbits(np.frombuffer(data, np.uint8)).reshape(size, size).astype(bool)


def pack_tile(tile: bytes | np.ndarray | None, kind: TileKind) -> bytes:
    """A sample's tile as its member's bytes."""
    if isinstance(tile, np.ndarray):
        return tile.astype("<i4").tobytes()
    return tile or (b"" if kind == "pixels" else bytes(4 * NUMBERS))


def unpack_tile(data: bytes, kind: TileKind) -> bytes | np.ndarray | None:
    """A tile from its member's bytes: undoes `pack_tile`."""
    if kind == "pixels":
        return data or None
    geometry = np.frombuffer(data, "<i4")
    return geometry if geometry.any() else None


def extensions(tiles: TileKind) -> tuple[str, ...]:
    """A sample's members, in order."""
    return "jpg", "mask", TILE_EXTENSION[tiles], "cls"


def kind_of_tile(members: Container[str]) -> TileKind:
    """Kind of tile of a sample with these members."""
    return "pixels" if TILE_EXTENSION["pixels"] in members else "geometry"


def write_shard(folder: Path, name: str, samples: Iterable[Sample], tiles: TileKind = "geometry") -> Shard:
    """Write `name`.tar and `name`.idx atomically, the index last; tiles: what the samples' tiles are.

    The same samples give the same bytes: GNU headers with fixed owner, mode and time.
    """
    tar_path, index_path = folder / f"{name}.tar", folder / f"{name}.idx"
    lines = []
    digest = hashlib.sha256()
    with atomic(tar_path) as temporary, temporary.open("wb", buffering=1 << 20) as tar:
        offset = 0
        for sample in samples:
            label = f"{sample.label:0{LABEL_DIGITS}d}".encode()
            parts = (sample.photo, pack_mask(sample.mask), pack_tile(sample.tile, tiles), label)
            words = []
            for extension, data in zip(extensions(tiles), parts, strict=True):
                member = f"{sample.key}.{extension}"
                header = _header(member, len(data))
                words += [extension, str(offset + len(header)), str(len(data)), member]
                offset += _write(tar, digest, header, data)
            lines.append(" ".join(words))
        _write(
            tar, digest, bytes(-(offset + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE)
        )
    write_text(index_path, "\n".join([f"v1.2 {len(lines)}", *lines, ""]))
    return Shard(
        name=tar_path.name,
        samples=len(lines),
        bytes=tar_path.stat().st_size,
        sha256=digest.hexdigest(),
        index=index_path.name,
        index_sha256=sha256(index_path),
    )


def _header(name: str, size: int) -> bytes:
    """Header of a member as `tarfile` writes it, GNU format, from a template in a fifth of the time."""
    encoded = name.encode()
    if len(encoded) >= 100 or not name.isascii() or size >= 8**11:  # fields that need more than filling in
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o644, 0
        return info.tobuf(tarfile.GNU_FORMAT)
    header = bytearray(_TEMPLATE)
    header[: len(encoded)] = encoded
    header[124:135] = b"%011o" % size
    header[148:154] = b"%06o" % (sum(header) + _SPACES)
    return bytes(header)


def _template() -> bytes:
    header = bytearray(tarfile.TarInfo("").tobuf(tarfile.GNU_FORMAT))
    header[148:154] = bytes(6)  # the checksum, which counts as if it were eight blanks
    return bytes(header)


_TEMPLATE = _template()
_SPACES = 8 * ord(" ") - sum(_TEMPLATE[148:156])


def _write(tar: BinaryIO, digest: Any, *pieces: bytes) -> int:
    """Write pieces, and zeros up to a whole block; returns how many bytes that were.

    What `tarfile.addfile` does, which would take as long again as writing and checking a photo's bytes.
    """
    count = 0
    for piece in (*pieces, bytes(-len(pieces[-1]) % tarfile.BLOCKSIZE)):
        tar.write(piece)
        digest.update(piece)
        count += len(piece)
    return count


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically, with its digest."""
    write_text(folder / MANIFEST, manifest.signed().model_dump_json(indent=1) + "\n")


def read_manifest(place: Location, option: str = "shards") -> Manifest:
    """Read and check `manifest.json`, in a folder or an object store."""
    return parse_manifest(_read(place, option), storage.join(place, MANIFEST))


def _read(place: Location, option: str) -> bytes:
    """`manifest.json` as it lies there."""
    if isinstance(place, str):
        there = storage.find(storage.join(place, MANIFEST)) is not None
    else:
        there = (require_folder(place, option) / MANIFEST).is_file()
    if not there:
        raise UserError(
            f"{option}={place}: has no manifest.json; pack the shards first (make shards), to the end"
        )
    return storage.read(f"{place}/{MANIFEST}") if isinstance(place, str) else (place / MANIFEST).read_bytes()


def parse_manifest(data: bytes, path: Location) -> Manifest:
    """Content of a `manifest.json`, checked. path: of the file, or its URL, as errors name it."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join([*[".".join(map(str, first["loc"]))] * bool(first["loc"]), first["msg"]])
        raise UserError(f"{path}: not a manifest of this version ({problem}); pack again") from error
    if manifest.version != VERSION:
        raise UserError(f"{path}: version {manifest.version}, this program reads {VERSION}; pack again")
    return manifest


def open_shards(
    folder: Path,
    verify: bool | None = None,
    option: str = "shards",
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Manifest:
    """Read the manifest and check every shard against it.

    Sizes and the indices, entry by entry, are always checked; the tars' checksums with `verify=True`, or, by
    default (None), if the whole set is below 1 GiB. Of ranks that open a set together each looks into its
    n-th of the shards.
    """
    manifest = read_manifest(folder, option)
    if verify is None:
        verify = manifest.bytes < VERIFY_BELOW_BYTES
    for number, shard in enumerate(manifest.shards):
        tar, index = folder / shard.name, folder / shard.index
        for path in (tar, index):
            if not path.is_file():
                raise UserError(f"{path}: missing, but manifest.json lists it; {REMEDY}")
            if path.resolve().parent != folder.resolve():
                raise UserError(
                    f"{path}: a link to {path.resolve()}, out of the folder; put the file itself there"
                )
        if tar.stat().st_size != shard.bytes:
            raise UserError(
                f"{tar}: {tar.stat().st_size} bytes, but manifest.json says {shard.bytes}: "
                f"changed or cut short after packing; {REMEDY}"
            )
        if number % world_size != rank:
            continue
        read_members(index, manifest, number)
        if verify and sha256(tar) != shard.sha256:
            raise UserError(
                f"{tar}: its checksum is not the one in manifest.json: changed after packing; {REMEDY}"
            )
    return manifest


def read_members(index: Path, manifest: Manifest, number: int) -> Members:
    """Where the members of a shard's samples lie, by its index, which is checked.

    Args:
        index: the file.
        manifest: of the set.
        number: of the shard in it.

    Raises:
        UserError: it is not as it was packed.
    """
    shard = manifest.shards[number]
    if sha256(index) != shard.index_sha256:
        raise UserError(
            f"{index}: its checksum is not the one in manifest.json: changed after packing; {REMEDY}"
        )
    sizes: dict[str, int | None] = dict.fromkeys(extensions(manifest.tiles))
    sizes |= {"mask": manifest.mask_size**2 // 8, "cls": LABEL_DIGITS}
    if manifest.tiles == "geometry":
        sizes["tile"] = 4 * NUMBERS
    return read_index(index, shard.samples, shard.bytes, sizes)


def read_samples(folder: Path, shard: Shard) -> Iterable[Sample]:
    """The samples of one shard, in order, by way of its index."""
    with (folder / shard.name).open("rb") as file:
        for key, places in locate_samples(folder / shard.index):
            parts = {}
            for extension, (offset, size) in places.items():
                file.seek(offset)
                parts[extension] = file.read(size)
            side = int((len(parts["mask"]) * 8) ** 0.5)
            mask = unpack_mask(parts["mask"], side)
            kind = kind_of_tile(parts)
            tile = unpack_tile(parts[TILE_EXTENSION[kind]], kind)
            yield Sample(key, parts["jpg"], mask, tile, int(parts["cls"]))


def manifest_digest(place: Location) -> str:
    """A hash of the manifest: what a checkpoint remembers of its data."""
    return hashlib.sha256(_read(place, "shards")).hexdigest()
