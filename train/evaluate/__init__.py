"""What a pre-trained backbone is worth: `python -m train.evaluate linear | finetune | knn | background-gap`.

    __main__.py         the command line
    backbone.py         the backbone of a run, a checkpoint or an exported file
    features.py         features of a whole set, each photo once, on any number of ranks
    neighbours.py       weighted k-NN; also every n epochs while pre-training
    probe.py            linear probes and fine-tuning by a recipe, as runs of the training loop
    labels.py           whether shards are the part of the labels that fine-tuning is said to be on
    heads.py, fast.py   linear classifiers on features that were extracted once, for several rates together
    classifier.py       a trained classifier, and how many photos of a set it gets right
    background_gap.py   accuracy with other backgrounds

Photos always come through the project's loader. What is trained here is a run like any other: its method is
`train.methods.probe`, its recipes are in `configs/evaluate/`.
"""
