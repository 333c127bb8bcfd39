"""The library: what lies on disk, the pieces of the DALI graph, and the loader.

    errors        UserError: bad input, in one clear line
    files         atomic writing and checksums
    storage       object stores: whole objects by URL
    retries       their requests, tried again after transient faults
    config        strict YAML -> pydantic models
    markdown      tables of results
    figures       by matplotlib, without a screen
    processes     signals of a process that started this one
    photo_tree    which files of a folder are its photos
    orientation   EXIF orientation as the training decoder reads it
    decoding      what the training decoder can decode
    tiles         tiled backgrounds as eight numbers
    hdf5          HDF5 files with checksums
    stores        HDF5 mask and tile stores (the offline artifacts)
    crf           dense conditional random field, which draws a soft map to the edges of its photo
    shards        WebDataset tars and manifest (the training stream)
    shard_index   DALI's index of a tar
    cache         a folder of bounded size for copies of remote files
    shard_files   shards where they lie, or copies of those in an object store
    sampling      which samples a rank reads, in which order
    samples       encoded samples, and who reads them
    shard_reader  samples of packed shards
    folder        class folders of photos
    dataset       what can be read: packed shards or a folder, by one protocol
    fetching      batches of encoded samples, read ahead
    reading       DALI: encoded samples -> decoded batches
    views         options, table of render jobs, plan, and the renderers of CPU and GPU
    batches       reader + plan + renderer -> batches, ahead of who takes them
    workers       threads that outlive the main one
    loader        epochs, ranks, exact resume

What does not belong here: which views a method needs (`pipelines`), training (`train`), anything that is run
once per data set (`tools`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dali_bgaug.dataset import Dataset, open_data
    from dali_bgaug.errors import UserError
    from dali_bgaug.loader import Loader
    from dali_bgaug.shards import Manifest, open_shards

__version__ = "0.1.0"

__all__ = ["Dataset", "Loader", "Manifest", "UserError", "__version__", "open_data", "open_shards"]

_MODULES = {
    **{"Dataset": "dataset", "open_data": "dataset", "UserError": "errors", "Loader": "loader"},
    **{"Manifest": "shards", "open_shards": "shards"},
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: DALI and torch take seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
