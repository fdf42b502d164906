"""benchmarks/rounds.py: what its figures are made of, and that fedtrain would run its trainings."""

from pathlib import Path

import pytest

from benchmarks import rounds
from benchmarks.federations import environments, ours
from benchmarks.federations.tasks import TASKS, Marks, Measured
from fedoperator.api import admission

STAMPS = {
    "0": "1 began 10.0\n1 ended 11.0\n2 began 14.5\n2 ended 15.0\n3 began 20.0\n3 ended 20.5\n",
    "1": "1 began 10.5\n1 ended 12.0\n2 began 14.0\n2 ended 16.0\n3 began 19.0\n3 ended 21.0\n",
}


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    for name, text in STAMPS.items():
        (tmp_path / name).write_text(text)
    return Marks.of_stamps(tmp_path)


def test_a_round_lasts_from_its_first_step_to_the_next_ones(marks: Marks) -> None:
    assert marks.periods(3) == [4.0, 5.0]
    assert marks.gaps(3) == [2.0, 3.0]


def test_a_round_that_never_began_gives_no_figures(marks: Marks) -> None:
    with pytest.raises(ValueError, match=r"rounds \[1, 2, 3\] began, of 4"):
        marks.periods(4)


def test_records_say_the_same_as_stamps(marks: Marks) -> None:
    records = []
    for number in (1, 2, 3):
        participants = []
        for name, text in STAMPS.items():
            lines = (line.split() for line in text.splitlines())
            metrics = {what: float(at) for n, what, at in lines if n == str(number)}
            participants.append({"name": f"p{name}", "metrics": metrics})
        status = {"participants": participants}
        records.append({"spec": {"round": number}, "status": status})
    assert Marks.of_records(records).periods(3) == marks.periods(3)
    assert Marks.of_records(records).gaps(3) == marks.gaps(3)


@pytest.mark.parametrize("pods", [pods for pods in rounds.PODS if ours.knows(pods)])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_its_trainings_are_valid(task, pods: str) -> None:
    assert admission.problems(None, ours.training(task, pods)) == []


def test_the_table_compares_with_ours_and_names_what_failed() -> None:
    task = TASKS[0]
    figures = [
        Measured(system=rounds.FIRST, task=task, periods=[1.0, 3.0], gaps=[0.5, 0.7], total=9.0),
        Measured(system="FLARE", task=task, periods=[5.0, 5.0], gaps=[4.0, 4.0], peak=2**30),
        Measured(system="Flower", task=task, failed="it took more than 600 s"),
    ]
    lines = rounds.table(figures).splitlines()
    assert lines[-3].startswith(
        f"| {rounds.FIRST} | 2.00 | 1.00 | 3.00 | 1.00 | 0.60 | 0.70 | 9.0 |"
    )
    assert lines[-2].startswith(
        "| FLARE | 5.00 | 5.00 | 5.00 | 2.50 | 4.00 | 4.00 | 0.0 |  | 1024 |"
    )
    assert "it took more than 600 s" in lines[-1]


def test_the_peers_are_pinned_and_everything_they_need() -> None:
    assert (environments.version("flwr"), environments.version("nvflare")) == ("1.41.0", "2.9.0")
    lines = environments.REQUIREMENTS.read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))
