"""How a process ended, in the words of a Job."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedoperator.local import evidence
from fedoperator.rounds import observed
from fedoperator.rounds.observed import Child, Identity
from fedtrain.contract import Role

CHILD = Child(
    identity=Identity(Role.TRAIN, 1, "a", 1),
    name="linear-train-1-a-1",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(64, "Contract"), (65, "Data"), (74, "Exchange"), (75, "TryAgain"), (1, "Failed")],
)
def test_an_exit_code_without_a_message_has_the_reason_it_has_on_a_cluster(
    tmp_path: Path, code: int, reason: str
) -> None:
    ended = evidence.over(CHILD, code, tmp_path / "none", "logs/a.log")
    assert ended.trouble is not None
    assert ended.trouble.reason == reason == observed.reason_of_exit(code)


def test_a_signal_is_told_by_its_name(tmp_path: Path) -> None:
    ended = evidence.over(CHILD, -9, tmp_path / "none", "logs/a.log")
    assert ended.trouble is not None
    assert ended.trouble.reason == "Killed"
    assert "SIGKILL (out of memory?)" in ended.trouble.message
