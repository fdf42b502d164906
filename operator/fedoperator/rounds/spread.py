"""Where a metric is worst and where it is best, by name."""

from collections.abc import Sequence

from fedoperator.api.round import Assignment, FineTuned
from fedoperator.api.status import Extreme, Personalized, Spread
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import bounds, results
from fedtrain import contract


def of(spec: TrainingSpec, evaluations: Sequence[Assignment]) -> dict[str, Spread]:
    """By metric, over those that reported it; as many as `results.mean` gives."""
    done = [e for e in evaluations if e.state == "Reported"]
    names = results.mean(spec, evaluations)
    return {name: _of_one(spec, name, done) for name in names}


def personalized(spec: TrainingSpec, tuned: Sequence[FineTuned]) -> dict[str, Personalized]:
    """By metric, over those that have it before and after."""
    done = [t for t in tuned if t.state == "Reported"]
    before = results.mean(
        spec, [t.model_copy(update={"metrics": _both(t, t.before)}) for t in done]
    )
    after = results.mean(
        spec, [t.model_copy(update={"metrics": _both(t, t.metrics)}) for t in done]
    )
    found = {}
    for name in after:
        spread = _of_one(spec, name, [t for t in done if name in t.before])
        found[name] = Personalized(
            before=before[name], after=after[name], worst=spread.worst, best=spread.best
        )
    return bounds.preferred(spec, found, contract.METRICS_LIMIT)


def worst(spec: TrainingSpec, score: str, evaluations: Sequence[Assignment]) -> str:
    """`south accuracy=0.81` for a column; empty if only one evaluated it."""
    name = score.partition("=")[0]
    done = [e for e in evaluations if e.state == "Reported" and name in e.metrics]
    if len(done) < 2:
        return ""
    extreme = _of_one(spec, name, done).worst
    return f"{extreme.name} {name}={extreme.value:.4g}"


def _both(tuned: FineTuned, metrics: dict[str, float]) -> dict[str, float]:
    return {
        name: value for name, value in metrics.items() if name in {*tuned.before} & {*tuned.metrics}
    }


def _of_one(spec: TrainingSpec, metric: str, done: Sequence[Assignment]) -> Spread:
    rising = [
        Extreme(name=e.name, value=e.metrics[metric])
        for e in sorted(done, key=lambda e: (e.metrics.get(metric, 0.0), e.name))
        if metric in e.metrics
    ]
    low, high = rising[0], next(e for e in rising if e.value == rising[-1].value)
    less = spec.less_is_better(metric)
    return Spread(worst=high, best=low) if less else Spread(worst=low, best=high)
