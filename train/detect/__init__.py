"""Detection on a backbone of ours, as MoCo's authors measure it: `python -m train.detect --config RECIPE`.

R50-C4 on VOC and COCO (appendix A.10). The lowest floor first:

    voc.py          VOC's metric
    masks.py        segmentations: polygons, run lengths
    statistics.py   batch norm's statistics for testing
    coco.py         COCO's metric
    objects.py      photos with objects, whatever their layout
    network.py      Faster and Mask R-CNN with C4 features
    voc_layout.py   VOC's files
    coco_layout.py  COCO's files
    photos.py       photos as tensors, in the order of training
    config.py       DetectConfig
    trunk.py        the backbone, with its weights
    trainer.py      steps, checkpoints, detections of a set
    training.py     from a set's files to a result
    __main__.py     the command
"""
