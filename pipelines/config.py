"""Configuration of a loader, what it reads and how: the `data` section of every recipe."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PlainValidator, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from dali_bgaug.config import Options, merge
from dali_bgaug.decoding import DecodeOptions
from dali_bgaug.errors import UserError
from dali_bgaug.shard_files import CacheOptions
from dali_bgaug.shards import TILE_EXTENSION, TileKind, extensions
from dali_bgaug.storage import Location, location
from dali_bgaug.views.options import BackgroundOptions, NormaliseOptions, ViewOptions
from pipelines.methods import METHODS, MethodViews

_COMMON = ("crop", "photometric")

Value = TypeVar("Value")
Free = Annotated[Value, "free"]
"""The type of a field that may differ when a run is resumed: it changes no batch, and no weight."""


def free_fields(model: type[Options]) -> set[str]:
    """The names of a model's Free fields."""
    return {name for name, field in model.model_fields.items() if "free" in field.metadata}


def _location(value: Any) -> Location:
    """A path, or the URL of an object store, of what a config or a program gives."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("path_type", "Input is not a valid path")
    try:
        return location(value)
    except UserError as error:
        raise ValueError(str(error)) from error


class LoaderConfig(Options):
    """A loader's configuration, complete once made; fields but `shards` have defaults, some the method's.

    `crop` and `photometric` may be given beside `views`, for all views at once. The values of a field are
    looked up in this order:

        views.key.crop.size   in the config
        crop.size             in the config
        views.key.crop.size   in the method's defaults
        crop.size             in the method's defaults
        the default of CropOptions
    """

    pipeline: str = "moco_v2"
    """The method whose views are made: an entry of `pipelines.methods`."""
    shards: Free[Annotated[Location, PlainValidator(_location)]]
    """Packed shards (`tools.shards`): a folder, or in an object store (s3://bucket/prefix); evaluation also
    reads a folder of class folders of photos."""
    cache: Free[Path | None] = Field(default=None, strict=False)
    """Of shards in an object store: folder of this machine for copies, which its ranks share (null: one below
    the system's for temporary files)."""
    cache_gb: Free[float] = Field(default=100, gt=0)
    """Gigabytes of all copies together."""
    batch_size: int = Field(default=256, ge=1, le=2**20)
    """Photos a batch over all ranks; the number of ranks must divide it."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Device that makes pixels; auto takes a GPU if there is one."""
    verify: Free[bool | None] = None
    """Checksums of the shards at start; by default (null) if they are below 1 GiB."""
    half: bool = False
    """float16 views instead of float32."""
    views: dict[str, ViewOptions]
    """The views of a photo, and kinds of views, by name."""
    background: BackgroundOptions = BackgroundOptions()
    normalise: NormaliseOptions = NormaliseOptions()
    resize: int | None = Field(default=256, ge=8, le=4096)
    """Central crops (evaluation, `crop.kind: central`): the photo's short side before, in pixels. null, for
    evaluation: no resize; photos smaller than the crop are refused."""
    border: int = Field(default=0, ge=0, le=4096)
    """Evaluation: pixels cut off on every side of a photo before all else, as if they were not stored."""
    orientation: Literal["apply", "ignore"] = "apply"
    """EXIF orientation of photos. ignore, for evaluation: pixels as they are stored, as by PIL alone."""

    shuffle_buffer: int = Field(default=4096, ge=1, le=2**24)
    """Samples to draw the next one from, of shards in another order each epoch. Shards are globally shuffled
    when packed; this shuffles anew."""
    reader_depth: Free[int] = Field(default=2, ge=1, le=64)
    """Encoded batches kept ahead of the decoder."""
    threads: Free[int] = Field(default=0, ge=0, le=1024)
    """CPU threads of a rank that decode, and as many that make views without a GPU; 0: the CPUs of this
    process shared out among the ranks of the machine."""
    prefetch: Free[int] = Field(default=2, ge=1, le=64)
    """Finished batches kept ahead."""
    hw_decoder_load: float = Field(default=0.65, ge=0, le=1)
    """GPU: share of photos for the hardware JPEG decoder."""
    preallocate: Free[Annotated[tuple[int, int], Field(strict=False)]] = (0, 0)
    """GPU: width and height of photos the decoder's memory is made for at start; larger ones make it grow."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any) -> Any:
        """Lay the given values over the method's defaults, and what is common to all views under each."""
        if not isinstance(values, dict):
            return values
        name = values.get("pipeline", "moco_v2")
        if name not in METHODS:
            raise ValueError(f"pipeline={name!r}: no such method; there are {', '.join(METHODS)}")
        values = {key: _plain(value) for key, value in values.items()}
        values.pop("mmap", None)  # of before shards were read by our own reader; it changed no batch
        defaults, views = dict(METHODS[name].defaults), METHODS[name].views
        given = values.pop("views", {})
        if not isinstance(given, dict) or not all(isinstance(view, dict) for view in given.values()):
            raise ValueError(f"views={given!r}: expected a mapping of names to views")
        if unknown := set(given) - set(views):
            raise ValueError(f"views.{min(unknown)}: no view of {name}; its views are {', '.join(views)}")
        common, common_defaults = (
            {key: source.pop(key) for key in _COMMON if key in source} for source in (values, defaults)
        )
        _refuse_idle(common, [given.get(view, {}) for view in views])
        resolved = {}
        for view, own in views.items():
            its = given.get(view, {})
            resolved[view] = merge(merge(merge(common_defaults, own), _reaching(own, its, common)), its)
        return merge(defaults, values) | {"views": resolved}

    @model_validator(mode="after")
    def _check(self) -> "LoaderConfig":
        if self.background.kind == "none" and self.background.warmup_epochs:
            raise ValueError(
                "background.warmup_epochs: there is no background to warm up (background.kind=none)"
            )
        for name, view in self.views.items():
            if view.count != 1 and not self._is_kind(name):
                raise ValueError(f"views.{name}.count={view.count}: {self.pipeline} has one of these")
            if view.turns != self.method.views[name].get("turns", 1):
                raise ValueError(
                    f"views.{name}.turns={view.turns}: the method says how often a view is turned"
                )
        if not any(view.count for view in self.views.values()):
            raise ValueError("views: all counts are 0; one view at least is needed")
        replaceable = [name for name, view in self.views.items() if view.background and view.count]
        if self.background.kind != "none" and not replaceable:
            raise ValueError(f"background.kind={self.background.kind}: no view has background: true")
        if self.background.kind == "swaps" and self.pipeline != "moco_v2":
            raise ValueError(
                f"background.kind=swaps: only moco_v2 has extra negatives; take random for {self.pipeline}"
            )
        if not self.method.complete and (self.resize is None or self.border or self.orientation == "ignore"):
            raise ValueError(
                f"resize={self.resize} border={self.border} orientation={self.orientation}: only evaluation "
                "can go without a resize, cut a border, or ignore orientation; leave these out"
            )
        self.method.check(self)
        for name, view in self.views.items():
            if view.crop.kind == "central" and view.crop.fg_min > 0:
                raise ValueError(f"views.{name}.crop.fg_min: a central crop is not drawn; leave it out")
            if view.crop.kind == "central" and self.resize and view.crop.size > self.resize:
                raise ValueError(f"views.{name}.crop.size={view.crop.size}: larger than resize={self.resize}")
        return self

    @model_serializer(mode="wrap")
    def _serialised(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All fields, but of those that came later only what is not the default: what runs and loaders of
        before have recorded, they still find."""
        names = ("border", "orientation", "cache", "cache_gb")
        later = {name: self.__class__.model_fields[name].default for name in names}
        values = handler(self)
        return {name: value for name, value in values.items() if name not in later or value != later[name]}

    @property
    def cache_options(self) -> CacheOptions:
        """Options of copies of shards in an object store."""
        folder = {} if self.cache is None else {"folder": self.cache}
        return CacheOptions(**folder, gigabytes=self.cache_gb)

    @property
    def decoding(self) -> DecodeOptions:
        """Options of decoding photos. Without a resize the crop must lie in the photo."""
        inside = 1 if self.resize else max(view.crop.size for view in self.views.values())
        return DecodeOptions(self.orientation == "apply", self.border, inside + 2 * self.border)

    @property
    def method(self) -> MethodViews:
        """The method's entry."""
        return METHODS[self.pipeline]

    def _is_kind(self, name: str) -> bool:
        return "count" in self.method.views[name]

    @property
    def single_views(self) -> dict[str, ViewOptions]:
        """Every view of a photo by the name that batches give it, kinds numbered: `global_0`, …"""
        return {
            f"{name}_{number}" if self._is_kind(name) else name: view
            for name, view in self.views.items()
            for number in range(view.count)
        }


FREE = free_fields(LoaderConfig)
"""Fields that may differ when a loader's state is restored."""


def _reaching(own: dict[str, Any], given: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """Values for all views that reach one of a method: `fg_min` goes with backgrounds, so not those
    that keep theirs (SwAV's local ones), unless it is given for them under `views`."""
    crop = common.get("crop")
    if own.get("background", True) or given.get("background") or not isinstance(crop, dict):
        return common
    return common | {"crop": {key: value for key, value in crop.items() if key != "fg_min"}}


def _refuse_idle(common: dict[str, Any], views: list[dict[str, Any]]) -> None:
    """Refuse values for all views that every view overrides: they would change nothing."""
    for section, values in common.items():
        for key in values if isinstance(values, dict) else ():
            own = [view[section][key] for view in views if key in (view.get(section) or {})]
            if len(own) == len(views) and values[key] not in own:
                raise ValueError(
                    f"{section}.{key}={values[key]!r}: reaches no view, each says its own {section}.{key} "
                    "under views; change it there"
                )


def _plain(value: Any) -> Any:
    """Models as dicts, so that they merge like the values of a file."""
    if isinstance(value, Options):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def components(config: LoaderConfig, tiles: TileKind, everything: bool = False) -> list[str]:
    """The components of a sample that this configuration reads, or all there are; tiles: how shards keep
    them."""
    if everything:
        return list(extensions(tiles))
    tile = [TILE_EXTENSION[tiles]] if config.background.uses_tiles else []
    return ["jpg", "cls", *(["mask"] if uses_masks(config) else []), *tile]


def uses_masks(config: LoaderConfig) -> bool:
    """Whether views depend on the photos' masks."""
    return config.background.kind != "none" or any(view.crop.fg_min > 0 for view in config.views.values())


def require_masks(config: LoaderConfig, mask_size: int) -> None:
    """Refuse views that depend on masks where the set has none.

    Raises:
        UserError: they do, and it has not.
    """
    if uses_masks(config) and not mask_size:
        raise UserError(
            f"data.shards={config.shards}: has no masks, which background.kind={config.background.kind} and "
            "crop.fg_min above 0 need; take none and 0, or pack the photos with masks (make shards)"
        )
