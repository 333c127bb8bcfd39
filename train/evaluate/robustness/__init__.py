"""Robustness: accuracy of one classifier under the distribution shifts of the paper's section 5.

protocol.py    what a network, a set and a score are here
"""
