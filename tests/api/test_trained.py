"""The mean of what participants reported while they trained, one for whoever shows it."""

import math

from fedoperator.api.round import Assignment, RoundStatus


def accepted(name: str, loss: float, weight: float | None = None) -> Assignment:
    return Assignment(name=name, state="Accepted", weight=weight, metrics={"loss": loss})


def test_it_is_weighted_as_the_updates_were():
    status = RoundStatus(participants=[accepted("a", 1.0, 0.75), accepted("b", 3.0, 0.25)])
    assert status.trained("loss") == 1.5


def test_without_weights_all_count_alike():
    status = RoundStatus(participants=[accepted("a", 1.0), accepted("b", 3.0)])
    assert status.trained("loss") == 2.0


def test_only_finite_values_of_the_accepted_count():
    late = Assignment(name="c", state="Late", metrics={"loss": 9.0})
    status = RoundStatus(participants=[accepted("a", 1.0), accepted("b", math.inf), late])
    assert status.trained("loss") == 1.0
    assert status.trained("accuracy") is None
