"""Robustness: accuracy of one classifier under the distribution shifts of the paper's section 5.

protocol.py        what a network, a set and a score are here
imagenet.py        ImageNet's classes, and what other sets have of them (data/)
source.py          a set as the user gives it: options, photos, counts
networks.py        a run's own classifier, and torchvision's networks
scores.py          accuracy where a photo may have several right classes
fgsm.py            the fast gradient sign method, and accuracy under it
class_folders.py   one's own sets, ImageNet-A, -R and -v2
real.py            ReaL
objectnet.py       ObjectNet
corrupted.py       ImageNet-C
cue_conflict.py    shape bias
sets.py            all of them by name
run.py             one pass over a set: every photo judged once
results.py         the file of results, written after every set
command.py         `python -m train.evaluate robustness`
"""
