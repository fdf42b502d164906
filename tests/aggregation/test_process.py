"""How the aggregator's process ends: exit codes and messages, whatever happens."""

from collections.abc import Callable
from typing import Any

import pytest

from fedtrain.contract import Message, ParticipantTask, PrepareTask, Role

pytestmark = pytest.mark.processes

Make = Callable[..., Any]


@pytest.fixture
def federation(a_federation: Make, a_delta: Make) -> Any:
    return a_federation().with_update("a", a_delta(1)).with_update("b", a_delta(2))


def test_a_task_of_another_kind_breaks_the_contract(federation: Any, run_task: Make) -> None:
    task = ParticipantTask(
        role=Role.TRAIN, training="t", uid="u", round=1, participant="a", attempt=1, output="o"
    )
    for text in (task, "{}", "nonsense", '{"kind":"PrepareTask","role":"prepare","x":1}'):
        ended = run_task(text, federation.root)
        assert (ended.code, ended.message.reason) == (64, "BadTask")


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("where", ["the allocation", "a write"])
def test_a_full_exchange_is_charged_to_nobody_and_leaves_nothing(
    federation: Any, where: str, code: str
) -> None:
    target = "_preallocate" if where == "the allocation" else "write_fully"
    ended = federation.run_with(f"""
import errno
from fedtrain import tensorfile
def full(*_):
    raise OSError(errno.{code}, "no space left on device")
tensorfile.{target} = full
""")
    assert (ended.code, ended.message.reason) == (74, "ExchangeFull")
    assert "no space left on device" in ended.message.message
    assert list((federation.root / "global/1").iterdir()) == []
    assert federation.run().code == 0


def test_an_exchange_that_became_read_only_is_charged_to_nobody(federation: Any) -> None:
    ended = federation.run_with("""
from fedtrain import tensorfile
def refuse(*_):
    raise OSError(30, "Read-only file system")
tensorfile._preallocate = refuse
""")
    assert (ended.code, ended.message.reason) == (74, "ExchangeNotWritable")


def test_an_unexpected_exception_is_tried_again_and_leaves_its_traceback(federation: Any) -> None:
    ended = federation.run_with("""
from fedtrain.aggregation import engine
def broken(*_):
    raise ZeroDivisionError("of our own making")
engine.weighed = broken
""")
    assert (ended.code, ended.message.reason) == (75, "ZeroDivisionError")
    assert ended.message.message == "of our own making"
    assert "Traceback" in ended.output


def test_a_failing_disk_is_tried_again(federation: Any) -> None:
    ended = federation.run_with("""
from fedtrain.aggregation import inspection
def failing(*_):
    raise OSError(5, "Input/output error")
inspection.inspect = failing
""")
    assert (ended.code, ended.message.reason) == (75, "OSError")
    assert "while the update of a was read" in ended.message.message


def test_a_message_that_cannot_be_left_changes_no_exit_code(
    federation: Any, run_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = federation.run_with("""
import os
os.environ["FEDTRAIN_TERMINATION_LOG"] = "/nowhere/at/all"
""")
    assert (ended.code, ended.message) == (0, None)


def test_what_it_says_on_the_way_names_the_refused_and_the_rates(
    federation: Any, a_delta: Make
) -> None:
    federation.with_update("c", a_delta(3), base="sha256:another")
    ended = federation.run()
    assert "refused c, attempt 1: BaseMismatch: relative to 'sha256:another'" in ended.output
    assert "inspected 3 updates, 2 are in order" in ended.output
    assert "folded 2 updates with FedAvg" in ended.output


@pytest.mark.parametrize("digest", ["\ud800", "x\nthe model was replaced"])
def test_words_that_cannot_be_printed_cost_their_author_the_round_and_nobody_else(
    federation: Any, a_delta: Make, digest: str
) -> None:
    federation.with_update("mallory", a_delta(3), digest=digest)
    ended = federation.run()
    assert ended.code == 0, ended.output
    assert ended.message is not None
    assert federation.verdict_on("mallory", ended.message) == "ReceiptInvalid"
    assert "\nthe model" not in ended.output


def test_neither_torch_nor_pickle_nor_the_safetensors_library_is_loaded(federation: Any) -> None:
    ended = federation.run_with(
        "", "import sys; print('loaded:', {'torch', 'safetensors'} & set(sys.modules))"
    )
    assert "loaded: set()" in ended.output


def test_a_task_to_prepare_is_done_by_the_same_program(federation: Any, run_task: Make) -> None:
    task = PrepareTask(training="t", uid="u", round=0, attempt=1, participants=("north",))
    ended = run_task(task, federation.root / "deep" / "digits-1a2b3c4d")
    assert ended.code == 0
    assert isinstance(ended.message, Message)
    assert (federation.root / "deep/digits-1a2b3c4d/updates/north").is_dir()
