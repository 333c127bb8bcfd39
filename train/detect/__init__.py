"""Detection on a backbone of ours, as MoCo's authors measure it: R50-C4 on VOC and COCO (appendix A.10).

voc.py   VOC's metric
"""
