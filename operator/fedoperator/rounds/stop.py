"""When a training is over, and which models are its best: what spec.stop and keep.best read."""

from collections.abc import Mapping

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Record, RoundStatus
from fedoperator.api.status import Best
from fedoperator.api.training import Stop, Training, TrainingSpec


def is_last(training: Training, current: Record) -> bool:
    """Whether no round follows this published one."""
    number, wanted = current.spec.round, training.spec.stopping
    if number == 0:
        return False
    if number >= training.spec.rounds:
        return True
    if wanted is None:
        return False
    found = best(training, {number: current})
    return stops(training.spec, found, number, value(wanted, current.status))


def value(wanted: Stop, status: RoundStatus) -> float | None:
    """The metric of a round's global model, of whomever `of` means; None if nobody measured it."""
    if wanted.of == "Mean":
        return status.metrics.get(wanted.metric)
    spread = status.spread.get(wanted.metric)
    if spread is None:
        return None
    return (spread.worst if wanted.of == "Worst" else spread.best).value


def better(stop: Stop, value: float, best: Best | None) -> bool:
    assert stop.mode is not None, "spec.stopping and spec.ranking say the mode"
    if best is None or not _alike(stop, best):
        return True  # the best of another metric is none
    return value > best.value if stop.mode == "Max" else value < best.value


def best_of(
    stop: Stop,
    best: Best | None,
    round_number: int,
    value: float,
    model: GlobalModel | None = None,
) -> Best:
    """The best so far; a tie keeps the earlier round. Looking at a round again changes nothing."""
    if not better(stop, value, best):
        assert best is not None, "a value that is not better than nothing"
        return best
    return _as_best(stop, round_number, value, model)


def best(training: Training, rounds: Mapping[int, Record]) -> Best | None:
    """What `spec.stop` compares with, once these rounds are looked at."""
    found, wanted = training.status.best, training.spec.stopping
    for number, record in sorted(rounds.items()):
        measured = None if wanted is None else value(wanted, record.status)
        if wanted is not None and measured is not None:
            found = best_of(wanted, found, number, measured, record.status.global_model)
    return found


def kept(training: Training, rounds: Mapping[int, Record]) -> list[Best]:
    """The models that `spec.keep.best` keeps, the best first; of equals the earlier round's."""
    wanted, count = training.spec.ranking, training.spec.keep.best
    if wanted is None or not count:
        return []
    ranked = {b.round: b for b in training.status.kept if _alike(wanted, b)}
    for number, record in rounds.items():
        measured = value(wanted, record.status)
        if measured is not None:
            ranked[number] = _as_best(wanted, number, measured, record.status.global_model)
    sign = -1 if wanted.mode == "Max" else 1
    return sorted(ranked.values(), key=lambda b: (sign * b.value, b.round))[:count]


def _alike(stop: Stop, best: Best) -> bool:
    return (best.metric, best.mode, best.of) == (stop.metric, stop.mode, stop.of)


def _as_best(stop: Stop, number: int, value: float, model: GlobalModel | None) -> Best:
    of_stop = {"metric": stop.metric, "mode": stop.mode, "of": stop.of}
    return Best(round=number, value=value, model=model, **of_stop)


def stops(spec: TrainingSpec, best: Best | None, round_number: int, value: float | None) -> bool:
    """Whether the metric of this evaluated round ends the training."""
    stop = spec.stopping
    if stop is None or value is None:
        return False
    if stop.target is not None:
        reached = value >= stop.target if stop.mode == "Max" else value <= stop.target
        if reached:
            return True
    if stop.patience is None or best is None:
        return False
    every = spec.evaluation.every if spec.evaluation else 1
    return (round_number - best.round) // every >= stop.patience
