"""What children say of themselves, read with suspicion: a lie may cost its teller, nobody else."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fedoperator.api.round import Assignment, Candidate, FineTuned, Measured, Range
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import bounds
from fedoperator.rounds.observed import Trouble
from fedtrain import contract
from fedtrain.contract import Role

A = TypeVar("A", bound=Assignment)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}([+]sha256:[0-9a-f]{64})?")
_LARGEST = 1e300


def reported(assignment: A, result: Mapping[str, Any]) -> A:
    """The assignment with what its termination message says, as far as that makes sense."""
    tuned = isinstance(assignment, FineTuned)
    before = {"before": metrics(result.get("before"))} if tuned else {}
    return assignment.model_copy(
        update=before
        | {
            "state": "Reported",
            "reason": "",
            "message": "",
            "samples": whole(result.get("samples")),
            "seconds": number(result.get("seconds")),
            "digest": digest(result),
            "base_model": digest({"digest": result.get("base_model")}),
            "metrics": metrics(result.get("metrics")),
        }
    )


def kept(role: Role, result: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What is read of a result, and no more: many are remembered as long as pods stay.

    An aggregation's is our own code's word, and stays as it is.
    """
    if result is None or role is Role.AGGREGATE:
        return result
    readers: Mapping[str, Callable[[Any], object]] = {
        "digest": lambda given: digest({"digest": given}),
        "base_model": lambda given: digest({"digest": given}),
        "samples": whole,
        "seconds": number,
        "metrics": metrics,
        "before": metrics,
    }
    return {name: read(result[name]) for name, read in readers.items() if name in result}


def digest(result: Mapping[str, Any]) -> str | None:
    text = result.get("digest")
    return text if isinstance(text, str) and _DIGEST.fullmatch(text) else None


def whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def number(value: object) -> float | None:
    """A finite number that can be summed a thousand times over, else None; JSON has larger ones."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -_LARGEST < value < _LARGEST else None


def metrics(value: object) -> dict[str, float]:
    """At most METRICS_LIMIT finite numbers under proper names, in order of name."""
    if not isinstance(value, Mapping):
        return {}
    named = {
        name: measured
        for name, raw in sorted(value.items(), key=lambda item: str(item[0]))
        if isinstance(name, str)
        and re.fullmatch(contract.METRIC_NAME.rstrip("$"), name)
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
        residual=number(result.get("residual")),
        norms=_range(result, "norms"),
        cosines=_range(result, "cosines"),
        exchange_free=whole(result.get("exchangeFree")),
        exchange_size=whole(result.get("exchangeSize")),
    )


def _range(result: Mapping[str, Any], name: str) -> Range | None:
    spread = result.get("spread")
    values = spread.get(name) if isinstance(spread, Mapping) else None
    numbers = [number(v) for v in values] if isinstance(values, list) else []
    match numbers:
        case [float() as least, float() as median, float() as most]:
            return Range(least=least, median=median, most=most)
    return None


def compared(accepted: Sequence[Assignment], result: Mapping[str, Any]) -> list[Assignment]:
    """Each accepted, in the candidates' order, with its norm and cosine, if told of all of them."""
    columns = [result.get(name) for name in ("norms", "cosines")]
    norms, cosines = (
        c if isinstance(c, list) and len(c) == len(accepted) else [None] * len(accepted)
        for c in columns
    )
    return [
        p.model_copy(update={"norm": number(norm), "cosine": number(cosine)})
        for p, norm, cosine in zip(accepted, norms, cosines, strict=True)
    ]


def mean(spec: TrainingSpec, evaluations: Sequence[Assignment]) -> dict[str, float]:
    """Each metric's mean over those that reported it, weighted by samples where all gave some.

    The weights follow spec.weight, cap included: what somebody says of itself decides no more here
    than in training.
    """
    done = [e for e in evaluations if e.state == "Reported"]
    by = spec.weight.by if all(e.samples for e in done) else "Uniform"
    weights = {e.name: contract.weight_of(e.samples or 0, by, spec.weight.max) for e in done}
    result = {}
    for name in {name for e in done for name in e.metrics}:
        values = [(e.metrics[name], weights[e.name]) for e in done if name in e.metrics]
        total = sum(weight for _, weight in values)
        result[name] = sum(value * (weight / total) for value, weight in values)
    return bounds.preferred(spec, dict(sorted(result.items())), contract.METRICS_LIMIT)
