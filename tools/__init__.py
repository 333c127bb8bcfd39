"""Offline tools: run once per data set. Each is a program (`python -m tools.NAME`) and a function.

    masks        mask store, by one of `detectors`         tiles         tiled backgrounds
    shards       the training stream                       subsets       lists of 1 % and 10 % of the photos
    inspect      what is in stores and shards              saliency_eval how good masks are
    views        contact sheet of a loader                 plot          loss curves
    bench        images/s of every stage of a loader       offline_bench rates of the offline tools
    plan         what a cluster needs for a training       learning      what the methods learn
    parity       the loader against torchvision            experiment    what background augmentations change
    background_challenge   folders of photos with other backgrounds, for the background gap
    demo_data    photo-like photos with exact masks        demo_shapes   what is in them
    demo         all of it, with training                  gpu_check     what needs a GPU

Tools may use `pipelines` and `dali_bgaug`; training is a program of its own, which some start (`runs`).
"""
