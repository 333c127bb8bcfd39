# Settings of the jobs: edit them, or give them in the environment of submit.sh. Slurm's own are there, too:
# SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_QOS.
: "${DATA:=/data/imagenet/train}"                       # class folders of photos
: "${TEST:=/data/imagenet/val}"                         # those of the evaluation
: "${OUT:=/data/bgaug}"                                 # masks, tiles and shards
: "${DETECTOR:=fused}"                                 # of masks; u2net and others take WEIGHTS, too
: "${CONFIG:=configs/moco_v2_medium_swaps.yaml}"
: "${RUN:=/runs/swaps}"                                 # folder of the run, seen by all nodes
: "${PARTS:=16}"                                        # jobs of an array that prepares data
: "${CPUS:=96}"                                         # of a node
: "${NODES:=2}"                                         # that train
: "${GPUS:=8}"                                          # of a node; a rank trains on each
: "${VENV:=.venv}"                                      # of `make setup`, on a disk that all nodes see
export DATA TEST OUT DETECTOR CONFIG RUN PARTS CPUS NODES GPUS VENV

export SRUN_CPUS_PER_TASK="$CPUS"                       # srun does not take it from sbatch
export PET_SHUTDOWN_TIMEOUT=240                         # seconds in which ranks may save (torchrun)

# Run a job step. If the job is asked to end (before its time limit, by --signal=B:TERM@…, or by preemption), have
# the tasks save, and put the job in the queue again: the same command goes on from there.
step() {
    local asked='' pid status=0
    srun --kill-on-bad-exit=1 "$@" &
    pid=$!
    # Not srun itself, which would have them killed before they have saved.
    trap 'asked=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
    wait "$pid" || status=$?
    while kill -0 "$pid" 2>/dev/null; do  # a trap ended the wait, not the step
        status=0
        wait "$pid" || status=$?
    done
    trap - TERM
    if [[ $status != 0 && ($asked || $(preempted)) ]]; then
        scontrol requeue "$SLURM_JOB_ID" || true  # or Slurm has done so itself
    fi
    return "$status"
}

# Preemption asks the tasks, and not the script.
preempted() { scontrol show job "$SLURM_JOB_ID" | grep 'PreemptTime=[0-9]' || true; }
