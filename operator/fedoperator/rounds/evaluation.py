"""Which global models are measured, and by whom. A metric belongs to the model it measured."""

from collections.abc import Sequence

from fedoperator.api.round import Assignment
from fedoperator.api.training import TrainingSpec

BY_ALL = "Participants"


def is_due(spec: TrainingSpec, round_number: int) -> bool:
    """Every `every` rounds, and the last round always; the untrained model never."""
    if spec.evaluation is None or round_number == 0:
        return False
    return round_number % spec.evaluation.every == 0 or round_number >= spec.rounds


def outstanding(spec: TrainingSpec, round_number: int, evaluations: Sequence[Assignment]) -> bool:
    """Whether this round's global model is still to be measured, begun or not."""
    if any(e.is_open for e in evaluations):
        return True
    return not evaluations and is_due(spec, round_number)


def evaluators(spec: TrainingSpec) -> list[Assignment]:
    assert spec.evaluation is not None, "asked only when an evaluation is due"
    if spec.evaluator is not None:
        return [Assignment(name=spec.evaluator.name)]
    if spec.evaluation.by == BY_ALL:
        return [Assignment(name=name) for name in sorted(p.name for p in spec.participants)]
    return [Assignment(name=spec.evaluation.by)]
