"""Untrusted text is parsed in children: what crashes there costs one participant its round."""

import faulthandler
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from fedtrain.aggregation import inspection
from fedtrain.contract import MODEL_FILE

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
MIB = 1024 * 1024


def honest(a_federation: Make, a_delta: Make) -> Any:
    return a_federation().with_update("a", a_delta(1)).with_update("c", a_delta(3), samples=5)


@pytest.fixture(scope="module")
def model_without_the_hostile(a_federation: Make, a_delta: Make) -> bytes:
    federation = honest(a_federation, a_delta)
    federation.aggregate()
    return bytes((federation.root / "global/1/1" / MODEL_FILE).read_bytes())


def crash(how: str) -> None:
    if how == "a segmentation fault":
        faulthandler.disable()
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "all memory":
        bytearray(1024 * MIB)
    raise AssertionError("a bug of ours")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("a segmentation fault", "killed by SIGSEGV"),
        ("all memory", "ran out of memory"),
        ("a bug", "crashed"),
    ],
)
def test_a_crash_during_inspection_costs_only_the_one_that_was_inspected(
    a_federation: Make,
    a_delta: Make,
    model_without_the_hostile: bytes,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    sentence: str,
) -> None:
    inspect = inspection.inspect

    def crashing(intake: Any, participant: str, attempt: int) -> Any:
        if participant == "b":
            crash(how)
        return inspect(intake, participant, attempt)

    monkeypatch.setattr(inspection, "inspect", crashing)
    federation = honest(a_federation, a_delta).with_update("b", a_delta(2))
    message = federation.aggregate(threads=3)
    assert federation.verdict_on("b", message) == "InspectionCrashed"
    assert sentence in message.result["details"]["b"]
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


def test_an_inspection_that_was_killed_once_is_done_again(
    a_federation: Make, a_delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = inspection.inspect
    federation = honest(a_federation, a_delta)

    def killed_once(intake: Any, participant: str, attempt: int) -> Any:
        flag = federation.root / f"killed-{participant}"
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return inspect(intake, participant, attempt)

    monkeypatch.setattr(inspection, "inspect", killed_once)
    assert federation.aggregate(threads=2).result["verdicts"] == ".."


def test_a_failing_disk_is_not_blamed_on_the_participant(
    a_federation: Make, a_delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(inspection, "inspect", failing)
    with pytest.raises(OSError, match="while the update of a was read"):
        honest(a_federation, a_delta).aggregate()
