#!/usr/bin/env bash
# Shards, a part of them: a job array, 1 to PARTS, after all masks. The part that ends last writes the manifest.
#SBATCH --job-name=bgaug-shards
#SBATCH --ntasks=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source examples/slurm/settings.sh
step "$VENV/bin/python" -m tools.shards --photos "$DATA" --masks "$OUT/masks" --tiles "$OUT/tiles" \
    --out "$OUT/shards" --part "$SLURM_ARRAY_TASK_ID/$PARTS"
