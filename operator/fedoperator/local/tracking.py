"""Where spec.tracking asks for it, `fedtrain track` beside the run: nobody waits for it.

It reads the folder as anybody may, so that whatever becomes of it, the run does not hear of it.
"""

import subprocess
import sys
import time
from collections.abc import Callable

from fedoperator.api.training import Training
from fedoperator.local import machine, processes
from fedoperator.local.folder import Folder
from fedoperator.local.report import Report

_LAST = 30.0
"""Seconds for it to send the last rounds, once the run is over; it gives up earlier by itself."""
_HINT = "tracking: "
"""How its lines begin that say what is wrong."""


class Tracking:
    """Begins with the run, if it is asked for; what it says is told."""

    def __init__(self, folder: Folder, training: Training, telling: Report) -> None:
        self._folder = folder
        self._log = folder.logs / "tracking.log"
        self._report = telling
        self._process: subprocess.Popen[bytes] | None = None
        self._read = self._log.stat().st_size if self._log.exists() else 0
        if training.spec.tracking is None or training.status.terminal:
            return
        command = [sys.executable, "-m", "fedoperator.cli", "track", str(folder.root), "--follow"]
        try:
            self._process = processes.start(
                processes.Command(
                    arguments=command,
                    environment=machine.inherited(),
                    folder=folder.root,
                    log=self._log,
                ),
                str(folder.root / "tracking"),
            )
        except OSError as error:
            telling.complain(f"{_HINT}cannot be started: {error.strerror}")

    def tell(self) -> None:
        """What it has said since."""
        if self._process is None or not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._read)
            said = log.read()
        said = said[: said.rfind(b"\n") + 1]
        self._read += len(said)
        for line in said.decode(errors="replace").splitlines():
            (self._report.complain if line.startswith(_HINT) else self._report.say)(line)

    def end(self, hurry: Callable[[], bool]) -> None:
        """Let it send the last rounds; in a hurry, or if the training is not over, it has
        one more look and goes."""
        if self._process is None:
            return
        training = self._folder.read()
        over = training is not None and training.status.terminal
        until = time.monotonic() + (_LAST if over else 0.0)
        while self._process.poll() is None and time.monotonic() < until and not hurry():
            time.sleep(0.05)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.tell()
