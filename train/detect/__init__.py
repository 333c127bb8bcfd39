"""Detection on a backbone of ours, as MoCo's authors measure it: R50-C4 on VOC and COCO (appendix A.10).

The lowest floor first:

    voc.py          VOC's metric
    masks.py        segmentations: polygons, run lengths
    objects.py      photos with objects, whatever their layout
    voc_layout.py   VOC's files
    coco_layout.py  COCO's files
    network.py      Faster and Mask R-CNN with C4 features
    trunk.py        the backbone, with its weights
"""
