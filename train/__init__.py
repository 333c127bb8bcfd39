"""A thin DDP trainer: `torchrun -m train --config configs/NAME.yaml [key=value …]`.

    config.py       what a run is (RunConfig)
    method.py       what a method is: its options, its hooks around a step
    methods/        one file a method: owns its networks, turns a batch into a loss
    networks.py     backbones and heads
    batch_norm.py   statistics over groups of photos, within a rank or across ranks
    optim.py        LARS, LARC, the options of an optimizer
    schedules.py    learning rates, the momentum of a target network
    distributed.py  process group, gathering, exchanging rows between ranks
    signals.py      stopping when a cluster asks to
    checkpoint.py   atomic checkpoints
    monitor.py      log, progress bar, TensorBoard, warnings
    loop.py         epochs, steps, resume
    initial.py      given weights that a run starts from
    resume.py       the checkpoint that a run goes on from
    export.py       `python -m train.export`: the backbone alone, with a card
    evaluate/       `python -m train.evaluate`: linear probes, fine-tuning, k-NN, the background gap

Nothing outside this folder imports it. Data comes from `pipelines`.
"""
