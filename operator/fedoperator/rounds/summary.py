"""The status of a training, computed anew from its rounds: how far, how good, why not."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from fedoperator.api.base import Condition
from fedoperator.api.round import Assignment, Record, RoundStatus
from fedoperator.api.status import Counts, Phase, TrainingStatus
from fedoperator.api.training import Training
from fedoperator.rounds import evaluation, personalization, preparation, quarantine, quorum, stop
from fedoperator.rounds.observed import Trouble
from fedoperator.rounds.quorum import Standing

_PASSING = frozenset({"Disrupted", "NodeLost", "PodRejected", "ResultLost"})
"""Failures of a step that the next attempt mends by itself: no reason to call for a user."""


def status(training: Training, rounds: Mapping[int, Record], now: datetime) -> TrainingStatus:
    """The new status; equal to the old one if nothing happened."""
    old, spec = training.status, training.spec
    current = rounds[max(rounds)]
    published = [r for _, r in sorted(rounds.items()) if r.status.global_model is not None]
    model = published[-1].status.global_model if published else old.global_model
    evaluated = [r for r in published if r.status.metrics]
    names = {p.name for p in spec.participants}
    out = {n: until for n, until in quarantine.left_out(current).items() if n in names}
    update: dict[str, object] = {
        "observed_generation": training.generation,
        "round": max(old.round, current.spec.round),
        "global_model": model,
        "prepared_generation": preparation.prepared_generation(old, rounds.values()),
        "started_at": old.started_at or now,
        "participants": _counts(current.status.participants, len(out)),
        "quarantine": _in_quarantine(out),
        "best": stop.best(training, rounds),
        "kept": stop.kept(training, rounds),
        "personalized": current.status.personalized,
    }
    if evaluated:
        update["evaluated_round"] = evaluated[-1].spec.round
        update["metrics"] = evaluated[-1].status.metrics
        update["spread"] = evaluated[-1].status.spread
    new = old.model_copy(update=update)
    phase, trouble = _phase(training, rounds)
    settled = sum(p.state in ("Reported", "Accepted") for p in current.status.participants)
    return new.model_copy(
        update={
            "phase": phase,
            "reason": trouble.reason[:80],
            "message": trouble.message[:2048],
            "progress": f"{model.round if model else 0}/{spec.rounds}",
            "reported": f"{settled}/{len(current.status.participants)}",
            "score": score(training, new.metrics),
            "finished_at": now if phase in ("Succeeded", "Failed") else None,
            "conditions": _conditions(training, phase, trouble, now),
        }
    )


def score(training: Training, metrics: Mapping[str, float]) -> str:
    """One metric for a column: what `stop` looks at, else accuracy, else the first."""
    wanted = training.spec.stop.metric if training.spec.stop else "accuracy"
    name = wanted if wanted in metrics else min(metrics, default="")
    return f"{name}={metrics[name]:.4g}" if name else ""


def accepted(participants: Sequence[Assignment]) -> str:
    """`2/3`: accepted of invited; empty for the initial model, in which nobody has a part."""
    count = sum(p.state == "Accepted" for p in participants)
    return f"{count}/{len(participants)}" if participants else ""


def shares(participants: Sequence[Assignment]) -> str:
    """`north 159 (0.249), south 479 (0.751)`: samples and share of the mean, as far as they fit."""
    parts = [
        f"{p.name} {p.samples if p.samples is not None else '?'} ({p.weight:.3f})"
        for p in participants
        if p.state == "Accepted" and p.weight is not None
    ]
    return _fitting(parts)


def _in_quarantine(left_out: Mapping[str, int]) -> str:
    """`north up to round 8`, for as many as fit."""
    return _fitting([f"{name} up to round {until}" for name, until in left_out.items()])


def _fitting(parts: Sequence[str]) -> str:
    text = ", ".join(parts)
    return text if len(text) <= 250 else text[:247].rpartition(",")[0] + " ..."


def _counts(participants: Sequence[Assignment], quarantined: int) -> Counts:
    states = [p.state for p in participants]
    return Counts(
        invited=len(states),
        running=states.count("Running"),
        reported=states.count("Reported") + states.count("Accepted"),
        failed=sum(p.is_lost for p in participants),
        quarantined=quarantined,
    )


def _phase(training: Training, rounds: Mapping[int, Record]) -> tuple[Phase, Trouble]:
    spec, current = training.spec, rounds[max(rounds)]
    failed = _failed(training, current.status)
    if failed is not None:
        return "Failed", failed
    evaluating = any(
        evaluation.outstanding(spec, number, record.status.evaluation)
        for number, record in rounds.items()
        if record.status.phase == "Published"
    )
    last = current.status.phase == "Published" and stop.is_last(training, current)
    personalizing = personalization.outstanding(training, current)
    if last and not evaluating and not personalizing:
        number = current.spec.round
        early = number < spec.rounds
        reason = "StoppedEarly" if early else "AllRoundsDone"
        text = "1 round published" if number == 1 else f"{number} rounds published"
        text += f"; spec.stop on {spec.stop.metric} was met" if early and spec.stop else ""
        return "Succeeded", Trouble(reason=reason, message=text)
    aggregating = current.status.aggregation
    folding = current.status.phase == "Aggregating" and aggregating and aggregating.is_live
    if spec.suspend and not folding:
        text = "set spec.suspend to false to go on with the same round"
        return "Suspended", Trouble(reason="Suspended", message=text)
    blocked = _blocked(training, current.status) or _waits_for_evaluation(rounds)
    if blocked is not None:
        return "Blocked", blocked
    nothing = Trouble(reason="", message="")
    if current.status.phase == "Preparing":
        return ("Training" if current.spec.round else "Pending"), nothing
    if current.status.phase == "Published" and personalizing:
        return "Personalizing", nothing
    if current.status.phase == "Published":
        return "Evaluating" if evaluating else "Training", nothing
    return current.status.phase, nothing


def _failed(training: Training, status: RoundStatus) -> Trouble | None:
    """What no retry and no other participant can cure, or what the user asked to fail."""
    if status.init is not None and status.init.state == "Failed":
        return Trouble(reason=status.init.reason, message=_said(status.init))
    if status.phase != "Training":
        return None
    broken = quorum.nothing_can_cure(status.participants, training.spec.participants)
    if broken is not None:
        return Trouble(reason=broken.reason, message=_said(broken))
    missed = quorum.standing(status.participants, training.spec.quorum) is Standing.MISSED
    if missed and training.spec.quorum.on_miss == "Fail":
        return Trouble(reason="QuorumMissed", message=_missing(training, status))
    return None


def _blocked(training: Training, status: RoundStatus) -> Trouble | None:
    """Why the round cannot go on as things stand; it is tried again all the same."""
    step = {
        "Preparing": status.prepare,
        "Initialising": status.init,
        "Aggregating": status.aggregation,
    }.get(status.phase)
    if step is not None:
        stuck = step.state in ("Retrying", "Invited") and step.reason not in {"", *_PASSING}
        return Trouble(reason=step.reason, message=_said(step)) if stuck else None
    if status.phase != "Training":
        return None
    if quorum.standing(status.participants, training.spec.quorum) is Standing.MISSED:
        few = len(training.spec.participants) < training.spec.quorum.minimum
        reason = "NotEnoughParticipants" if few else "QuorumMissed"
        return Trouble(reason=reason, message=_missing(training, status))
    waiting = [p for p in status.participants if _is_stuck(p)]
    hopeful = sum(p.is_open or p.state == "Reported" for p in status.participants)
    if waiting and hopeful - len(waiting) < training.spec.quorum.minimum:
        return Trouble(reason=waiting[0].reason, message=_said(waiting[0]))
    return None


def _is_stuck(p: Assignment) -> bool:
    """Whether it cannot start, or keeps failing of what is not its own."""
    if p.state == "Retrying":
        return p.failure == "Free" and p.reason not in _PASSING
    return p.state == "Invited" and p.reason != ""


def _waits_for_evaluation(rounds: Mapping[int, Record]) -> Trouble | None:
    """Why an evaluation, or a fine-tuning, that everything waits for cannot start."""
    if rounds[max(rounds)].status.phase != "Published":
        return None
    for what in ("evaluation", "personalization"):
        all_of_it = [e for r in rounds.values() for e in getattr(r.status, what)]
        open_ones = [e for e in all_of_it if e.is_open]
        stuck = [e for e in open_ones if e.state == "Invited" and e.reason]
        if stuck and len(stuck) == len(open_ones):
            return Trouble(reason=stuck[0].reason, message=f"{what}: {_said(stuck[0])}")
    return None


def _said(assignment: Assignment) -> str:
    who = f"participant {assignment.name}: " if assignment.name else ""
    return who + (assignment.message or assignment.reason)


def _missing(training: Training, status: RoundStatus) -> str:
    reported = sum(p.state == "Reported" for p in status.participants)
    text = f"{reported} updates of the {training.spec.quorum.minimum} that spec.quorum.minimum asks"
    gone = [p for p in status.participants if p.is_lost]
    causes = "; ".join(f"{p.name}: {p.reason}: {p.message}"[:300] for p in gone[:3])
    remedy = "mend the cause, or lower spec.quorum.minimum; what was reported is kept"
    return f"{text} for; {causes}; {remedy}"


def _conditions(
    training: Training, phase: Phase, trouble: Trouble, now: datetime
) -> list[Condition]:
    """One per terminal or waiting phase; a transition time moves only when a status flips."""
    old = {c.type: c for c in training.status.conditions}
    result = []
    for kind, of_phase in (
        ("Complete", "Succeeded"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("Blocked", "Blocked"),
    ):
        holds = "True" if phase == of_phase else "False"
        before = old.get(kind)
        flipped = before is None or before.status != holds
        result.append(
            Condition(
                type=kind,
                status=holds,
                reason=(trouble.reason[:80] or phase) if holds == "True" else f"Not{of_phase}",
                message=trouble.message[:2048] if holds == "True" else "",
                last_transition_time=now
                if flipped or before is None
                else before.last_transition_time,
                observed_generation=training.generation,
            )
        )
    return result
