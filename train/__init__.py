"""A thin DDP trainer: `torchrun -m train --config configs/NAME.yaml [key=value …]`.

The lowest floor first; modules import only from floors below their own (`tests/train/test_floors.py`):

    distributed.py     process group, collectives, rows exchanged between ranks
    schedules.py       learning rates, the momentum of a target network
    drn.py             dilated residual networks
    networks.py        backbones and heads
    device.py          the device of the networks
    records.py         checkpoints, cards and log lines: typed, versioned, validated when read
    batch_norm.py      statistics over groups of photos, within a rank or across ranks
    optim.py           LARS, LARC, the options of an optimizer
    signals.py         stop requests of a cluster
    recipe_program.py  the command line of saliency and detection
    safetensors.py     files of safetensors
    checkpoint.py      files of checkpoints
    writer.py          checkpoints written in the background
    foreign.py         weights of other projects
    monitor.py         log, progress bar, TensorBoard, warnings
    ranks.py           measurements of all ranks for a line of the log
    features.py        features of a whole set, each photo once, on any number of ranks
    neighbours.py      weighted k-NN; also every n epochs while pre-training
    export_formats.py  exports for torchvision, timm and detectron2, and safetensors
    export.py          `python -m train.export`: the backbone alone, with a card
    method.py          the interface of a method: its options, its hooks around a step
    methods/           one file a method: owns its networks, turns a batch into a loss
    config.py          RunConfig
    check.py           `python -m train.check`: recipes of many runs, before one starts
    initial.py         initial weights of a run
    trainer.py         Trainer: optimizer steps, epochs
    checkpointer.py    Checkpointer: load, restore, save, prune
    health.py          `python -m train --check`: machines, data and disk, before training
    loop.py            Loop, train: what happens between steps
    evaluate/          `python -m train.evaluate`: linear probes, fine-tuning, k-NN, the background gap
    import_weights.py  `python -m train.import_weights`: a backbone from another project's file
    saliency/          `python -m train.saliency`: a saliency network without labels
    detect/            `python -m train.detect`: Faster and Mask R-CNN on VOC and COCO
    speed.py           `python -m train.speed`: throughput with the loader and without
    __main__.py        `python -m train`

Nothing outside this folder imports it. Data comes from `pipelines`.
"""

import os

# Before torch loads OpenMP, whose threads else spin for milliseconds at every barrier: where other programs
# want the cores, too, a step took three to twenty times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
