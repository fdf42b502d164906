"""What `fedtrain run` tells: a line for what happened, and on a terminal a bar for what happens."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.local import visible
from fedoperator.rounds import quarantine
from fedoperator.rounds.plan import Event

_IN_ROUND_LINE = frozenset({"RoundPublished", "Evaluated", "Succeeded", "Failed"})


class Report:
    """Plain lines on standard output; with quiet only the last one and what is wrong."""

    moves: ClassVar[bool] = False
    """Whether it wants to be shown how things stand now and then, even if nothing happens."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        if not self._quiet:
            self._print(visible.line(line))

    def event(self, event: Event) -> None:
        if event.warning:
            self.complain(f"{event.reason}: {event.message}")
        elif event.reason not in _IN_ROUND_LINE:
            self.say(event.message)

    def complain(self, line: str) -> None:
        print(visible.line(line), file=sys.stderr, flush=True)

    def last(self, line: str) -> None:
        """Said even when quiet; of several lines, of which each is ours."""
        self._print(visible.lines(line))

    def show(self, training: Training, record: Record | None = None) -> None:
        """How things stand; called at every look. record: of the round in progress, if known."""

    def close(self) -> None:
        """Before the last word."""

    def _print(self, line: str) -> None:
        print(line, flush=True)


class Live(Report):
    """The same lines above a bar.

    clock: have a thread move it; not where processes are forked.
    """

    moves = True

    def __init__(self, *, clock: bool = False) -> None:
        super().__init__()
        import rich.progress

        from fedoperator.local import participants

        self._bar = participants.Bar(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[news]}", markup=False),
            rich.progress.TimeElapsedColumn(),
            auto_refresh=clock,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1, news="")
        self._bar.start()

    def show(self, training: Training, record: Record | None = None) -> None:
        status, spec = training.status, training.spec
        counts = status.participants
        published = status.global_model.round if status.global_model else 0
        part = counts.reported / counts.invited if counts.invited else 0.0
        done = published if published >= status.round else published + part * 0.9
        news = [f"{status.reported} reported" if counts.invited else "", status.score]
        self._bar.update(
            self._task,
            description=f"round {status.round}/{spec.rounds} {status.phase}",
            total=spec.rounds,
            completed=done,
            news=visible.line("  ".join(filter(None, news))),
        )
        self._bar.record = record
        self._bar.refresh()

    def complain(self, line: str) -> None:
        self._print(visible.line(line))

    def close(self) -> None:
        self._bar.stop()

    def _print(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._bar.refresh()


def make(*, quiet: bool, clock: bool = False) -> Report:
    """A bar if somebody is looking."""
    if quiet or not sys.stdout.isatty():
        return Report(quiet=quiet)
    try:
        return Live(clock=clock)
    except ImportError:
        return Report()


def is_told(record: Record | None) -> bool:
    """Whether everything that a round's line says is known."""
    if record is None or record.status.phase != "Published" or record.spec.round == 0:
        return False
    return not any(evaluation.is_open for evaluation in record.status.evaluation)


def round_line(record: Record, rounds: int) -> str:
    """`round 3/10  accepted 3/3  accuracy 0.943  loss 0.21  worst north accuracy=0.8  6.1 s`."""
    status, number = record.status, record.spec.round
    accepted = sum(p.state == "Accepted" for p in status.participants)
    words = [f"round {number}/{rounds}", f"accepted {accepted}/{len(status.participants)}"]
    words += measured(status.metrics)
    if status.worst:
        words.append(f"worst {status.worst}")
    missing = [
        f"{p.name} ({p.reason or p.state})" for p in status.participants if p.state != "Accepted"
    ]
    for how, names in (("without", missing), ("quarantined", list(quarantine.left_out(record)))):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            words.append(f"{how} {', '.join(names[:5])}{more}")
    if status.started_at is not None and status.published_at is not None:
        words.append(f"{(status.published_at - status.started_at).total_seconds():.1f} s")
    return "  ".join(words)


def measured(metrics: Mapping[str, float]) -> list[str]:
    return [visible.line(f"{name} {value:.4g}") for name, value in sorted(metrics.items())]


def epilogue(training: Training, exchange: Path) -> str:
    """The last line of a training that succeeded: how far, how good, how long, and where it is."""
    status = training.status
    model = status.global_model
    words = [visible.line(f"Succeeded: {status.message}"), *measured(status.metrics)]
    if status.started_at is not None and status.finished_at is not None:
        words.append(f"{(status.finished_at - status.started_at).total_seconds():.1f} s")
    where = f"\nmodel: {exchange / model.path}\ndigest: {model.digest}" if model else ""
    return "  ".join(words) + where
