"""`python -m tests.aggregation.fuzz`: batch after batch, until the time is over or a law breaks.

What a batch sends lies in a folder of its own, which is removed when all went well: after a
failure, a crash or a hang it is still there, and `--seed S --first N --batches 1` makes it again.
"""

import argparse
import faulthandler
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.aggregation.fuzz.batch import MUTANTS, Batch

HANG = 60.0
"""Seconds for one batch, after which the process shows where it hangs and ends."""


def main() -> int:
    parser = argparse.ArgumentParser(description="A fuzzer of the aggregator's intake.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first", type=int, default=0, help="number of the first batch")
    parser.add_argument("--batches", type=int, default=10**9, help="at most so many")
    parser.add_argument("--keep", type=Path, help="where a failing batch is left")
    wanted = parser.parse_args()
    keep = wanted.keep or Path(tempfile.mkdtemp(prefix="fedtrain-fuzz-"))
    return fuzz(
        wanted.seconds, wanted.seed, range(wanted.first, wanted.first + wanted.batches), keep
    )


def fuzz(seconds: float, seed: int, numbers: range, keep: Path) -> int:
    """0 if every law held. Prints how far it is, about every five seconds."""
    print(f"seed {seed}; a failing batch is left in {keep}", flush=True)
    began = said = time.monotonic()
    verdicts: Counter[str] = Counter()
    for number in numbers:
        root = keep / f"seed-{seed}-batch-{number}"
        root.mkdir(parents=True)
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            verdicts += Batch(seed, number).run(root)
        except Exception:
            traceback.print_exc()
            again = f"--seed {seed} --first {number} --batches 1"
            print(f"FAILED: batch {number}, kept in {root}; again with {again}", flush=True)
            return 1
        finally:
            faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(root)
        now = time.monotonic()
        if now - said > 5 or now - began > seconds:
            said = now
            print(progress(verdicts, now - began), flush=True)
        if now - began > seconds:
            break
    return 0


def progress(verdicts: Counter[str], seconds: float) -> str:
    cases = verdicts.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in verdicts.most_common())
    return f"{cases} cases, {cases / seconds:.0f} a second, {MUTANTS} a batch: {reasons}"


if __name__ == "__main__":
    # As the aggregator's own process: it forks, which wants no threads of BLAS's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
