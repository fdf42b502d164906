"""The loop of `fedtrain run`: look, decide, commit, wait."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedoperator.api.round import Record, record_name
from fedoperator.api.training import Training
from fedoperator.local import applied, report
from fedoperator.local.children import Children
from fedoperator.local.folder import Folder, Refused
from fedoperator.local.machine import Machine
from fedoperator.local.report import Report
from fedoperator.local.signals import Signals
from fedoperator.rounds.machine import decide
from fedoperator.rounds.plan import Plan

AGAIN = "run the same command again to go on"
_BREATH = 0.01
"""Seconds between looks of which each has changed something."""
_SHORTEST = 0.05
"""Seconds between looks of which none has changed anything."""
_BAR = 0.5
"""Seconds between looks for the sake of the clock on a terminal."""
_GOODBYE = 10.0
"""Seconds for the scripts of those who stayed to come to their ends."""
UNFINISHED = 3
"""Exit code: neither succeeded nor failed (suspended, or blocked for too long)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was typed. document: of the file, read but not checked; scripts: the folder that
    commands run in. jobs: ranks at a time, None for as many as there are cores.
    """

    document: dict[str, Any]
    scripts: Path
    out: Path
    jobs: int | None = None
    quiet: bool = False
    claims: Mapping[str, Path] = field(default_factory=dict)
    give_up_after: timedelta = timedelta(minutes=10)


def run(options: Options) -> int:
    """Run the training to its end; the exit code. Raises Refused."""
    folder = Folder(options.out.resolve())
    machine = Machine(folder=folder, scripts=options.scripts, claims=options.claims)
    applied.checked(options.document, None)  # what nobody can run makes no folder
    with folder.held():
        training = applied.checked(options.document, folder.read())
        refusals = list(machine.refusals(training.spec))
        if refusals:
            raise Refused("\n".join(refusals))
        folder.write_training(training)
        children = Children(folder, machine, options.jobs or os.cpu_count() or 1)
        children.resume()
        telling = report.make(quiet=options.quiet)
        for remark in machine.remarks(training.spec):
            telling.say(remark)
        with Signals() as signals:
            children.news = signals.wake
            try:
                return Shell(folder, training, children, telling).run(options, signals)
            finally:
                children.stop(hurry=lambda: len(signals.told) > 1)
                telling.close()


class Shell:
    """One training in its folder, of which no one else changes anything."""

    def __init__(
        self, folder: Folder, training: Training, children: Children, telling: Report
    ) -> None:
        self._folder = folder
        self._training = training
        self._children = children
        self._report = telling
        self._records: dict[int, Record] = {}
        self._forgotten = 0
        """Before this round no records are left."""
        self._blocked_since: float | None = None

    def run(self, options: Options, signals: Signals) -> int:
        """Until the training is over, or cannot go on, or somebody wants us to stop."""
        if self._training.status.round and not self._training.status.terminal:
            self._report.say(f"goes on with round {self._training.status.round}")
        while not signals.told:
            changed = self._children.look()
            plan = self._decided()
            changed |= self._commit(plan)
            self._report.show(self._training, self._record(self._training.status.round))
            if changed:
                signals.wait(_BREATH)
                continue
            code = self._ended(options.give_up_after)
            if code is not None:
                return code
            signals.wait(self._patience(plan))
        self._report.close()
        name = signal.Signals(signals.told[0]).name
        self._report.complain(f"stopped by {name}; {AGAIN}")
        return 128 + signals.told[0]

    def _decided(self) -> Plan:
        number = self._training.status.round
        records = [self._record(n) for n in (number - 1, number, number + 1) if n >= 0]
        known = [record for record in records if record is not None]
        return decide(self._training, known, self._children.observed(), datetime.now(UTC))

    def _record(self, number: int) -> Record | None:
        if number not in self._records:
            record = self._folder.read_record(record_name(self._training.name, number))
            if record is None:
                return None
            self._records[number] = record
        return self._records[number]

    def _commit(self, plan: Plan) -> bool:
        """What was learned, then creations, then deletions; whether there was anything."""
        for record in plan.records:
            number = record.spec.round
            before = self._record(number)
            self._records[number] = self._folder.write_record(record, self._training)
            if report.is_told(record) and not report.is_told(before):
                self._report.say(report.round_line(record, self._training.spec.rounds))
        if plan.status != self._training.status:
            if plan.status.global_model != self._training.status.global_model:
                self._blocked_since = None
            self._folder.write_status(plan.status)
            self._training = self._training.model_copy(update={"status": plan.status})
        for event in plan.events:
            # Why it failed is the last word, and said once.
            if plan.status.phase != "Failed" or event.message != plan.status.message:
                self._report.event(event)
        for workload in plan.create:
            self._children.create(workload)
        self._children.hand(plan)
        for child in plan.delete:
            self._children.delete(child)
        if plan.forget_before is not None and plan.forget_before > self._forgotten:
            self._forget(plan.forget_before)
        return bool(plan.records or plan.create or plan.delete)

    def _forget(self, before: int) -> None:
        """All records of earlier rounds, also those that an earlier run did not get to."""
        self._folder.forget_records({record_name(self._training.name, n) for n in range(before)})
        self._records = {n: record for n, record in self._records.items() if n >= before}
        self._forgotten = before

    def _ended(self, give_up_after: timedelta) -> int | None:
        """The exit code, with the last word, if nothing will happen any more; else None."""
        status = self._training.status
        if status.terminal:
            self._children.goodbye(_GOODBYE)
        if status.phase == "Succeeded":
            self._report.close()
            self._report.last(report.epilogue(self._training, self._folder.exchange))
            return 0
        if status.phase == "Failed":
            self._report.close()
            self._report.complain(f"Failed: {status.reason}: {status.message}")
            return 1
        if status.phase == "Suspended" and self._children.idle:
            self._report.close()
            self._report.complain(f"Suspended: {status.message}, and {AGAIN}")
            return UNFINISHED
        if status.phase == "Blocked" and self._blocked_since is None:
            self._blocked_since = time.monotonic()
        # Between two blocks it tries again; only a new global model ends the waiting.
        if self._blocked_since is None or status.phase != "Blocked":
            return None
        if time.monotonic() - self._blocked_since < give_up_after.total_seconds():
            return None
        self._report.close()
        self._report.complain(f"Blocked: {status.reason}: {status.message}; {AGAIN}")
        return UNFINISHED

    def _patience(self, plan: Plan) -> float | None:
        """Seconds until the next look, if no child ends before."""
        moments = [_BAR] if self._report.moves else []
        if plan.wake_at is not None:
            moments.append((plan.wake_at - datetime.now(UTC)).total_seconds())
        if self._children.kill_at is not None:
            moments.append(self._children.kill_at - time.monotonic())
        return max(min(moments), _SHORTEST) if moments else None
