"""What a tracker hears of a training: names, bounds, and when a round is over."""

import re
from typing import Any

from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.tracking import figures, sending

MLFLOW = re.compile(r"^[\w.\- /:]{1,250}$", re.ASCII)
"""What MLflow takes as the name of a value or a parameter."""
BEGAN, ENDED = "2026-01-01T12:00:00Z", "2026-01-01T12:01:30Z"


def a_training(participants: int = 3, **fields: Any) -> Training:
    """fields: of the spec; and `status`."""
    status = fields.pop("status", {"phase": "Training", "round": 1, "startedAt": BEGAN})
    spec = {
        "rounds": 5,
        "trainer": {"image": "x", "command": ["python", "train.py"]},
        "participants": [{"name": f"p{n}"} for n in range(participants)],
        "exchange": {"size": "1Gi"},
        **fields,
    }
    meta = {"name": "digits", "namespace": "hospitals", "uid": "u-1", "generation": 1}
    return Training.from_object({"metadata": meta, "spec": spec, "status": status})


def a_participant(name: str, state: str = "Accepted", **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": state, **fields}


def a_round(number: int, *participants: dict[str, Any], **status: Any) -> Record:
    meta = {"name": f"digits-{number:05d}", "uid": f"r-{number}", "resourceVersion": "1"}
    spec = {"training": "digits", "round": number, "invited": ["p0"]}
    whole = {"phase": "Published", "startedAt": BEGAN, "publishedAt": ENDED, **status}
    whole["participants"] = list(participants)
    return Record.from_object({"metadata": meta, "spec": spec, "status": whole})


def at(phase: str, number: int) -> dict[str, Any]:
    return {"phase": phase, "round": number, "startedAt": BEGAN, "finishedAt": ENDED}


def test_the_training_metrics_are_weighted_as_the_updates_were() -> None:
    record = a_round(
        1,
        a_participant("p0", weight=0.75, samples=30, metrics={"loss": 1.0}),
        a_participant("p1", weight=0.25, samples=10, metrics={"loss": 3.0, "aux": 7.0}),
        a_participant("p2", "Rejected", samples=99, metrics={"loss": 1e9}, reason="NonFinite"),
        metrics={"accuracy": 0.5},
    )
    step = figures.step(a_training(), record)
    assert step.values["train/loss"] == 1.5
    assert step.values["train/aux"] == 7.0
    assert step.values["global/accuracy"] == 0.5
    assert step.values["round/samples"] == 40
    assert step.values["round/seconds"] == 90
    assert (step.values["accepted/p1"], step.values["accepted/p2"]) == (1.0, 0.0)
    assert (step.values["round/accepted"], step.values["round/rejected"]) == (2.0, 1.0)
    assert step.tags == {"fedtrain.missing": "round 1: p2 (NonFinite)"}


def test_of_very_many_participants_there_are_no_series_of_their_own() -> None:
    def names(count: int) -> set[str]:
        everybody = [a_participant(f"p{n}", weight=1 / count, samples=1) for n in range(count)]
        return set(figures.step(a_training(count), a_round(1, *everybody)).values)

    assert "samples/p9" in names(figures.EACH)
    assert len(names(figures.EACH)) > 3 * figures.EACH
    assert len(names(figures.EACH + 1)) < 20


def test_every_step_ends_with_the_value_that_makes_it_whole() -> None:
    unpublished = a_round(2, phase="Training", publishedAt=None)
    for record in (a_round(0), a_round(1, a_participant("p0", "Late")), unpublished):
        failed = a_training(status=at("Failed", 2))
        assert list(figures.step(failed, record).values)[-1] == figures.STEP


def test_names_are_such_as_mlflow_takes() -> None:
    odd = {"lr": 0.1, "a/b c": {"é\n": [1, 2]}, "..": "x" * 9000, "": None, "deep": {"x": {"y": 1}}}
    training = a_training(parameters=odd)
    params = figures.run(training).params
    for name, value in params.items():
        assert MLFLOW.match(name), name
        assert not name.startswith((".", "/"))
        assert len(value) <= figures.TEXT
    assert params["parameters.deep.x.y"] == "1"
    assert params["parameters.a_b c.__"] == "[1, 2]"
    everything = a_round(
        1,
        a_participant("p0", weight=1.0, samples=1, seconds=2.0, metrics={"_x": 1.0}),
        metrics={"loss": 1.0},
        spread={"loss": {"worst": {"name": "p0", "value": 2}, "best": {"name": "p1", "value": 1}}},
        measured={"bytes": 5, "seconds": 1.0, "peakMemory": 7, "residual": 0.1},
        evaluation=[a_participant("p1", "Reported", metrics={"loss": 1.0})],
        personalized={
            "loss": {
                "before": 2,
                "after": 1,
                "worst": {"name": "p0", "value": 2},
                "best": {"name": "p0", "value": 2},
            }
        },
    )
    for name in figures.step(training, everything).values:
        assert MLFLOW.match(name), name


def test_parameters_are_bounded_and_only_what_is_fixed() -> None:
    many = a_training(parameters={str(n): {str(m): m for m in range(50)} for n in range(50)})
    params = figures.run(many).params
    assert len(params) == figures.PARAMS
    names = set(figures.run(a_training()).params)
    assert {"strategy.name", "aggregation.precision", "seed"} <= names
    assert not {n for n in names if n.startswith(("rounds", "quorum", "trainer", "exchange"))}
    assert not {n for n in names if n.startswith("aggregation")} - {"aggregation.precision"}


def test_a_round_is_over_when_its_model_is_published_and_measured() -> None:
    open_, done = a_participant("p0", "Running"), a_participant("p0", "Reported")
    measuring = a_training(evaluation={}, status=at("Training", 2))
    assert not figures.is_over(measuring, a_round(2, phase="Aggregating"))
    assert not figures.is_over(measuring, a_round(1)), "its evaluation has not begun"
    assert not figures.is_over(measuring, a_round(1, evaluation=[open_]))
    assert figures.is_over(measuring, a_round(1, evaluation=[done]))
    assert figures.is_over(a_training(status=at("Training", 2)), a_round(1))


def test_an_evaluation_that_is_asked_for_later_holds_up_no_earlier_round() -> None:
    assert figures.is_over(a_training(evaluation={}, status=at("Training", 9)), a_round(3))


def test_a_last_round_that_is_fine_tuned_is_over_with_the_training() -> None:
    tuned: dict[str, Any] = {"personalization": {"fineTune": {}}}
    last = a_round(5)
    assert not figures.is_over(a_training(**tuned, status=at("Personalizing", 5)), last)
    assert figures.is_over(a_training(**tuned, status=at("Succeeded", 5)), last)


def test_with_the_training_every_round_is_over() -> None:
    assert figures.is_over(a_training(status=at("Failed", 2)), a_round(2, phase="Training"))


class Heard:
    """A tracker that only remembers."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.numbers: list[int] = []

    def begin(self, run: figures.Run) -> int:
        return self.first

    def send(self, run: figures.Run, step: figures.Step) -> None:
        self.numbers.append(step.number)

    def settle(self, run: figures.Run) -> str:
        return "here"

    def abandon(self, run: figures.Run) -> None:
        raise AssertionError("nobody asked for it")


def test_rounds_go_in_order_and_one_that_is_not_over_holds_up_those_after_it() -> None:
    records = {0: a_round(0), 1: a_round(1), 2: a_round(2, phase="Training"), 3: a_round(3)}
    heard = Heard()
    sent = sending.catch_up(a_training(status=at("Training", 2)), records.get, heard)
    assert (sent, heard.numbers) == ((2, "here"), [0, 1])


def test_what_is_there_and_what_is_beyond_the_history_is_not_asked_for() -> None:
    asked = []

    def record_of(number: int) -> Record | None:
        asked.append(number)
        return a_round(number) if number > 7 else None

    heard = Heard(first=2)
    training = a_training(rounds=10, history=4, status=at("Succeeded", 10))
    sending.catch_up(training, record_of, heard)
    assert (asked, heard.numbers) == ([7, 8, 9, 10], [8, 9, 10])
