"""A run on this machine: `fedtrain run` in a process of its own, followed through its folder.

In a process of its own because a notebook has threads, and starting processes as `local.processes`
does is for a process without any (0032); and so that a kernel that is killed takes nothing with it
but what it started.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Record, record_name
from fedoperator.api.training import Training
from fedoperator.local import machine, processes, report
from fedoperator.local.folder import Folder, Refused
from fedoperator.notebook.rounds import Round
from fedoperator.notebook.run import Failed, Run

_GLANCE = 0.02
"""Seconds between looks at the folder."""
_LONGEST_PAUSE = 1.0
"""Seconds after which the files are read in any case: a clock that ticks late hides a change."""
_END_SECONDS = machine.GRACE_SECONDS + 10.0


class LocalRun(Run):
    """The training in a folder that `fedtrain run --out` or `FederatedTraining.run` has filled.

    Made by `FederatedTraining.run`, it is under way; made of a folder, `LocalRun("runs/digits")`,
    it shows what is there. Raises Refused if the folder holds no training.
    """

    def __init__(self, out: str | Path) -> None:
        self._folder = Folder(Path(out).resolve())
        self._process: _Process | None = None
        self._records: dict[int, Record] = {}
        self._seen: tuple[int, int] | None = None
        training = self._folder.read()
        if training is None:
            raise Refused(f"{out} holds no training; run one with out={str(out)!r}")
        self._name = training.name

    @classmethod
    def start(
        cls,
        document: Mapping[str, Any],
        *,
        out: Path,
        scripts: Path,
        jobs: int | None,
        claims: Mapping[str, Path],
        give_up_after: str,
    ) -> Self:
        """Start it, and return once its folder is taken and the training accepted."""
        options = {
            "document": document,
            "out": str(out.resolve()),
            "scripts": str(scripts.resolve()),
            "jobs": jobs,
            "claims": {name: str(path.resolve()) for name, path in claims.items()},
            "give_up_after": give_up_after,
        }
        process = _Process(options, out.resolve())
        process.wait_until_begun()
        run = cls(out)
        run._process = process
        return run

    def __iter__(self) -> Iterator[Round]:
        """As `Run` says; the processes end when the loop is left: by break, Ctrl-C or an error."""
        try:
            yield from super().__iter__()
        finally:
            self.stop()

    def stop(self) -> None:
        """End all its processes and wait for that; `training.run` again goes on where it was."""
        if self._process is not None:
            self._process.stop()

    @property
    def name(self) -> str:
        return self._name

    @property
    def out(self) -> Path:
        """Its folder: status.yaml, rounds/, logs/, exchange/."""
        return self._folder.root

    def _training(self) -> Training | None:
        self._seen = self._changes()  # before reading: what comes in between is seen next time
        return self._folder.read()

    def _record(self, number: int) -> Record | None:
        if number not in self._records:
            record = self._folder.read_record(record_name(self.name, number))
            if record is None or not report.is_told(record):
                return record
            self._records[number] = record  # nothing changes in it any more
        return self._records[number]

    def _over(self) -> bool:
        return self._process is None or self._process.over

    def _pause(self) -> None:
        until = time.monotonic() + _LONGEST_PAUSE
        while self._changes() == self._seen and not self._over() and time.monotonic() < until:
            time.sleep(_GLANCE)

    def _changes(self) -> tuple[int, int]:
        """Another one after every file that was replaced; two stats are cheaper than YAML."""
        root, rounds = os.stat(self._folder.root), os.stat(self._folder.rounds)
        return root.st_mtime_ns, rounds.st_mtime_ns

    def _place(self, model: GlobalModel, exchange: str | Path | None) -> Path:
        return Path(exchange or self._folder.exchange) / model.path

    def _judge(self, training: Training | None) -> None:
        super()._judge(training)
        process = self._process
        if training is None or training.status.terminal or process is None or process.stopped:
            return
        status = training.status
        if status.phase in ("Blocked", "Suspended"):
            raise Failed(status.phase, f"{status.reason}: {status.message}; run it again to go on")
        raise Failed("Interrupted", f"{process.said() or 'it ended'}; run it again to go on")


class _Process:
    """`python -m fedoperator.notebook.child`: it ends when told to, or when we are gone."""

    def __init__(self, options: Mapping[str, Any], out: Path) -> None:
        self._out = out
        self._before = self._applied()
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - as long as we live
        self.stopped = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedoperator.notebook.child"],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            text=True,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to tell
        )
        self._end = weakref.finalize(self, _end, os.getpid(), self._process, self._said, out)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is over, and has said why
            self._process.stdin.write(json.dumps(options) + "\n")
            self._process.stdin.flush()  # and left open: its end is ours

    @property
    def over(self) -> bool:
        return self._process.poll() is not None

    def wait_until_begun(self) -> None:
        """Raises Refused with what it said if it ends before it has taken the folder."""
        try:
            while self._applied() == self._before:
                if self.over:
                    said = self.said()
                    self._end()
                    raise Refused(said or f"it ended with code {self._process.returncode}")
                time.sleep(_GLANCE)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ask, wait, and insist; a second Ctrl-C meanwhile hurries it."""
        self.stopped = self.stopped or not self.over
        self._end()

    def said(self) -> str:
        """The last lines of its output; nothing once it was stopped."""
        if self._said.closed:
            return ""
        self._said.seek(0)
        return self._said.read()[-2000:].strip()

    def _applied(self) -> tuple[int, int] | None:
        """Another one whenever a run begins: it writes training.yaml anew."""
        try:
            status = os.stat(self._out / "training.yaml")
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


def _end(ours: int, process: subprocess.Popen[str], said: IO[str], out: Path) -> None:
    """Also run when the interpreter ends, or nobody holds the run any more; not by a fork of us."""
    if os.getpid() != ours:
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except KeyboardInterrupt:
            process.terminate()
            process.wait(_END_SECONDS)
            raise
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            processes.kill(str(out / "children"))
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    said.close()
