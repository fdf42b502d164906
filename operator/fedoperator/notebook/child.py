"""`python -m fedoperator.notebook.child`: a run that is told what by its standard input.

One line of JSON, whose pipe stays open: when that closes, whoever asked is gone, and the run is
ended as by a SIGTERM. What it says is for whoever asked; exit codes are those of `fedtrain run`.
"""

import fcntl
import json
import os
import select
import signal
import sys
from pathlib import Path
from types import FrameType

from fedoperator.api import base
from fedoperator.local import shell
from fedoperator.local.folder import Refused


def main() -> int:
    asked = json.loads(sys.stdin.readline())
    _end_with_the_pipe(sys.stdin.fileno())
    try:
        return shell.run(
            shell.Options(
                document=asked["document"],
                scripts=Path(asked["scripts"]),
                out=Path(asked["out"]),
                jobs=asked["jobs"],
                quiet=True,
                claims={name: Path(path) for name, path in asked["claims"].items()},
                give_up_after=base.seconds(asked["give_up_after"]),
            )
        )
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1


def _end_with_the_pipe(fd: int) -> None:
    """A SIGTERM when its other end closes.

    By a signal and not by a thread that reads, as `local.processes` starts processes only where
    there is no other thread.
    """
    signal.signal(signal.SIGIO, _gone)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([fd], [], [], 0)[0]:  # it had closed before
        _gone(signal.SIGIO, None)


def _gone(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
