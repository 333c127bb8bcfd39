"""Plan a cluster: the storage, CPU threads and disk that a training needs, and which resource binds first.

    python -m tools.plan --gpus 64 --images-per-second 2500 --cpus-per-node 128 --storage-mb-per-second 20000
    python -m tools.plan --log /runs/swaps/log.jsonl --gpus 64 --cpus-per-node 128
    python -m tools.plan --check

Bytes, CPU time and rates depend on the photos: measure your own shards. They are taken to grow with threads
and GPUs; --check holds that against the benchmark. What a loader takes of a GPU's time is not planned.
"""

import json
import math
from pathlib import Path
from typing import Any

from pydantic import AliasPath, BaseModel, Field, PositiveFloat, PositiveInt, ValidationError

from dali_bgaug.config import Options
from dali_bgaug.errors import UserError
from dali_bgaug.files import write_text
from tools.bench.run_log import RankLog, read_ranks
from tools.cli import run, tool_parser

RATE, STORAGE = "images/s", "storage MB/s, nothing cached"
SPREAD = {"median", "low", "high"}
BUSY, THREADS = "CPU threads, all busy", "CPU threads, as busy as measured"


class _Settings(BaseModel):
    threads: PositiveInt


class Row(BaseModel):
    """One stage of one pipeline, as measured: images/s and their interval, CPU time, encoded bytes read."""

    pipeline: str
    stage: str
    median: PositiveFloat = Field(validation_alias=AliasPath("images_per_s", "median"))
    low: PositiveFloat = Field(validation_alias=AliasPath("images_per_s", "low"))
    high: PositiveFloat = Field(validation_alias=AliasPath("images_per_s", "high"))
    cpu_ms_per_image: PositiveFloat
    bytes_per_image: PositiveFloat | None = None

    @property
    def name(self) -> str:
        """The name that --pipeline takes."""
        return f"{self.pipeline}/{self.stage}"


class _Scaling(Row):
    threads: PositiveInt


class _Data(BaseModel):
    photos: PositiveInt
    mb: PositiveFloat


class _Train(BaseModel):
    ranks: PositiveInt
    held: PositiveFloat = Field(validation_alias=AliasPath("images_per_s", "held"))


class Benchmark(BaseModel):
    """A result of `tools.bench`."""

    device: str = Field(validation_alias=AliasPath("machine", "device"))
    cpus: PositiveInt = Field(validation_alias=AliasPath("machine", "cpus"))
    config: dict[str, _Settings] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)
    scaling: list[_Scaling] = []
    data: _Data | None = None
    train: _Train | None = None


class Cluster(Options):
    """The cluster and the training: a field is the flag of its name, with its help."""

    images: PositiveInt = 1281167
    """photos of the data set (1281167, ImageNet's)"""
    gpus: PositiveInt = 8
    """of all nodes together (8)"""
    gpus_per_node: PositiveInt = 8
    """(8)"""
    images_per_second: PositiveFloat
    """what ONE GPU trains if it never waits for data (measured by tools.bench --train, with a held batch)"""
    cpus_per_node: PositiveInt | None = None
    """CPU threads of a node"""
    storage_mb_per_second: PositiveFloat | None = None
    """what the shared storage delivers to all nodes together"""
    ram_gb_per_node: PositiveFloat | None = None
    """what a node has for cached files, beside the training"""
    epochs: PositiveInt | None = None
    """of the training, to say how many days it takes"""


class Plan(Options):
    """Needs of a GPU, a full node and the cluster; limits in images/s and as shares of the need; times."""

    needs: dict[str, tuple[float, float, float]]
    disk_gb: float | None
    fits_in_ram: bool | None
    epochs_to_cache: int | None
    """Until a node has read 99 % of data that fits: its part is another each epoch."""
    limits: dict[str, tuple[float, float]]
    binds: str
    """Never the storage of data that fits in RAM, which limits the first epochs only."""
    advice: str
    epochs_per_day: float
    days: float | None


