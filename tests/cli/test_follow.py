"""What `fedtrain watch` says when it looks at a training again and again."""

from typing import Any

import pytest

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Assignment, Record, RoundSpec, RoundStatus, record_name
from fedoperator.api.training import Training
from fedoperator.cli.follow import Follower
from fedoperator.local.report import Report


def a_training(uid: str = "1", **status: Any) -> Training:
    spec = {
        "rounds": 30,
        "trainer": {"image": "x", "command": ["train"]},
        "participants": [{"name": "a"}, {"name": "b"}],
        "exchange": {"size": "1Gi"},
    }
    document = {
        "metadata": {"name": "digits", "namespace": "default", "uid": uid},
        "spec": spec,
        "status": status,
    }
    return Training.from_object(document)


class Rounds:
    """The FederatedRounds of a cluster: those up to `done` are over, and the next one runs."""

    def __init__(self, done: int = 0) -> None:
        self.done = done

    def __call__(self, name: str) -> Record | None:
        number = int(name.rsplit("-", 1)[1])
        if number > self.done + 1:
            return None
        status = RoundStatus(phase="Training")
        if number <= self.done:
            people = [Assignment(name=n, state="Accepted") for n in "ab"]
            model = GlobalModel(round=number, path=f"x/global/{number}/1/m", digest="d")
            status = RoundStatus(
                phase="Published",
                participants=people,
                global_model=model,
                metrics={"accuracy": number / 30},
            )
        spec = RoundSpec(training="digits", round=number, invited=["a", "b"])
        return Record(name=record_name("digits", number), spec=spec, status=status)


Said = pytest.CaptureFixture[str]


def test_each_round_is_told_once(capsys: Said) -> None:
    rounds = Rounds()
    follower = Follower(Report(), rounds)
    for number in (1, 2, 2, 3):
        rounds.done = number - 1
        assert follower.look(a_training(phase="Training", round=number)) is None
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round")]
    assert lines == [
        "round 1/30  accepted 2/2  accuracy 0.03333",
        "round 2/30  accepted 2/2  accuracy 0.06667",
    ]


def test_who_comes_late_is_told_the_last_ten_rounds(capsys: Said) -> None:
    Follower(Report(), Rounds(done=24)).look(a_training(phase="Training", round=25))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round")]
    assert [line.split()[1] for line in lines] == [f"{n}/30" for n in range(15, 25)]


def test_phases_of_every_round_are_no_news(capsys: Said) -> None:
    follower = Follower(Report(), Rounds())
    for phase in ("Training", "Aggregating", "Training", "Evaluating"):
        follower.look(a_training(phase=phase, round=1))
    assert capsys.readouterr().out == "digits: Training, 0 rounds\n"


def test_what_blocks_it_is_said_once_with_its_remedy(capsys: Said) -> None:
    follower = Follower(Report(), Rounds())
    blocked = {"phase": "Blocked", "reason": "ClaimMissing", "message": "no claim; create it"}
    for status in ({"phase": "Pending"}, blocked, blocked, {"phase": "Training", "round": 1}):
        follower.look(a_training(**status))
    said = capsys.readouterr()
    assert said.err == "Blocked: ClaimMissing: no claim; create it\n"
    assert said.out.endswith("Training, round 1/30\n")


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 1)])
def test_it_ends_with_the_training(capsys: Said, phase: str, code: int) -> None:
    model = {"round": 1, "path": "x/global/1/1/m", "digest": "sha256:1"}
    training = a_training(phase=phase, reason="Why", message="that is why", globalModel=model)
    assert Follower(Report(), Rounds()).look(training) == code
    assert "that is why" in "".join(capsys.readouterr())


def test_a_training_made_again_is_told_from_its_first_round(capsys: Said) -> None:
    rounds = Rounds(done=1)
    follower = Follower(Report(), rounds)
    follower.look(a_training(phase="Training", round=2))
    follower.look(a_training(uid="2", phase="Training", round=2))
    said = capsys.readouterr().out
    assert "digits was deleted and made again" in said
    assert said.count("round 1/30") == 2
