"""The library: what lies on disk, the pieces of the DALI graph, and the loader.

    errors.py    UserError: bad input, in one clear line
    files.py     atomic writing and checksums
    config.py    strict YAML -> pydantic models
    hdf5.py      HDF5 files with checksums
    stores.py    HDF5 mask and tile stores (the offline artifacts)
    shards.py    WebDataset tars, DALI index, manifest (the training stream)
    decoding.py  what the training decoder can decode
    dataset.py   what can be read: packed shards, or class folders of photos (folder.py)
    reading.py   DALI: encoded samples -> decoded batches
    views/       options, table of render jobs, plan, and the renderers of CPU and GPU
    batches.py   reader + plan + renderer -> batches, ahead of who takes them
    workers.py   threads that outlive the main one
    loader.py    epochs, ranks, exact resume

What does not belong here: which views a method needs (`pipelines/`), training (`train/`), anything that is
run once per data set (`tools/`).
"""
