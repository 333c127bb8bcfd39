"""Offline tools: run once per data set. Each is a program (`python -m tools.NAME`) and a function.

    demo_data    photo-like photos with exact masks        demo_shapes   what is in them
    masks        mask store, from a tree of PNGs           tiles         tiled backgrounds
    shards       the training stream                       views         contact sheet of a loader
    bench        images/s of every stage                   plot          loss curves
    demo         all of it, with training                  gpu_check     what needs a GPU

Tools may use `pipelines` and `dali_bgaug`; training is a program of its own, which `demo` starts.
"""
