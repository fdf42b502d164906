"""The operator at scale: 1,000 participants in one training, 100 trainings of 10, a restart.

python -m benchmarks.operator            # all; writes benchmarks/results/<date>-operator.md
python -m benchmarks.operator --only one --print
"""

import argparse
import datetime
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import page
from benchmarks.federations import watching
from benchmarks.operated import figures, process
from benchmarks.operated.audit import Request
from benchmarks.operated.process import Operator, operator
from benchmarks.operated.world import NAMESPACE, World, a_training, world

KIB, MIB = 2**10, 2**20
QUIET = 60.0
"""Seconds after the end in which nothing may be written."""

Row = tuple[str, str, str]
"""What, what is promised, what was measured."""


def one(folder: Path, root: Path, participants: int = 1000, rounds: int = 2) -> list[Row]:
    """One training of 1,000: sizes, and what a round takes beside the training itself."""
    log = folder / "operator.log"
    with world(folder) as w, operator(w.cluster.kubeconfig, log, root) as running:
        w.create([a_training("large", participants, rounds=rounds, least=30, most=60)])
        watching.until(w.succeeded, 1500, "that it succeeded")
        ended = time.time()
        rows = _sizes(w, rounds) + _quiet(w, ended)
        rows += _writes(w, participants * rounds, "1 s")
        return rows + _rounds(w, rounds) + _costs(w, running)


def many(
    folder: Path,
    root: Path,
    trainings: int = 100,
    participants: int = 10,
    rounds: int = 2,
    lasts: tuple[int, int] = (60, 90),
) -> list[Row]:
    """100 trainings of 10, which begin within a minute; each pod lasts so many seconds."""
    log = folder / "operator.log"
    with world(folder) as w, operator(w.cluster.kubeconfig, log, root) as running:
        names = [f"fed{number:03}" for number in range(trainings)]
        for start in range(0, trainings, 10):
            w.create(
                [
                    a_training(name, participants, rounds=rounds, least=lasts[0], most=lasts[1])
                    for name in names[start : start + 10]
                ]
            )
            time.sleep(6)
        watching.until(w.succeeded, 1500, "that all succeeded")
        ended = time.time()
        rows = _reactions(w) + _writes(w, trainings * participants * rounds, "0.25 s")
        return rows + _costs(w, running) + _quiet(w, ended)


def calm(folder: Path, root: Path) -> list[Row]:
    """The same with one round of four to seven minutes: half as many events a second."""
    return many(folder, root, rounds=1, lasts=(240, 420))


def restart(folder: Path, root: Path, trainings: int = 100, participants: int = 50) -> list[Row]:
    """5,000 pods that run, and an operator that was stopped and is started again."""
    with world(folder) as w:
        names = [f"fed{number:03}" for number in range(trainings)]
        log = folder / "operator.log"
        with operator(w.cluster.kubeconfig, log, root) as before:
            for name in names:
                w.create([a_training(name, participants, rounds=1, least=14400, most=14400)])
            wanted = trainings * participants

            def all_run() -> bool:
                return before.metric("fedtrain_round_participants", 'state="Running"') == wanted

            watching.until(all_run, 1500, "that all pods ran")
        time.sleep(2)
        with operator(w.cluster.kubeconfig, log, root) as after:

            def at_rest() -> bool:
                looks = after.metric("fedtrain_operator_look_duration_seconds_count")
                return looks >= trainings and not after.metric("fedtrain_operator_queue_depth")

            watching.until(at_rest, 120, "that it is at rest")
            time.sleep(10)
            mine = [r for r in w.requests() if r.by_operator and r.at >= after.started]
            first = {r.training: r for r in reversed(mine) if r.looks}
            last = max(r.until for r in mine if r.resource != figures.LEASES)
            looked = max(r.until for r in first.values())
            used = figures.processor(after.samples, after.started, looked + 1)
            wrote = list(figures.writes(mine))
            return [
                (
                    f"from its start until all {len(first)} trainings were looked at",
                    "30 s",
                    f"{looked - after.started:.1f} s",
                ),
                ("its last request after that", "", f"{last - after.started:.1f} s"),
                ("writes after the restart", "0", str(len(wrote))),
                ("processor until then", "", f"{used:.1f} s"),
                _memory(after),
            ]


def _sizes(w: World, rounds: int) -> list[Row]:
    status = json.loads(w.raw("federatedtrainings", "large"))["status"]
    record = w.raw("federatedrounds", f"large-{rounds:05}")
    return [
        ("status of the training", "8 KiB", f"{len(json.dumps(status)) / KIB:.1f} KiB"),
        ("record of a round, with managedFields", "256 KiB", f"{len(record) / KIB:.0f} KiB"),
    ]


def _writes(w: World, participant_rounds: int, pause: str) -> list[Row]:
    requests = w.requests()
    wrote = figures.writes(requests)
    kinds = sorted({(r.verb, r.resource) for r in wrote})
    counted = ", ".join(
        f"{verb} {resource} {sum((r.verb, r.resource) == (verb, resource) for r in wrote)}"
        for verb, resource in kinds
    )
    status = [r for r in wrote if r.resource == "federatedtrainings/status"]
    refused = sum(r.code >= 400 for r in wrote)
    return [
        (
            "writes per participant and round",
            "3",
            f"{len(wrote) / participant_rounds:.2f} ({counted}; refused {refused})",
        ),
        (
            "least time between two looks at one training",
            pause,
            f"{figures.closest(r for r in requests if r.looks):.2f} s",
        ),
        (
            "least time between two status writes of one training",
            pause,
            f"{figures.closest(status):.2f} s",
        ),
    ]


