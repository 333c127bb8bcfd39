"""The loader's benchmark: `python -m tools.bench --help`.

    __main__    the command line
    measure     the main benchmark: every stage of every pipeline, interleaved
    stages      what is timed: our pipelines up to a stage, and the torchvision reference
    opponents   other loaders doing as much of the same work as they can
    ffcv_child  one of them, which runs in another Python
    timing      rounds, CPU time, memory, medians with their intervals
    cold        a stage by itself in a fresh process: first batch, memory
    profile     what each step of a view costs
    sweep       which settings are fastest
    startup     a data set of a million samples: seconds and memory to the first batch
    feeding     does the loader keep a model fed
    machine     what a figure was measured on
    page        the result as a table, a page and pictures

How much hardware a training run needs is worked out from its result by `tools.plan`.
"""
