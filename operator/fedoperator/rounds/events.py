"""What is worth a Kubernetes event: the differences between what was and what is written now."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

from fedoperator.api.round import Assignment, Record, RoundStatus
from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import quarantine
from fedoperator.rounds.plan import Event

_BAD = frozenset({"Retrying", "Failed", "Late", "Rejected"})


def of(
    spec: TrainingSpec,
    before: TrainingStatus,
    after: TrainingStatus,
    records_before: Mapping[int, Record],
    records_after: Mapping[int, Record],
) -> tuple[Event, ...]:
    """In the order in which a reader would tell the story."""
    found: list[Event] = []
    for number, record in sorted(records_after.items()):
        old = records_before.get(number)
        old_status = old.status if old else RoundStatus()
        found.extend(_of_round(number, old_status, record.status))
        if _is_measured(record.status) and not _is_measured(old_status):
            found.extend(_missing(spec, number, record.status))
        found.extend(_of_quarantine(record, old, records_after.get(number - 1)))
        if old is None and number > 0:
            names = ", ".join(record.spec.invited[:10])
            more = len(record.spec.invited) - 10
            text = f"round {number} begins with {names}" + (f" and {more} more" if more > 0 else "")
            found.append(Event(reason="RoundStarted", message=text))
    if after.phase != before.phase and after.phase in ("Blocked", "Failed"):
        found.append(Event(reason=after.reason, message=after.message, warning=True))
    if before.phase == "Suspended" and after.phase != "Suspended":
        found.append(Event(reason="Resumed", message=f"goes on with round {after.round}"))
    if after.phase != before.phase and after.phase in ("Suspended", "Succeeded"):
        found.append(Event(reason=after.phase, message=after.message))
    return tuple(found)


def _of_quarantine(record: Record, old: Record | None, before: Record | None) -> Iterator[Event]:
    """Who is left out from this round on, and who comes back."""
    number, known = record.spec.round, set() if old is None else set(quarantine.released(old))
    for name in quarantine.released(record):
        if name not in known:
            text = f"too few are left without {name}; it takes part in round {number} all the same"
            yield Event(reason="Released", message=text)
    if old is not None or before is None:
        return
    lost = {p.name: p for p in before.status.participants if quarantine.by_own_fault(p)}
    for name, until in quarantine.left_out(record).items():
        if name in lost:
            text = f"{name} keeps losing its rounds ({lost[name].reason or lost[name].state}); left"
            text += f" out up to round {until}, unless too few are left (spec.quarantine)"
            yield Event(reason="Quarantined", message=text, warning=True)
    for name, until in before.spec.quarantined.items():
        if until == before.spec.round and name in record.spec.quarantined and name not in lost:
            text = f"{name} may be invited again from round {number} on"
            yield Event(reason="Released", message=text)


def _of_round(number: int, before: RoundStatus, after: RoundStatus) -> Iterator[Event]:
    names = {p.name: p for p in before.participants}
    for p in after.participants:
        if p.state not in _BAD:
            continue
        old = names.get(p.name, Assignment(name=p.name))
        if (p.state, p.attempt) != (old.state, old.attempt):
            reason = p.reason or p.state
            text = f"round {number}, participant {p.name}, attempt {p.attempt}: {p.message}"
            yield Event(reason=reason, message=f"{text} ({p.state})", warning=True)
    if after.misses > before.misses:
        text = f"round {number}: too few participants can still report; they are invited again"
        yield Event(reason="QuorumMissed", message=text, warning=True)
    if after.global_model is not None and before.global_model is None:
        accepted = sum(p.state == "Accepted" for p in after.participants)
        text = f"round {number} published {after.global_model.digest}"
        updates = "1 update" if accepted == 1 else f"{accepted} updates"
        text += f" from {updates}" if number > 0 else ", the initial model"
        yield Event(reason="RoundPublished", message=text)
    if after.metrics and not before.metrics:
        shown = ", ".join(f"{name}={value:.4g}" for name, value in sorted(after.metrics.items()))
        yield Event(reason="Evaluated", message=f"global model of round {number}: {shown}")
    yield from _failed(f"round {number}, evaluation by", before.evaluation, after.evaluation)
    yield from _failed("fine-tuning by", before.personalization, after.personalization)
    if after.personalized and not before.personalized:
        shown = "; ".join(
            f"{name} {p.before:.4g} became {p.after:.4g} (worst {p.worst.name} "
            f"{p.worst.value:.4g}, best {p.best.name} {p.best.value:.4g})"
            for name, p in sorted(after.personalized.items())
        )
        yield Event(reason="Personalized", message=f"fine-tuned by its participants: {shown}"[:900])


def _is_measured(status: RoundStatus) -> bool:
    """Whether somebody has measured the round's model, and nobody is still at it."""
    states = [e.state for e in status.evaluation]
    return "Reported" in states and not any(e.is_open for e in status.evaluation)


def _missing(spec: TrainingSpec, number: int, status: RoundStatus) -> Iterator[Event]:
    """Metrics that something waits for, and that nobody measured: misspelled, most likely."""
    asked = {
        "spec.stop.metric": spec.stop.metric if spec.stop is not None else None,
        "spec.keep.metric": spec.keep.metric,
    }
    for field, metric in asked.items():
        if metric is None or metric in status.metrics:
            continue
        near = difflib.get_close_matches(metric, status.metrics, n=1)
        remedy = f"did you mean {near[0]}?" if near else "have evaluate() return it"
        there = (
            f"only {', '.join(sorted(status.metrics))}" if status.metrics else "nor was any other"
        )
        text = f"{field}: {metric} was not measured in round {number}, {there}; {remedy}"
        yield Event(reason="MetricMissing", message=text[:900], warning=True)


def _failed(
    what: str, before: Sequence[Assignment], after: Sequence[Assignment]
) -> Iterator[Event]:
    olds = {x.name: x.state for x in before}
    for e in after:
        if e.state == "Failed" and olds.get(e.name) != "Failed":
            text = f"{what} {e.name}: {e.message}"
            yield Event(reason=e.reason or "EvaluationFailed", message=text, warning=True)
