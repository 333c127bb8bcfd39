"""Jobs of a cluster: submitted by a stub of Slurm to this machine, which records the programs that they
start; these are then run. Manifests of Kubernetes, and the Dockerfile, by their fields."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torchvision
import yaml
from torch.distributed.run import get_args_parser

from tests.helpers.runs import TinyNet, read_losses, write_recipe
from tests.helpers.sets import coloured_set
from tools.offline import masks, shards, tiles
from train.__main__ import main as train
from train.evaluate.__main__ import main as evaluate
from train.networks import FEATURES

ROOT = Path(__file__).parents[2]
STUBS = {
    # Runs the job at once, every task of an array, if all that it depends on was submitted before.
    "sbatch": """
        number=$(($(cat "$STUB/jobs" 2>/dev/null || echo 100) + 1)); echo $number > "$STUB/jobs"
        array='' nodes=1 script=''
        while [[ $# -gt 0 && ! $script ]]; do
            case $1 in
                --array=1-*) array=${1#--array=1-} ;;
                --nodes=*) nodes=${1#*=} ;;
                --dependency=afterok:*) [[ ${1##*:} -lt $number ]] || exit 3 ;;
                --*) ;;
                *) script=$1 ;;
            esac
            shift
        done
        export SLURM_JOB_ID=$number SLURM_JOB_NUM_NODES=$nodes SLURM_JOB_NODELIST=nodes
        for task in $(seq "${array:-1}"); do
            ${array:+env SLURM_ARRAY_TASK_ID=$task} bash "$script" "$@" >&2 || exit 4
        done
        echo "$number;cluster"
    """,
    "srun": 'while [[ $1 == --* ]]; do shift; done; echo $$ > "$STUB/task"; exec "$@"',
    "scontrol": """
        case "$1 $2" in
            "show hostnames") echo node7; echo node8 ;;
            "show job") echo "   PreemptTime=${PREEMPTED:-None}" ;;
            *) echo "$@" >> "$STUB/requeued" ;;
        esac
    """,
    "scancel": 'kill -TERM "$(cat "$STUB/task")"',
}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of jobs on two nodes of two GPUs, with a stub of Slurm, and of Python, in front of all else."""
    stub = tmp_path / "venv" / "bin"
    stub.mkdir(parents=True)
    record = 'echo "${0##*/}" "${@@Q}" >> "$STUB/commands"'
    for name, text in (STUBS | {"python": record, "torchrun": record}).items():
        (stub / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (stub / name).chmod(0o755)
    values = {"STUB": tmp_path, "VENV": stub.parent, "DATA": tmp_path / "photos", "TEST": tmp_path / "photos"}
    values |= {"OUT": tmp_path / "out", "RUN": tmp_path / "run", "CONFIG": tmp_path / "supervised.yaml"}
    values |= {"PARTS": 2, "NODES": 2, "GPUS": 2, "CPUS": 1, "DETECTOR": "rbd"}
    path = {"PATH": f"{stub}:{os.environ['PATH']}"}
    return {**os.environ, **path, **{name: str(value) for name, value in values.items()}}


def _commands(folder: Path) -> list[list[str]]:
    return [shlex.split(line) for line in (folder / "commands").read_text().splitlines()]


PROGRAMS: dict[str, Callable[[], None]] = {
    "tools.masks": masks.main,
    "tools.tiles": tiles.main,
    "tools.shards": shards.main,
    "train": train,
    "train.evaluate": evaluate,
}
SMALL = {  # what the test adds to a command
    "tools.masks": ["--workers=1"],
    "tools.tiles": ["--workers=1"],
    "tools.shards": ["--workers=1"],
    "knn": ["data.device=cpu", "data.threads=1"],
    "linear": ["epochs=1", "optim.milestones=[]", "optim.warmup_epochs=0", "data.batch_size=8"],
}


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a recorded command in this process; its module."""
    program, *words = words
    if program == "torchrun":
        parsed = get_args_parser().parse_args(words)
        assert parsed.module
        module, words = parsed.training_script, parsed.training_script_args
    else:
        assert words[0] == "-m"
        module, words = words[1], words[2:]
    more = SMALL.get(module) or SMALL.get(words[0], [])
    monkeypatch.setattr(sys, "argv", [module, *words, *more])
    PROGRAMS[module]()
    return module


@pytest.mark.slow
def test_slurm_jobs_from_photos_to_an_evaluated_run(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured_set(tmp_path, photos=18)
    write_recipe(tmp_path, tmp_path / "nowhere", "supervised", epochs=1)
    monkeypatch.setattr(torchvision.models, "resnet18", TinyNet)
    monkeypatch.setitem(FEATURES, "resnet18", 32)
    command = [str(ROOT / "examples" / "slurm" / "submit.sh"), "optim.milestones=[]"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=60)
    commands = _commands(tmp_path)
    parts = [words[words.index("--part") + 1] for words in commands if "--part" in words]
    assert parts == ["1/2", "1/2", "2/2", "2/2", "1/2", "2/2"]
    launch = get_args_parser().parse_args(commands[6][1:])
    assert (launch.nnodes, launch.nproc_per_node, launch.rdzv_backend) == ("2", "2", "c10d")
    assert (launch.rdzv_endpoint, launch.rdzv_id) == ("node7:20103", "103-0")
    monkeypatch.chdir(ROOT)
    assert [_run(words, monkeypatch) for words in commands] == [
        *("tools.masks", "tools.tiles") * 2,
        *("tools.shards", "tools.shards", "train", "train.evaluate", "train.evaluate"),
    ]
    assert len(read_losses(tmp_path / "run")) == 2
    assert list((tmp_path / "run").glob("*knn*.json"))
    assert list((tmp_path / "run" / "linear").glob("*.json"))


@pytest.mark.parametrize(
    ("task", "by", "status", "requeued"),
    [
        ("trap 'exit 1' TERM; touch $STUB/begun; while :; do sleep .02; done", "limit", 1, True),
        ("trap 'exit 0' TERM; touch $STUB/begun; while :; do sleep .02; done", "limit", 0, False),
        ("exit 1", "preemption", 1, True),
        ("exit 1", "", 1, False),
        ("exit 0", "", 0, False),
    ],
    ids=["stopped", "finished all the same", "preempted", "failed", "finished"],
)
def test_a_slurm_job_that_was_stopped_is_queued_again(
    task: str, by: str, status: int, requeued: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    job = 'set -euo pipefail; source examples/slurm/settings.sh; step bash -c "$1"; echo after'
    environment |= {"SLURM_JOB_ID": "101"}
    if by == "preemption":
        environment["PREEMPTED"] = "2026-01-01T00:00:00"
    process = subprocess.Popen(["bash", "-c", job, "job", task], env=environment, cwd=ROOT)
    if by == "limit":
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == status
    queue = tmp_path / "requeued"
    assert (queue.read_text() if queue.exists() else "") == ("requeue 101\n" if requeued else "")


def test_slurm_scripts_are_bash_with_the_signal_that_they_take() -> None:
    scripts = sorted((ROOT / "examples" / "slurm").glob("*.sh"))
    assert len(scripts) == 6
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        if script.stem not in ("settings", "submit"):
            assert {"#SBATCH --requeue", "#SBATCH --open-mode=append"} <= set(script.read_text().splitlines())
            assert "#SBATCH --signal=B:TERM@" in script.read_text()


def _manifests() -> dict[tuple[str, str], dict[str, Any]]:
    paths = sorted((ROOT / "examples" / "k8s").glob("*.yaml"))
    documents = [one for path in paths for one in yaml.safe_load_all(path.read_text())]
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def test_kubernetes_jobs_find_their_storage_and_each_other() -> None:
    found = _manifests()
    names = ("bgaug-evaluate", "bgaug-masks", "bgaug-shards", "bgaug-train")
    assert sorted(found) == [
        *(("Job", name) for name in names),
        ("PersistentVolumeClaim", "bgaug-data"),
        ("Service", "bgaug-train"),
    ]
    for name in names:
        job = found["Job", name]["spec"]
        pod = job["template"]["spec"]
        assert pod["restartPolicy"] == "Never"  # as podFailurePolicy needs it
        assert job["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget"}]
        claims = {
            one["name"]: one.get("persistentVolumeClaim", {}).get("claimName") for one in pod["volumes"]
        }
        assert claims == {"data": "bgaug-data", "shm": None}
        [container] = pod["containers"]
        assert {one["name"]: one["mountPath"] for one in container["volumeMounts"]} == {
            "data": "/data",
            "shm": "/dev/shm",
        }
    for name in ("bgaug-masks", "bgaug-shards"):
        job = found["Job", name]["spec"]
        assert (job["completionMode"], job["completions"]) == ("Indexed", job["parallelism"])
        assert f"+ 1))/{job['completions']}\n" in job["template"]["spec"]["containers"][0]["args"][0]


def test_kubernetes_trains_with_a_launcher_a_node() -> None:
    found = _manifests()
    job, service = found["Job", "bgaug-train"]["spec"], found["Service", "bgaug-train"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in container["args"]]
    launch = get_args_parser().parse_args(words)
    assert launch.node_rank == 1
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == int(launch.nnodes)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(launch.nproc_per_node)
    assert launch.master_addr == f"bgaug-train-0.{pod['subdomain']}"
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"] == {"job-name": "bgaug-train"}
    assert launch.master_port == service["ports"][0]["port"]
    assert (launch.module, launch.training_script) == (True, "train")
    assert "--auto-resume" in launch.training_script_args
    assert int(container["env"][0]["value"]) < pod["terminationGracePeriodSeconds"]


def test_the_image_has_what_a_checkout_has() -> None:
    """All that git keeps, and none of what it ignores."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line.removeprefix("**/") for line in lines if line and not line.startswith("#")]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in tracked:
        assert not [one for one in ignored for part in Path(name).parts if fnmatch(part, one)], name
    assert {".git", ".venv", "out"} <= set(ignored)
    words = (ROOT / "Dockerfile").read_text().split()
    assert {"gcc", "python3-dev"} <= set(words)  # for Triton
    assert words[words.index("COPY") + 1 : words.index("COPY") + 3] == [".", "."]
