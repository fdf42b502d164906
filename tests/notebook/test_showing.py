"""Plots and tables of rounds, from records as either kind of run reads them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import matplotlib as mpl
import pytest

from fedoperator.api.round import Record
from fedoperator.api.status import TrainingStatus
from fedoperator.local.folder import Refused
from fedoperator.notebook import Round, plot, run

mpl.use("Agg")
START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def a_round(number: int, metrics: dict[str, float], **losses: float) -> Round:
    """losses: by participant, what each reported of its training; a negative one was late."""
    participants: list[dict[str, Any]] = [
        {
            "name": name,
            "state": "Late" if loss < 0 else "Accepted",
            "reason": "DeadlinePassed" if loss < 0 else "",
            "message": "<img src=x> was too late" if loss < 0 else "",
            "weight": 0.5,
            "metrics": {"loss": abs(loss)},
        }
        for name, loss in losses.items()
    ]
    record = {
        "name": f"digits-{number:05d}",
        "spec": {"training": "digits", "round": number, "invited": list(losses)},
        "status": {
            "phase": "Published",
            "startedAt": START,
            "publishedAt": START + timedelta(seconds=2.5),
            "participants": participants,
            "metrics": metrics,
        },
    }
    return Round(Record.model_validate(record), lambda model, exchange: pytest.fail("not asked"))


@pytest.fixture
def rounds() -> list[Round]:
    return [
        a_round(1, {"accuracy": 0.5, "loss": 2.0}, north=3.0, south=2.0),
        a_round(2, {}, north=2.0, south=-1.0),
        a_round(3, {"accuracy": 0.9, "loss": 0.5}, north=1.0, south=0.0),
    ]


def lines(ax: Any) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): list(zip(*map(list, line.get_data()), strict=True))
        for line in ax.get_lines()
    }


def test_every_metric_has_an_axes_with_the_models_and_the_participants(rounds) -> None:
    accuracy, loss = plot.history(rounds, (), None)
    assert [ax.get_ylabel() for ax in (accuracy, loss)] == ["accuracy", "loss"]
    assert lines(accuracy) == {"global model": [(1, 0.5), (3, 0.9)]}
    assert lines(loss) == {
        "global model": [(1, 2.0), (3, 0.5)],
        "participants, mean": [(1, 2.5), (2, 2.0), (3, 0.5)],
        "participants": [(1, 3.0), (1, 2.0), (2, 2.0), (2, 1.0), (3, 1.0), (3, 0.0)],
    }
    mpl.pyplot.close("all")


def test_all_in_one_axes_if_one_is_given(rounds) -> None:
    _, ax = mpl.pyplot.subplots()
    assert plot.history(rounds, ("accuracy", "loss"), ax) == [ax, ax]
    assert {"accuracy global model", "loss participants"} <= lines(ax).keys()
    mpl.pyplot.close("all")


def test_a_metric_that_is_not_there_is_one_sentence(rounds) -> None:
    with pytest.raises(Refused, match="f1 is no metric of these rounds; use accuracy, loss"):
        plot.history(rounds, ("f1",), None)


def test_without_rounds_there_is_an_empty_axes() -> None:
    (ax,) = plot.history([], (), None)
    assert lines(ax) == {}
    mpl.pyplot.close("all")


def test_a_round_says_who_is_missing_and_why(rounds) -> None:
    assert rounds[1].accepted == ("north",)
    assert rounds[1].missing == {"south": "DeadlinePassed"}
    assert rounds[1].trained() == {"loss": 2.0}
    assert rounds[1].seconds == 2.5
    assert repr(rounds[2]) == "<Round 3 accepted 2/2 accuracy=0.9 loss=0.5>"


def test_tables_hold_what_was_said_as_text(rounds) -> None:
    evil = a_round(4, {"<b>": 1.0}, north=-1.0)
    status = TrainingStatus(phase="Blocked", message="<script>alert(1)</script>")
    for table in (evil._repr_html_(), run.table("digits", status, [*rounds, evil])):
        assert "&lt;b&gt; 1" in table
        assert not any(tag in table for tag in ("<b> ", "<img", "<script"))
    table = run.table("digits", status, rounds)
    assert "<td>2</td><td>1/2</td><td></td><td>2.5</td><td>south (DeadlinePassed)</td>" in table
