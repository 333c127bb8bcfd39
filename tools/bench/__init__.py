"""Numbers: the loader's speed (`python -m tools.bench`), parity, quality of masks, capacity of a cluster.

__main__       the command line
measure        the main benchmark: every stage of every pipeline, interleaved
stages         what is timed: our pipelines up to a stage, and the torchvision reference
opponents      other loaders doing as much of the same work as they can
ffcv_child     one of them, which runs in another Python
timing         rounds, CPU time, memory, medians with their intervals
cold           a stage by itself in a fresh process: first batch, memory
profile        what each step of a view costs
sweep          which settings are fastest
startup        a data set of a million samples: seconds and memory to the first batch
feeding        does the loader keep a model fed
machine        what a figure was measured on
page           the result as a table, a page and figures
plan           what a cluster needs for a training, from a result
run_log        logs of training runs: their lines, their ranks
gpu_check      what needs a GPU: tests, benchmark, a training
offline_bench  rates of the offline tools
saliency_eval  scores of masks against true ones
map_scores     those of one map, by two protocols
parity         views of a loader against torchvision's
parity_steps   each step of a view against torchvision's
"""
