"""What a round costs in fedtrain, in Flower and in FLARE: the same federations, in one run.

    python -m benchmarks.rounds                       # on this machine: about a quarter of an hour
    python -m benchmarks.rounds --cluster             # on the development cluster too
    python -m benchmarks.rounds --task empty --system FLARE --system fedtrain

An empty round trains nothing: what is left is the system. A round is measured from the first step
of a participant to the first step of the next round, by the participants' own clocks, in all
systems alike; so n rounds give n - 1 figures. Systems are told apart by how their processes live:
`PerRound` starts them for each round, `Resident` keeps them. Peers are pinned in
federations/requirements.txt and used by their public commands and recipes (decision 33).
"""

import argparse
import contextlib
import datetime
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import page
from benchmarks.federations import environments, flare, flower, ours, watching
from benchmarks.federations.tasks import TASKS, Measured, Task

System = Callable[[Task, Path], Measured]
PODS = ("PerRound", "Resident")
FIRST = "fedtrain, local, PerRound"
"""What the others are compared with."""


def systems(*, cluster: bool) -> dict[str, System]:
    """By name, in the order in which they are measured and shown."""
    found: dict[str, System] = {}
    for pods in filter(ours.knows, PODS):
        found[f"fedtrain, local, {pods}"] = lambda task, folder, pods=pods: ours.run(
            task, folder, pods
        )
    if cluster:
        from benchmarks.federations import oncluster

        for pods in filter(ours.knows, PODS):
            found[f"fedtrain, cluster, {pods}"] = lambda task, _, pods=pods: oncluster.run(
                task, pods
            )
    return {**found, "FLARE": flare.run, "Flower": flower.run}


def measure(
    *, cluster: bool = True, named: Sequence[str] = (), only: Sequence[str] = ()
) -> list[Measured]:
    """named: beginnings of the names of tasks; only: of systems; all if there are none."""
    chosen = [t for t in TASKS if not named or t.name in named]
    able = {
        name: run
        for name, run in systems(cluster=cluster).items()
        if not only or any(name.startswith(beginning) for beginning in only)
    }
    return [
        _one(name, run, task)
        for task in chosen
        for name, run in able.items()
        if name.endswith(task.only)
    ]


def _one(name: str, run: System, task: Task) -> Measured:
    """A failure of a system is a line of the table, and no reason to lose the others' figures."""
    with _folder() as folder:
        try:
            found = run(task, folder)
        except (watching.TooLong, subprocess.SubprocessError, ValueError, OSError) as error:
            found = Measured(system=name, task=task, failed=_why(error, folder))
            kept = Path(tempfile.mkdtemp(prefix="fedtrain-bench-failed-"))
            for log in folder.glob("*.log"):
                shutil.copy(log, kept)
            print(f"{task.name}, {name}: {error}; logs: {kept}", file=sys.stderr, flush=True)
    said = found.failed or f"{statistics.median(found.periods):.2f} s"
    print(f"{task.name}, {name}: {said}", file=sys.stderr, flush=True)
    return found


def _why(error: Exception, folder: Path) -> str:
    """For a cell of the table, without a path of this machine."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"ended with exit code {error.returncode}"
    return str(error).replace(f"{folder}/", "")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A short path, as sockets may be made in it."""
    made = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def table(figures: Sequence[Measured]) -> str:
    """A table per task."""
    return "\n\n".join(
        _of_task(task, [f for f in figures if f.task == task])
        for task in TASKS
        if any(f.task == task for f in figures)
    )


def _of_task(task: Task, figures: Sequence[Measured]) -> str:
    who = f"{task.invited} of {task.participants} participants, {task.rounds} rounds"
    first = next((f for f in figures if f.system == FIRST and not f.failed), None)
    lines = [
        f"### {task.name}: {who}, {task.framework}",
        "",
        "| | median s | min | max | × per-round | between rounds s | p95 | to the model s "
        "| processor s | memory MiB | accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for f in figures:
        if f.failed:
            lines.append(f"| {f.system} | {f.failed} | | | | | | | | | |")
            continue
        median = statistics.median(f.periods)
        cells = [
            f.system,
            f"{median:.2f}",
            f"{min(f.periods):.2f}",
            f"{max(f.periods):.2f}",
            f"{median / statistics.median(first.periods):.2f}" if first else "",
            f"{statistics.median(f.gaps):.2f}",
            f"{percentile(f.gaps, 95):.2f}",
            f"{f.total:.1f}",
            f"{f.processor:.1f}" if f.processor else "",
            f"{f.peak / 2**20:.0f}" if f.peak else "",
            "" if f.accuracy is None else f"{f.accuracy:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percentile(values: Sequence[float], part: int) -> float:
    """The nearest rank: the smallest value that `part` hundredths of them do not exceed."""
    return sorted(values)[-(-len(values) * part // 100) - 1]


HOW = """\
`median`, `min`, `max`: from the first step of a round to the first step of the next, by the
participants' clocks. `× per-round`: the median over that of `fedtrain, local, PerRound` here.
`between rounds`: from the last hand-in of a round to the first step of the next, median and 95th
percentile (nearest rank).
`to the model`: from the command (for Flower `flwr run`, its nodes being up and connected; on a
cluster `kubectl apply`) to the final model. `processor`: of all processes of the system, from start
to end; other work on the machine moves it less than it moves seconds. `memory`: the most that all
its processes had resident together, sampled ten times a second; shared pages count for each.

OMP_NUM_THREADS=1 for everybody. Flower: deployment engine, a SuperLink, a SuperNode per
participant, insecure connections on loopback, telemetry and update checks off. FLARE: its FedAvg
recipe in its simulator, participants' scripts in process. Digits: a CNN of 150,000 parameters, five
local epochs, a fresh random subset each round, measured after every round (Flower at the server,
FLARE at each invited participant, fedtrain at one)."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cluster", action="store_true", help="measure on the cluster, too")
    names = ", ".join(task.name for task in TASKS)
    parser.add_argument("--task", action="append", default=[], help=f"one of: {names}")
    parser.add_argument("--system", action="append", default=[], help="the beginning of its name")
    parser.add_argument("--print", action="store_true", help="write no page to results/")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    began = page.machine()
    figures = measure(cluster=given.cluster, named=given.task, only=given.system)
    if not figures:
        parser.error("there is no such task or system")
    versions = page.versions(("torch", "numpy"))
    versions += f", Flower {environments.version('flwr')}, FLARE {environments.version('nvflare')}"
    if given.print:
        print(table(figures))
    else:
        today = datetime.datetime.now(datetime.UTC).date()
        title = f"# Rounds of fedtrain, Flower and FLARE, measured on {today}"
        command = f"python -m benchmarks.rounds {shlex.join(arguments or sys.argv[1:])}"
        page.write(
            f"{today}-rounds.md",
            [title, f"`{command}`", f"{began}\n\n{versions}", HOW, table(figures)],
        )
    return 1 if any(f.failed for f in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
