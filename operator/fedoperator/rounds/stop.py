"""When a training is over: the last round, or what `spec.stop` says about an evaluated metric."""

from fedoperator.api.status import Best
from fedoperator.api.training import Stop, TrainingSpec


def better(stop: Stop, value: float, best: Best | None) -> bool:
    if best is None or (best.metric, best.mode) != (stop.metric, stop.mode):
        return True  # the best of another metric is none
    return value > best.value if stop.mode == "Max" else value < best.value


def best_of(stop: Stop, best: Best | None, round_number: int, value: float) -> Best:
    """The best so far; a tie keeps the earlier round. Looking at a round again changes nothing."""
    if not better(stop, value, best):
        assert best is not None, "a value that is not better than nothing"
        return best
    return Best(metric=stop.metric, mode=stop.mode, round=round_number, value=value)


def stops(spec: TrainingSpec, best: Best | None, round_number: int, value: float | None) -> bool:
    """Whether the metric of this evaluated round ends the training."""
    stop = spec.stop
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
