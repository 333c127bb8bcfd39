"""Robustness: accuracy of one classifier under the distribution shifts of the paper's section 5.

protocol.py    what a network, a set and a score are here
fgsm.py        the fast gradient sign method, and accuracy under it
run.py         one pass over a set: every photo judged once
results.py     the file of results, written after every set
"""
