"""`python -m tests.faults`: all points, a part of them, or one, which then tells its story.

Exit code 0 if every run came to the end of its scenario, and nothing was ever as it may not be.
"""

import argparse
import asyncio
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence

from devcluster import apiserver
from tests.conftest import installed
from tests.faults import bench, outages
from tests.faults.bench import Bench
from tests.faults.faults import POSITIONS
from tests.faults.run import Outcome, Point
from tests.faults.scenarios import SCENARIOS

PROGRESS = 15.0
"""Seconds between two lines that tell how far it is."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, help="only this one", action="append")
    one = parser.add_argument_group("one run, which tells its story")
    one.add_argument("--write", type=int, metavar="N", help="kill the operator at its Nth write")
    one.add_argument("--position", choices=POSITIONS, default="after")
    one.add_argument("--crashes", metavar="SEED", help="the two crashes of that seed")
    one.add_argument("--mix", metavar="SEED", help="the faults of that seed")
    one.add_argument("--undisturbed", action="store_true")
    many = parser.add_argument_group("many runs")
    many.add_argument(
        "--part", type=int, default=1, metavar="N", help="one crash point of N; 0: none"
    )
    many.add_argument("--doubles", type=int, default=0, metavar="N", help="random double crashes")
    many.add_argument("--mixes", type=int, default=0, metavar="N", help="random mixes of faults")
    many.add_argument(
        "--outages",
        type=float,
        metavar="SECONDS",
        help="instead: the API server dies every half minute for so long, and etcd once",
    )
    many.add_argument(
        "--rivals",
        type=float,
        metavar="SECONDS",
        help="instead: two operators get each lease in turn, for so long",
    )
    many.add_argument("--seed", type=int, default=int(time.time()))
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        apiserver.server() as server,
        tempfile.TemporaryDirectory(prefix="fedtrain-faults-") as folder,
    ):
        installed(server.kubeconfig)
        try:
            return asyncio.run(_main(wanted, server, pathlib.Path(folder)))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            return 130


async def _main(wanted: argparse.Namespace, server: apiserver.Server, folder: pathlib.Path) -> int:
    async with Bench.open(server.kubeconfig, folder) as faults:
        if wanted.outages:
            outcomes = outages.outages(faults, server, wanted.outages)
            return 1 if await _count("outages", outcomes, None) else 0
        if wanted.rivals:
            outcomes = outages.rivals(faults, wanted.rivals)
            return 1 if await _count("rivals", outcomes, None) else 0
        if wanted.write or wanted.crashes or wanted.mix or wanted.undisturbed:
            return await _one(faults, wanted)
        names = wanted.scenario or list(SCENARIOS)
        failed = 0
        for name in names:
            writes = len((await faults.undisturbed(name)).written)
            points = bench.crash_points(name, writes)
            points = bench.a_part(points, wanted.part) if wanted.part else []
            share = range(names.index(name), wanted.doubles, len(names))
            points += [bench.double_crash(name, f"{wanted.seed}-{n}", writes) for n in share]
            share = range(names.index(name), wanted.mixes, len(names))
            points += [bench.mix(name, f"{wanted.seed}-{n}", writes) for n in share]
            failed += await _many(faults, name, points)
        return 1 if failed else 0


async def _many(faults: Bench, name: str, points: Sequence[Point]) -> int:
    """How many did not converge."""
    undisturbed = await faults.undisturbed(name)
    for wrong in undisturbed.wrong:
        print(f"{name}, undisturbed: {wrong}", flush=True)
    failed = await _count(name, faults.all(points), len(points))
    return failed + bool(undisturbed.wrong)


async def _count(name: str, outcomes: AsyncIterator[Outcome], of: int | None) -> int:
    """How many did not converge. Tells of each of these, and now and then how far it is."""
    began, used = time.monotonic(), bench.processor_seconds()
    done, failed, reached, said, slowest = 0, 0, 0, began, 0.0
    async for outcome in outcomes:
        done += 1
        reached += bool(outcome.hit)
        failed += bool(outcome.wrong)
        slowest = max(slowest, outcome.converged)
        tell(outcome)
        if time.monotonic() - said > PROGRESS:
            said = time.monotonic()
            far = f"{done} of {of}" if of else f"{done} in {said - began:.0f} s"
            print(f"{name}: {far}, {failed} failed", flush=True)
    seconds, processor = time.monotonic() - began, bench.processor_seconds() - used
    print(
        f"{name}: {done} points ({reached} reached), {done - failed} converged,"
        f" the slowest {slowest:.0f} s after its last fault,"
        f" {seconds:.0f} s, {processor:.0f} s of processor",
        flush=True,
    )
    return failed


def tell(outcome: Outcome) -> None:
    """What went wrong, and how to see it again; nothing if nothing did."""
    if not outcome.wrong:
        return
    print(f"FAILED {outcome.point}\n  again: python -m tests.faults {outcome.point.replay}")
    for hit in outcome.hit:
        print(f"  happened: {hit}")
    for wrong in outcome.wrong:
        print(f"  wrong: {wrong}")
    if outcome.stuck:
        for line in (*outcome.story[-12:], *outcome.log.splitlines()[-12:]):
            print(f"  last: {line[:300]}")
    sys.stdout.flush()


async def _one(faults: Bench, wanted: argparse.Namespace) -> int:
    (name,) = wanted.scenario
    undisturbed = await faults.undisturbed(name)
    writes = len(undisturbed.written)
    outcome = undisturbed
    if wanted.write:
        point = bench.crash_point(name, wanted.write, wanted.position)
        outcome = await faults.run(point)
    elif wanted.crashes:
        outcome = await faults.run(bench.double_crash(name, wanted.crashes, writes))
    elif wanted.mix:
        outcome = await faults.run(bench.mix(name, wanted.mix, writes))
    print(outcome.log)
    print("\n".join(outcome.story))
    for number, write in enumerate(outcome.written, 1):
        print(f"write {number}: {write}")
    tell(outcome)
    print(f"{outcome.point} took {outcome.seconds:.1f} s")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