def _reactions(w: World) -> list[Row]:
    requests = w.requests()
    acts, turns = figures.reactions(requests), figures.turns(requests)
    return [
        (
            f"from a Job's end to the write that tells it ({len(acts)})",
            "p99 1 s",
            _spread(acts),
        ),
        (
            f"from the end that a step waited for to the next Job ({len(turns)})",
            "p99 1 s",
            _spread(turns),
        ),
    ]


def _spread(values: Sequence[float]) -> str:
    parts = ", ".join(f"p{p} {figures.percentile(values, p):.2f} s" for p in (50, 95, 99, 100))
    return parts.replace("p100", "max")


def _rounds(w: World, rounds: int) -> list[Row]:
    """What the rounds took, part by part."""
    requests = w.requests()
    made = [r for r in requests if r.by_operator and r.resource == "jobs" and r.verb == "create"]
    ends: dict[str, Request] = {}
    for r in requests:
        if r.ends:
            ends.setdefault(r.name, r)
    rows = []
    for number in range(1, rounds + 1):
        mine = [r for r in made if r.name.startswith(f"large-train-{number}-")]
        over = max(r.until for name, r in ends.items() if name.startswith(f"large-train-{number}-"))
        fold = next(r for r in made if r.name.startswith(f"large-aggregate-{number}-"))
        folded = ends[fold.name].until
        nexts = [r.at for r in made if r.name.startswith(f"large-train-{number + 1}-")]
        parts = [
            f"all Jobs made in {max(r.until for r in mine) - min(r.at for r in mine):.1f} s",
            f"last end to aggregation {fold.at - over:.1f} s",
        ]
        if nexts:
            parts.append(f"its end to the next round's first Job {min(nexts) - folded:.1f} s")
        rows.append((f"round {number}", "", ", ".join(parts)))
    return rows


def _costs(w: World, running: Operator) -> list[Row]:
    requests = w.requests()
    looks = [r.at for r in requests if r.looks]
    used = figures.processor(running.samples, min(looks), max(looks) + 1)
    windows = figures.processor_per_look(running.samples, looks, 5.0)
    others = ", ".join(
        f"{name} {process.processor(pid):.0f} s" for name, pid in w.cluster.pids.items()
    )
    return [
        (
            "processor per look, everything the process does included",
            "p99 100 ms",
            f"mean {1000 * used / len(looks):.0f} ms of {len(looks)} looks; of stretches of 5 s "
            f"p50 {1000 * figures.percentile(windows, 50):.0f} ms, "
            f"p99 {1000 * figures.percentile(windows, 99):.0f} ms",
        ),
        ("processor of the operator in all", "", f"{used:.1f} s; of the others {others}"),
        _memory(running),
    ]


def _memory(running: Operator) -> Row:
    most = max(sample.memory for sample in running.samples)
    return ("resident memory, at most", "256 MiB", f"{most / MIB:.0f} MiB")


def _quiet(w: World, ended: float) -> list[Row]:
    """What is written once everything has succeeded."""
    time.sleep(max(0.0, ended + QUIET + 5 - time.time()))
    after = [r for r in w.requests() if r.by_operator and r.writes and r.at > ended + 5]
    leases = sum(r.resource == figures.LEASES for r in after)
    others = [f"{r.verb} {r.resource}" for r in after if r.resource != figures.LEASES]
    text = f"{len(others)} ({leases} of its lease)"
    return [(f"writes in {QUIET:.0f} s, from 5 s after success on", "0", text)]


SCENARIOS: dict[str, tuple[str, Callable[[Path, Path], list[Row]]]] = {
    "one": ("One training of 1,000 participants, two rounds", one),
    "many": ("100 trainings of 10 participants, two rounds of a minute to one and a half", many),
    "calm": ("100 trainings of 10 participants, one round of four to seven minutes", calm),
    "restart": ("A restart with 5,000 children", restart),
}


def measure(root: Path = process.ROOT, only: Sequence[str] = ()) -> Iterator[tuple[str, list[Row]]]:
    for name, (title, scenario) in SCENARIOS.items():
        if only and name not in only:
            continue
        folder = Path(tempfile.mkdtemp(prefix="bench-operator-"))
        try:
            yield title, scenario(folder, root)
        except Exception:
            print(f"{name}: logs are in {folder}", file=sys.stderr)
            raise
        shutil.rmtree(folder)


def table(title: str, rows: Sequence[Row]) -> str:
    lines = [f"## {title}", "", "| | promised | measured |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


HOW = f"""\
`python -m fedoperator` as it runs in a pod, on a real API server with the real Job controller,
garbage collector, binder of volumes and scheduler; kubelets are played by kwok, whose pods leave
the receipts of real ones, six metrics each (benchmarks/operated). Everything shares one machine.
Looks, requests and their times are read from the API server's audit log, processor and memory from
/proc. Aggregations and preparations are played, too: half a second each. All trainings are in the
namespace `{NAMESPACE}`, and the operator watches all namespaces."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], choices=list(SCENARIOS))
    parser.add_argument(
        "--operator", type=Path, default=process.ROOT, help="checkout of the operator to measure"
    )
    parser.add_argument("--print", action="store_true", help="write no page to results/")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    began = page.machine()
    tables = []
    for title, rows in measure(given.operator.resolve(), given.only):
        tables.append(table(title, rows))
        print(tables[-1], flush=True)
    if not given.print:
        today = datetime.datetime.now(datetime.UTC).date()
        versions = page.versions(("kopf", "kubernetes", "pydantic", "aiohttp"))
        title = f"# The operator at scale, measured on {today}"
        page.write(f"{today}-operator.md", [title, f"{began}\n\n{versions}", HOW, *tables])
    return 0


if __name__ == "__main__":
    sys.exit(main())
