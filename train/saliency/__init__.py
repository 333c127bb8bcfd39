"""Training of a saliency network without labels: `python -m train.saliency --config RECIPE`.

DeepUSPS (T. Nguyen et al., "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With Self-Supervision",
2019) on a self-supervised trunk, as in appendix A.2 of the paper. The lowest floor first:

    loss.py      soft thresholding, the F loss
    network.py   a trunk with a head, and its export as ONNX
    config.py    SaliencyConfig
    photos.py    photos and voters' maps at the training size
    workers.py   worker processes, arrays on the disk
    average.py   moving average of refined predictions
    stages.py    the networks of both phases, and what they learn
    trainer.py   epochs and steps
    training.py  from mask stores to an ONNX file
    __main__.py  the command
"""
