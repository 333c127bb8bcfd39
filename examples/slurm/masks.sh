#!/usr/bin/env bash
# Masks and tiles of a part of the photos: a job array, 1 to PARTS. Tiles of a part need its masks alone.
#SBATCH --job-name=bgaug-masks
#SBATCH --ntasks=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source examples/slurm/settings.sh
part="$SLURM_ARRAY_TASK_ID/$PARTS"
step "$VENV/bin/python" -m tools.masks --photos "$DATA" --out "$OUT/masks" --part "$part" \
    --detector "$DETECTOR" ${WEIGHTS:+--weights "$WEIGHTS"}
step "$VENV/bin/python" -m tools.tiles --masks "$OUT/masks" --out "$OUT/tiles" --part "$part"
