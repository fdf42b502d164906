"""What a round cost, counted as its record changes: seconds of each phase, and of accelerators.

A few numbers for a round, however many take part in it. They decide nothing.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from fedoperator.api import trainer
from fedoperator.api.round import Accelerators, Assignment, Record, RoundStatus
from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import Participant, TrainingSpec
from fedoperator.rounds.look import Look
from fedoperator.rounds.observed import Identity
from fedtrain.contract import Role


def counted(look: Look, after: TrainingStatus, before: Record | None, record: Record) -> Record:
    """The record with what this look adds. after: the training's new status; before: as read."""
    old = before.status if before is not None else RoundStatus()
    update = {
        **_durations(look, after, old, record.status),
        **_accelerators(look, record.spec.round, old, record.status),
    }
    return record.model_copy(update={"status": record.status.model_copy(update=update)})


def _durations(
    look: Look, after: TrainingStatus, old: RoundStatus, new: RoundStatus
) -> dict[str, object]:
    was, now_is = _phase(look.training.status, old), _phase(after, new)
    since = look.since(old.phase_since or new.started_at)
    durations = dict(new.durations)
    if was != now_is:
        _add(durations, was, look.now, since)
        since = look.now
    if old.evaluating_since is not None and new.evaluating_since is None:
        _add(durations, "Evaluating", look.now, look.since(old.evaluating_since))
    return {"durations": durations, "phase_since": since}


def _phase(training: TrainingStatus, status: RoundStatus) -> str:
    suspended = training.phase == "Suspended" and status.phase != "Published"
    return "Suspended" if suspended else status.phase


def _add(durations: dict[str, float], phase: str, now: datetime, since: datetime) -> None:
    seconds = (now - since).total_seconds()
    if seconds > 0:
        durations[phase] = round(durations.get(phase, 0.0) + seconds, 3)


def _accelerators(look: Look, number: int, old: RoundStatus, new: RoundStatus) -> dict[str, object]:
    spec = look.training.spec
    sites = {site.name: site for site in spec.sites}
    held = used = 0.0
    for role, before, after in _changed(old, new):
        count, ran = _count(spec, sites.get(after.name)), 0.0
        reported = before.is_open and after.state in ("Reported", "Accepted", "Rejected")
        measured = (after.seconds or 0.0) if reported else 0.0
        if before.state == "Running" and before.started_at is not None:
            child = look.children.get(Identity(role, number, before.name, before.attempt))
            # However long nobody looked: pods that are over hold nothing.
            ended = look.since(child.ended_at if child is not None else None)
            ran = max(0.0, (ended - look.since(before.started_at)).total_seconds())
        used += count * measured
        held += 0.0 if spec.pods == "Resident" else count * max(ran, measured)
    if spec.pods == "Resident" and (old.phase, new.phase) != ("Published", "Published"):
        held += _held_by_those_who_stay(look, sites, new)
    if not held and not used:
        return {}
    known = new.accelerators or Accelerators()
    total = Accelerators(held=round(known.held + held, 3), used=round(known.used + used, 3))
    return {"accelerators": total}


def _held_by_those_who_stay(
    look: Look, sites: Mapping[str, Participant], new: RoundStatus
) -> float:
    """Of the round, once it is published."""
    if new.phase != "Published" or new.started_at is None:
        return 0.0
    return sum(
        _count(look.training.spec, sites.get(name))
        * (look.now - look.since(max(new.started_at, carrier.job.created_at))).total_seconds()
        for name, carrier in look.carriers.items()
    )


def _changed(old: RoundStatus, new: RoundStatus) -> Iterator[tuple[Role, Assignment, Assignment]]:
    """Who runs no longer, or no longer the same attempt: at what, before and after."""
    for role, kind in (
        (Role.TRAIN, "participants"),
        (Role.EVALUATE, "evaluation"),
        (Role.PERSONALIZE, "personalization"),
    ):
        after = {a.name: a for a in getattr(new, kind)}
        for before in getattr(old, kind):
            now = after.get(before.name, before)
            if before.is_open and (now.state, now.attempt) != (before.state, before.attempt):
                yield role, before, now


def _count(spec: TrainingSpec, site: Participant | None) -> int:
    """Accelerators of all pods of a participant; 0 of the hub, or of one that was removed."""
    if site is None:
        return 0
    of = spec.trainer_of(site)
    return trainer.accelerators(of) * (of.nodes or 1)
