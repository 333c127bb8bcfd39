#!/usr/bin/env bash
# Photos -> masks and tiles -> shards -> pre-training -> evaluation, each job after the one before has ended
# well. From the root of the checkout, after `make setup`:
#
#     examples/slurm/submit.sh [key=value …]      # values of the recipe
set -euo pipefail
cd "$(dirname "$0")/../.."
source examples/slurm/settings.sh
mkdir -p "$OUT" "$RUN"

submit() { sbatch --parsable --cpus-per-task="$CPUS" --kill-on-invalid-dep=yes "$@" | cut -d';' -f1; }

masks=$(submit --array="1-$PARTS" examples/slurm/masks.sh)
shards=$(submit --array="1-$PARTS" --dependency="afterok:$masks" examples/slurm/shards.sh)
train=$(submit --nodes="$NODES" --gpus-per-node="$GPUS" --dependency="afterok:$shards" \
    examples/slurm/train.sh "$@")
evaluation=$(submit --gpus-per-node="$GPUS" --dependency="afterok:$train" examples/slurm/evaluate.sh)
echo "masks $masks, shards $shards, training $train, evaluation $evaluation; what they say: slurm-JOB.out"
