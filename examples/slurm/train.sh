#!/usr/bin/env bash
# Pre-training: srun starts one launcher a node, torchrun a rank a GPU. Ended before it is done, by its time
# limit or for another job, it is put in the queue again and goes on, with the same losses.
#
#     sbatch --nodes=2 --gpus-per-node=8 --cpus-per-task=96 examples/slurm/train.sh [key=value …]
#SBATCH --job-name=bgaug-train
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source examples/slurm/settings.sh
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
step "$VENV/bin/torchrun" \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$GPUS" --rdzv-backend=c10d \
    --rdzv-endpoint="${nodes[0]}:$((20000 + SLURM_JOB_ID % 10000))" \
    --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m train --config "$CONFIG" --out "$RUN" --auto-resume data.shards="$OUT/shards" "$@"
