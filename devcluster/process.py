"""Long-running processes: started detached, recorded with their start time, stopped by the record.

A bare pid is not enough to kill by: after a crash or a reboot it may be somebody else's. The start
time and the boot make it unique.
"""

import collections.abc
import dataclasses
import json
import os
import pathlib
import signal
import time

from devcluster import report


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """One process for ever: no other process on this machine is equal to it."""

    pid: int
    started: int
    boot: str


def identify(pid: int) -> Identity | None:
    """The process that now has the pid; None when there is none or only its exit status is left."""
    try:
        # The command's name, in parentheses, may hold anything; what follows it is fixed.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Identity(pid, int(fields[19]), boot)


def all_processes() -> collections.abc.Iterator[int]:
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What `up` left behind about one component: which process it is and what it was made from."""

    file: pathlib.Path

    def read(self) -> tuple[Identity, str] | None:
        """The process and the fingerprint of its command, whether or not it still runs."""
        try:
            content = json.loads(self.file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return Identity(**content["process"]), content["fingerprint"]

    def running(self) -> Identity | None:
        recorded = self.read()
        if recorded is None or identify(recorded[0].pid) != recorded[0]:
            return None
        return recorded[0]

    def start(
        self,
        command: collections.abc.Sequence[str | pathlib.Path],
        *,
        log: pathlib.Path,
        fingerprint: str = "",
    ) -> None:
        """Start in a session of its own, so that neither Ctrl-C nor our end reaches it."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawnp(
            words[0],
            words,
            os.environ,
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, append, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        identity = identify(pid)
        if identity is None:
            raise report.DevclusterError(f"{command[0]} ended at once\n{report.tail(log)}")
        content = {"process": dataclasses.asdict(identity), "fingerprint": fingerprint}
        self.file.write_text(json.dumps(content))

    def stop(self, *, seconds: float = 10) -> None:
        """End the recorded process, politely at first; a record without one is just removed."""
        process = self.running()
        if process is not None:
            end([process], seconds=seconds)
        self.file.unlink(missing_ok=True)


def end(processes: collections.abc.Sequence[Identity], *, seconds: float) -> None:
    """SIGTERM, and SIGKILL for those still there after `seconds`; return when all are gone."""
    for request, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
        left = [process for process in processes if identify(process.pid) == process]
        for process in left:
            _signal(process, request)
        deadline = time.monotonic() + patience
        while any(identify(process.pid) == process for process in left):
            if time.monotonic() > deadline:
                break
            _reap()
            time.sleep(0.02)
    left = [process for process in processes if identify(process.pid) == process]
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise report.DevclusterError(f"these processes cannot be killed: {pids}")


def kill_all(find: collections.abc.Callable[[], list[int]], *, what: str) -> None:
    """SIGKILL whatever `find` returns until it returns nothing: its finds may fork meanwhile."""
    deadline = time.monotonic() + 20
    while pids := find():
        for pid in pids:
            identity = identify(pid)
            if identity is not None:
                _signal(identity, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise report.DevclusterError(f"{what} cannot be killed: {pids}")
        _reap()
        time.sleep(0.05)


def _signal(process: Identity, number: signal.Signals) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Between the open and here the pid cannot change hands, so this check is final.
        if identify(process.pid) == process:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _reap() -> None:
    """Collect children of ours that have ended, which would else look alive to others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
