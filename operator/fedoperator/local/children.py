"""The child workloads of a local run: queued, running, over; the counterpart of Jobs and kubelet.

One that is over stays on disk as evidence until it is deleted. One that is not over when
`fedtrain run` ends is as if it had never been made: `decide` asks for the same attempt again, and
what that had published by then is its result.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from fedoperator.api.base import timestamp
from fedoperator.link import Link
from fedoperator.local import evidence, machine, processes
from fedoperator.local.folder import Folder
from fedoperator.local.machine import Machine
from fedoperator.rounds.observed import Child, ChildState, Observed
from fedoperator.rounds.plan import Plan
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Exit, Role


@dataclass(slots=True, kw_only=True)
class Running:
    """A workload whose processes have been started. ended: (node, exit code), the first first."""

    child: Child
    nodes: Sequence[subprocess.Popen[bytes]]
    processes: int
    grace: float
    ended: list[tuple[int, int]] = field(default_factory=list)
    kill_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A workload that waits until --jobs lets it start."""

    child: Child
    workload: Workload


class Children:
    """What was asked for, by name. jobs: how many ranks may run at a time."""

    def __init__(self, folder: Folder, machine: Machine, jobs: int) -> None:
        self._folder = folder
        self._machine = machine
        self._jobs = jobs
        self._queued: dict[str, Queued] = {}
        self._running: dict[str, Running] = {}
        self._over: dict[str, Child] = {}
        self._hub: tuple[str, Link] | None = None
        self.news: Callable[[], None] = lambda: None
        """Called, in a thread, when those who stay have something to tell."""

    def resume(self) -> None:
        """Kill what an earlier run left running, and remember what was over."""
        processes.kill(self._mark())
        for path in sorted(self._folder.children.iterdir()):
            child = evidence.read(path.name, self._folder)
            if child is None:
                self._folder.remove_child(path.name)
            else:
                self._over[child.name] = child

    @property
    def idle(self) -> bool:
        return not self._queued and not self._running

    def observed(self) -> Observed:
        """Everything there is, as `decide` wants it."""
        waiting = (queued.child for queued in self._queued.values())
        running = (running.child for running in self._running.values())
        children = (*self._over.values(), *running, *waiting)
        if self._hub is None:
            return Observed(children=children)
        link = self._hub[1]
        return Observed(children=children, reports=link.reports(), heard_since=link.heard_since)

    def hand(self, plan: Plan) -> None:
        """Give those who stay what is theirs to do."""
        if self._hub is not None:
            self._hub[1].tell(plan)

    def create(self, workload: Workload) -> None:
        """Ask for it; the name of one that exists stands for the same work, and changes nothing."""
        name = workload.name
        if name in self._queued or name in self._running or name in self._over:
            return
        child = Child(
            identity=workload.identity,
            name=name,
            uid=str(uuid.uuid4()),
            nodes=workload.nodes,
            created_at=timestamp(datetime.now(UTC)),
            resident=workload.stays,
        )
        self._queued[name] = Queued(child=child, workload=workload)

    def delete(self, child: Child) -> None:
        """End it and forget it, without waiting for the end."""
        self._queued.pop(child.name, None)
        running = self._running.get(child.name)
        if running is None:
            self._over.pop(child.name, None)
            self._folder.remove_child(child.name)
        elif not running.child.deleting:
            running.child = replace(running.child, deleting=True)
            self._terminate(running)

    def look(self) -> bool:
        """Reap what has ended, kill what will not, start what may; whether anything changed."""
        changed = False
        for running in list(self._running.values()):
            changed |= self._reap(running)
        for queued in list(self._queued.values()):
            ranks = queued.workload.nodes * queued.workload.processes_per_node
            going = (r for r in self._running.values() if not r.child.resident)
            busy = sum(running.processes for running in going)
            if busy and busy + ranks > self._jobs and not queued.child.resident:
                break  # in order: a large one is not overtaken for ever by small ones
            del self._queued[queued.child.name]
            self._start(queued, ranks)
            changed = True
        return changed

    @property
    def kill_at(self) -> float | None:
        """When (on the monotonic clock) to look again for those that do not heed SIGTERM."""
        return min((r.kill_at for r in self._running.values() if r.kill_at), default=None)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all processes and return when none is left; what was not over is forgotten."""
        self._queued.clear()
        if self._hub is not None:
            self._hub[1].close()
        for running in self._running.values():
            self._terminate(running)
        until = max((r.kill_at for r in self._running.values() if r.kill_at), default=0.0)
        while self._running and time.monotonic() < until and not hurry():
            time.sleep(0.02)
            for running in list(self._running.values()):
                self._reap(running, keep=False)
        processes.kill(self._mark())
        for name, running in self._running.items():
            for node in running.nodes:
                node.kill()
                node.wait()
            self._folder.remove_child(name)
        self._running.clear()

    def _start(self, queued: Queued, ranks: int) -> None:
        workload, child = queued.workload, queued.child
        self._folder.remove_child(child.name)
        (self._folder.children / child.name).mkdir(parents=True)
        nodes: list[subprocess.Popen[bytes]] = []
        running = Running(child=child, nodes=nodes, processes=ranks, grace=machine.grace(workload))
        self._running[child.name] = running
        try:
            for command in self._machine.commands(workload, child.uid):
                nodes.append(processes.start(command, self._mark(child.name)))
        except OSError as error:
            processes.kill(self._mark(child.name))
            self._finish(running, Exit.TRY_AGAIN, f"cannot start a process: {error}")
            return
        running.child = replace(child, state=ChildState.READY)
        if child.resident and child.identity.role is Role.PREPARE:
            self._listen_to(child.name)
        evidence.write(running.child, self._folder, [node.pid for node in nodes])

    def _listen_to(self, name: str) -> None:
        hub = self._machine.hub
        if self._hub is not None:
            self._hub[1].close()
        self._hub = name, Link(("127.0.0.1", hub.port), hub.token, lambda: self.news())

    def goodbye(self, seconds: float) -> None:
        """Wait for those who stay to end by themselves, which they have been told to."""
        until = time.monotonic() + seconds
        while self._running and time.monotonic() < until:
            time.sleep(0.02)
            for running in list(self._running.values()):
                self._reap(running)

    def _reap(self, running: Running, *, keep: bool = True) -> bool:
        """keep: a failure counts; it does not if it was us who ended it."""
        known = {node for node, _ in running.ended}
        new = [
            (index, code)
            for index, node in enumerate(running.nodes)
            if index not in known and (code := node.poll()) is not None
        ]
        running.ended.extend(new)
        if running.kill_at is not None and time.monotonic() >= running.kill_at:
            processes.kill(self._mark(running.child.name))
        if len(running.ended) < len(running.nodes):
            if any(code != 0 for _, code in new):
                self._terminate(running)  # as the Job controller does with the other pods
            return False
        failed = next(((node, code) for node, code in running.ended if code != 0), None)
        if running.child.deleting or (failed and not keep):
            del self._running[running.child.name]
            self._folder.remove_child(running.child.name)
        elif failed:
            self._finish(running, failed[1], "", failed[0])
        else:
            self._finish(running, Exit.OK)
        return True

    def _finish(self, running: Running, code: int, sentence: str = "", node: int = 0) -> None:
        """From running to over, with the message that goes with the exit code that counts."""
        name = running.child.name
        path = self._machine.message(name, node)
        log = self._machine.logs(name, max(len(running.nodes), 1))[node]
        child = evidence.over(running.child, code, path, f"logs/{log.name}", sentence)
        evidence.write(child, self._folder)
        del self._running[name]
        self._over[name] = child

    def _terminate(self, running: Running) -> None:
        """SIGTERM once; `look` does the rest."""
        if running.kill_at is not None:
            return
        running.kill_at = time.monotonic() + running.grace
        for node in running.nodes:
            if node.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(node.pid, signal.SIGTERM)

    def _mark(self, name: str = "") -> str:
        return f"{self._folder.children}/{name}".rstrip("/")
