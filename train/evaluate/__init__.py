"""Evaluation of pre-trained backbones: `python -m train.evaluate linear | finetune | knn | …`, and a report.

    backbone.py         the backbone of a run, a checkpoint, an exported or another project's file
    classifier.py       a trained classifier, and how many photos of a set it gets right
    labels.py           the labelled subset that shards are
    heads.py            linear classifiers on given features, for several rates together
    fast.py             the same on features of sets, extracted once
    probe.py            linear probes and fine-tuning by a recipe, as runs of the training loop
    background_gap.py   accuracy with other backgrounds
    report/             one table and picture of all results
    summary.py          where results lie, and a table of one
    robustness/         accuracy under the paper's distribution shifts
    __main__.py         the command line

Features and k-NN are `train.features` and `train.neighbours`, below the loop. Photos always come through the
project's loader. What is trained here is a run like any other: its method is `train.methods.probe`, its
recipes are in `configs/evaluate/`.
"""
