"""A thin DDP trainer: `torchrun -m train --config configs/NAME.yaml [key=value …]`.

    config.py       what a run is (RunConfig)
    methods/        one file a method: owns its networks, turns a batch into a loss
    networks.py     backbones, batch normalisation in groups
    distributed.py  process group, gathering, exchanging rows between ranks
    schedules.py    learning rate
    checkpoint.py   atomic checkpoints, resume
    loop.py         epochs, steps, logging

Nothing outside this folder imports it. Data comes from `pipelines`; evaluation is not here yet.
"""
