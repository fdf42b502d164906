"""What children say of themselves, read with suspicion: a lie may cost its teller, nobody else."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fedoperator.api.round import Assignment, Candidate, Measured
from fedoperator.rounds.observed import Trouble
from fedtrain import contract

_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


def reported(assignment: Assignment, result: Mapping[str, Any]) -> Assignment:
    """The assignment with what its termination message says, as far as that makes sense."""
    return assignment.model_copy(
        update={
            "state": "Reported",
            "reason": "",
            "message": "",
            "samples": whole(result.get("samples")),
            "seconds": number(result.get("seconds")),
            "digest": digest(result),
            "metrics": metrics(result.get("metrics")),
        }
    )


def digest(result: Mapping[str, Any]) -> str | None:
    text = result.get("digest")
    return text if isinstance(text, str) and _DIGEST.match(text) else None


def whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def number(value: object) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None  # type: ignore[arg-type]


def metrics(value: object) -> dict[str, float]:
    """At most METRICS_LIMIT finite numbers under proper names, in order of name."""
    if not isinstance(value, Mapping):
        return {}
    named = {
        name: measured
        for name, raw in sorted(value.items(), key=lambda item: str(item[0]))
        if isinstance(name, str)
        and re.match(contract.METRIC_NAME, name)
        and (measured := number(raw)) is not None
    }
    return dict(list(named.items())[: contract.METRICS_LIMIT])


def rejections(candidates: Sequence[Candidate], result: Mapping[str, Any]) -> dict[str, Trouble]:
    """Participant → why its update was not accepted, from the aggregation's verdicts."""
    verdicts, reasons = result.get("verdicts"), result.get("reasons")
    if not isinstance(verdicts, str) or not isinstance(reasons, Mapping):
        return {}
    details = result.get("details")
    details = details if isinstance(details, Mapping) else {}
    return {
        candidate.name: Trouble(
            reason=str(reasons.get(verdict, "Rejected"))[:80],
            message=str(details.get(candidate.name, ""))[:2048],
        )
        for candidate, verdict in zip(candidates, verdicts, strict=False)
        if verdict != "."
    }


def filled(assignment: Assignment, result: Mapping[str, Any]) -> Assignment:
    """Samples and digest as the aggregation read them: its word counts, it has seen the files."""
    known = result.get("filled")
    own = known.get(assignment.name) if isinstance(known, Mapping) else None
    if not isinstance(own, Mapping):
        return assignment
    samples = whole(own.get("samples"))
    return assignment.model_copy(
        update={
            "samples": assignment.samples if samples is None else samples,
            "digest": digest(own) or assignment.digest,
        }
    )


def measured(result: Mapping[str, Any]) -> Measured:
    return Measured(
        bytes=whole(result.get("bytes")) or 0,
        seconds=number(result.get("seconds")) or 0.0,
        peak_memory=whole(result.get("peakMemory")) or 0,
    )


def mean(evaluations: Sequence[Assignment]) -> dict[str, float]:
    """Each metric's mean over those that reported it, weighted by samples where all gave some."""
    done = [e for e in evaluations if e.state == "Reported"]
    weighted = all(e.samples for e in done)
    result = {}
    for name in sorted({name for e in done for name in e.metrics}):
        pairs = [(e.metrics[name], e.samples or 0) for e in done if name in e.metrics]
        total = sum(n for _, n in pairs) if weighted else len(pairs)
        result[name] = sum(value * (n if weighted else 1) for value, n in pairs) / total
    return result
