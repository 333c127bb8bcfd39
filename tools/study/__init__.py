"""Whole runs, from photos to figures.

demo             photos to shards to a trained backbone, with figures
experiment       what background augmentations change, over seeds
experiment_data  its photos: a demo set, or the user's
experiment_page  its page and figure
ablation         the rows of a table of the paper as runs
ablation_page    its table and page
runs             folders of runs: trained, evaluated, kept
measures         what may be measured of a run
learning         what each method learns on the demo set
views            contact sheet of a loader
plot             loss curves of runs
rank_plot        figure of a run's ranks
saliency_train   photos to a saliency network, without labels
splits           photos packed into shards
"""