def plan(cluster: Cluster, benchmark: Benchmark, row: Row) -> Plan:
    """Hold what a cluster has against what its GPUs take."""
    node_gpus, nodes = min(cluster.gpus, cluster.gpus_per_node), -(-cluster.gpus // cluster.gpus_per_node)
    cpus, speed, ram = cluster.cpus_per_node, cluster.storage_mb_per_second, cluster.ram_gb_per_node
    # Shards hold all components; a row reads what it needs.
    stored = max(other.bytes_per_image or 0 for other in benchmark.rows)
    if benchmark.data:
        stored = 1e6 * benchmark.data.mb / benchmark.data.photos
    disk = cluster.images * stored / 1e9
    if cpus and cpus < node_gpus:
        raise UserError(f"--cpus-per-node={cpus}: fewer than a node's {node_gpus} GPUs; give all it has")
    if not stored and (speed or ram):
        flag = f"--storage-mb-per-second={speed:g}" if speed else f"--ram-gb-per-node={ram:g}"
        raise UserError(f"{flag}: --measured has no bytes_per_image; leave it out, or run make bench")

    def need(per_image: float) -> tuple[float, float, float]:
        gpu = per_image * cluster.images_per_second
        return gpu, gpu * node_gpus, gpu * cluster.gpus

    needs = {RATE: need(1), BUSY: need(row.cpu_ms_per_image / 1000)}
    shares, advice = {"model": 1.0}, {"model": "nothing else that was given delivers less than it takes"}
    if benchmark.device == "cpu":
        settings = benchmark.config.get(row.pipeline) or next(iter(benchmark.config.values()))
        needs[THREADS] = need(min(settings.threads, benchmark.cpus) / row.median)
    else:  # whose rate is not that of its threads
        shares["loader"] = row.median / cluster.images_per_second
        advice["loader"] = f"a GPU made {row.median:g} images/s; see which stage costs most in the benchmark"
    if cpus:
        least = max(needs[name][1] for name in (BUSY, THREADS) if name in needs)
        shares["CPU"] = cpus / least
        advice["CPU"] = f"give a node {math.ceil(least)} threads instead of {cpus}, or fewer GPUs"
    if stored:
        needs[STORAGE] = need((row.bytes_per_image or stored) / 1e6)
    if speed:
        least = needs[STORAGE][2]
        shares["storage"] = speed / least
        advice["storage"] = f"raise it to {math.ceil(least)} MB/s, or cache {math.ceil(disk)} GB in each node"
    fits = disk <= ram if ram else None
    binds = min((name for name in shares if not (fits and name == "storage")), key=shares.__getitem__)
    demand, wait = needs[RATE][2], 1 / shares.get("storage", math.inf)
    unread = 1 - 1 / nodes  # of what a node lacks, after one more epoch, on average
    epochs = [max(1 / shares[binds], wait * unread**epoch) for epoch in range(cluster.epochs or 0)]
    warm = math.ceil(math.log(0.01, unread)) if unread else 1
    return Plan(
        needs=needs,
        disk_gb=disk or None,
        fits_in_ram=fits,
        epochs_to_cache=warm if fits else None,
        limits={name: (share * demand, share) for name, share in shares.items()},
        binds=binds,
        advice=f"the {binds} binds first: {advice[binds]}",
        epochs_per_day=86400 * shares[binds] * demand / cluster.images,
        days=sum(epochs) * cluster.images / demand / 86400 if epochs else None,
    )


def check(benchmark: Benchmark, row: Row) -> list[dict[str, Any]]:
    """Predicted and measured images/s: by CPU time (on the CPU), and of n threads by the rate of one."""
    cpus, guesses = benchmark.cpus, []
    if benchmark.device == "cpu":
        guesses.append((f"{cpus} CPUs, all busy", cpus * 1000 / row.cpu_ms_per_image, row))
    scaling = {other.threads: other for other in benchmark.scaling if other.name == row.name}
    for threads, other in scaling.items() if 1 in scaling else ():
        if threads > 1:
            guesses.append((f"{threads} threads, from 1", min(threads, cpus) * scaling[1].median, other))
    return [
        {"what": what, "predicted": guess, **found.model_dump(include=SPREAD), "ratio": guess / found.median}
        for what, guess, found in guesses
    ]


def read_row(path: Path, name: str | None) -> tuple[Benchmark, Row]:
    """A benchmark, and its row of this name: by default the fullest background of its first pipeline."""
    if not path.is_file():
        raise UserError(f"--measured={path}: no such file; run make bench first, or name a benchmark's JSON")
    try:
        benchmark = Benchmark.model_validate_json(path.read_bytes())
    except ValidationError as error:
        where, what = error.errors()[0]["loc"], error.errors()[0]["msg"]
        raise UserError(f"--measured={path}: no benchmark; run make bench ({where}: {what})") from error
    rows, first = {row.name: row for row in benchmark.rows}, f"{next(iter(benchmark.config))}/bg_"
    name = name or next((other for other in reversed(rows) if other.startswith(first)), f"{first}…")
    if name not in rows:
        raise UserError(f"--pipeline={name}: not in {path}; there are {', '.join(rows)}")
    return benchmark, rows[name]


def _log_report(log: RankLog) -> list[str]:
    rates = f"{_short(log.rate)} images/s a GPU, {log.waiting:.0%} of the time waiting for data"
    late = [f"rank {rank}: {text}" for rank, text in log.stragglers().items()]
    return [f"measured on {log.count} GPUs: {rates}; {_short(log.unhindered)} without", *late, ""]


def _report(cluster: Cluster, row: Row, plan: Plan) -> list[str]:
    rows = [[f"{row.name}, {cluster.gpus} GPUs", "a GPU", "a node", "cluster"]]
    rows += [[name, *map(_short, need)] for name, need in plan.needs.items()]
    rows += [[""] * 4, ["resource", "", "share", "images/s"]]
    rows += [[name, "", f"{share:.2f}", _short(rate)] for name, (rate, share) in plan.limits.items()]
    lines = [*_aligned(rows), ""]
    if plan.disk_gb:
        lines.append(f"shards: {plan.disk_gb:.1f} GB")
    if plan.fits_in_ram is not None:
        fit = f"they fit; the storage idles once a node has read 99 %, after epoch {plan.epochs_to_cache}"
        lines.append(f"a node's RAM: {fit if plan.fits_in_ram else 'too small, all is read every epoch'}")
    days = f", {_short(plan.days)} days for {cluster.epochs}" if plan.days else ""
    return [*lines, plan.advice, f"{_short(plan.epochs_per_day)} epochs a day{days}"]


def _check_report(benchmark: Benchmark, checks: list[dict[str, Any]]) -> list[str]:
    rows = [["images/s", "predicted", "measured", "low", "high", "predicted ÷ measured"]]
    for one in checks:
        rates = [_short(one[name]) for name in ("predicted", "median", "low", "high")]
        rows.append([one["what"], *rates, f"{one['ratio']:.2f}"])
    note = f"CPU time does not set the rate on {benchmark.device}: measure with device=cpu to check that"
    if benchmark.device == "cpu":
        note = f"the CPUs were busy {1 / checks[0]['ratio']:.2f} of the time"
    return [*_aligned(rows), "", note]


def _aligned(rows: list[list[str]]) -> list[str]:
    first, *others = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip() for row in rows]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = tool_parser("tools.plan", __doc__)
    add = parser.add_argument
    add("--measured", type=Path, default=Path("out/bench.json"), help="(%(default)s)")
    add("--pipeline", help="its row, moco_v2/bg_swaps (first pipeline's last background)")
    for name, field in Cluster.model_fields.items():
        add(f"--{name.replace('_', '-')}", metavar="N", help=field.description)
    add("--log", type=Path, help="log.jsonl of a training on the cluster: images/s and waiting as measured")
    add("--check", action="store_true", help="predict the benchmark's own rates instead")
    add("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    benchmark, row = read_row(args.measured, args.pipeline)
    if args.check:
        result = check(benchmark, row)
        lines = _check_report(benchmark, result)
    else:
        given = {name: text for name in Cluster.model_fields if (text := getattr(args, name)) is not None}
        log = read_ranks(args.log) if args.log else None
        if log:
            given = {"images_per_second": f"{log.unhindered}", "gpus": f"{log.count}"} | given
        elif benchmark.train and benchmark.device != "cpu":  # a CPU's model says nothing of a GPU's
            given.setdefault("images_per_second", f"{benchmark.train.held / benchmark.train.ranks}")
        try:
            cluster = Cluster.model_validate_strings(given)
        except ValidationError as error:
            (name, *_), what = error.errors()[0]["loc"], error.errors()[0]["msg"]
            flag = f"--{name.replace('_', '-')}={given.get(name, '')}"
            raise UserError(f"{flag}: {what}; --help says what to give") from error
        planned = plan(cluster, benchmark, row)
        lines = [*(_log_report(log) if log else ()), *_report(cluster, row, planned)]
        result = {"pipeline": row.name, **cluster.model_dump(), **planned.model_dump()}
        if log:
            result["log"] = {"images_per_second": log.rate, "data_wait": log.waiting, "ranks": log.count}
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    run(main)
