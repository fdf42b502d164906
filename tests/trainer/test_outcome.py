"""The verdict on a command that left no receipt, from values alone."""

import signal
from typing import Any

import pytest

from fedtrain import outcome
from fedtrain.contract import Exit, Role
from fedtrain.errors import ContractError, DataError, FedtrainError, TryAgain, of
from fedtrain.outcome import Ended, Outcome, judge

TORCHRUN_KILLED = """\
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
Failures:
[1]:
  exitcode  : -15 (pid: 1)  (SIGTERM)
Root Cause (first observed failure):
[0]:
  exitcode  : -9 (pid: 2)  (SIGKILL)
"""


def ended(**known: Any) -> Ended:
    return Ended(**{"role": Role.TRAIN, "code": 1, **known})


def lost(rank: int = 0, at: float = 1.0) -> Outcome:
    sentence = "Connection closed by peer"
    return Outcome(exit=75, reason="PeersLost", message=sentence, rank=rank, lost_peers=True, at=at)


def test_the_guilty_rank_speaks_for_all_even_if_the_others_were_first() -> None:
    guilty = Outcome(exit=65, reason="NotFinite", message="tensor 'w'", rank=1, at=2.0)
    verdict = judge(ended(outcomes=(lost(), guilty), nodes=2))
    assert (verdict.exit, verdict.message.reason) == (Exit.DATA, "NotFinite")
    assert verdict.message.message == "rank 1: tensor 'w'"
    assert not verdict.linger


def test_a_node_that_only_lost_its_peers_lingers_if_there_are_others() -> None:
    alone, one_of_two = (judge(ended(outcomes=(lost(),), nodes=nodes)) for nodes in (1, 2))
    assert alone.message.reason == one_of_two.message.reason == "PeersLost"
    assert (alone.linger, one_of_two.linger) == (False, True)


def test_a_rank_killed_under_torchrun_is_the_cause_of_its_peers_loss() -> None:
    verdict = judge(ended(outcomes=(lost(),), tail=TORCHRUN_KILLED))
    assert (verdict.exit, verdict.message.reason) == (Exit.TRY_AGAIN, "ScriptKilled")
    assert "SIGKILL (out of memory?)" in verdict.message.message


@pytest.mark.parametrize("code", [-9, 137])
def test_a_killed_command_is_known_directly_and_through_a_shell(code: int) -> None:
    assert judge(ended(code=code)).message.reason == "ScriptKilled"


def test_what_was_told_to_stop_is_not_to_blame() -> None:
    verdict = judge(ended(code=-15, told=signal.SIGTERM, outcomes=(lost(),)))
    assert (verdict.exit, verdict.message.reason) == (Exit.TRY_AGAIN, "Terminated")


def test_an_abort_by_nccl_s_watchdog_on_several_nodes_is_a_loss_of_peers() -> None:
    tail = "[rank0] Watchdog caught collective operation timeout: WorkNCCL(...)"
    assert judge(ended(code=-6, tail=tail, nodes=2)).message.reason == "PeersLost"
    assert judge(ended(code=-6, tail=tail, nodes=1)).message.reason == "ScriptKilled"


def test_the_last_exception_in_the_log_speaks_for_a_script_that_never_reached_rounds() -> None:
    tail = "[rank0]: ValueError: bad flag\nmore\nx.errors.ChildFailedError: \n"
    assert judge(ended(tail=tail)).message.message == "ValueError: bad flag"


def test_errors_of_gloo_and_of_stores_are_told_from_those_of_scripts() -> None:
    gloo = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.1]")
    wrapped = ValueError("while reducing")
    wrapped.__cause__ = gloo
    assert outcome.only_lost_its_peers(gloo)
    assert outcome.only_lost_its_peers(wrapped)
    assert not outcome.only_lost_its_peers(RuntimeError("shape mismatch"))
    assert not outcome.only_lost_its_peers(ValueError("Connection closed by peer"))


@pytest.mark.parametrize("kind", [ContractError, DataError, TryAgain])
def test_an_error_that_travels_between_ranks_stays_what_it_is(kind: type[FedtrainError]) -> None:
    import pickle

    error = kind("SomeReason", "one sentence")
    for twin in (of(error.exit, error.reason, str(error)), pickle.loads(pickle.dumps(error))):
        assert (type(twin), twin.reason, str(twin)) == (kind, "SomeReason", "one sentence")
