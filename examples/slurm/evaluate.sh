#!/usr/bin/env bash
# Evaluation of the run on one node: k-NN, then a linear probe by the recipe of its method. The same job goes
# on with a probe that was interrupted.
#SBATCH --job-name=bgaug-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source examples/slurm/settings.sh
evaluate() {
    step "$VENV/bin/torchrun" --standalone --nproc-per-node="$GPUS" -m train.evaluate "$@" \
        --checkpoint "$RUN" --data "$OUT/shards" --test "$TEST"
}
evaluate knn
evaluate linear "$@"  # key=value: of the probe's recipe
