"""The library: what lies on disk, the pieces of the DALI graph, and the loader.

    errors.py    UserError: bad input, in one clear line
    files.py     atomic writing and checksums
    config.py    strict YAML -> pydantic models
    stores.py    HDF5 mask and tile stores (the offline artifacts)
    shards.py    WebDataset tars, DALI index, manifest (the training stream)
    decoding.py  what the training decoder can decode
    windows.py   how a crop window is chosen
    graph/       the pieces every pipeline is assembled from
    loader.py    a built pipeline as an iterator of torch tensors (the only file that imports torch)

What does not belong here: which views a method needs (`pipelines/`), training (`train/`), anything that is
run once per data set (`tools/`).
"""
