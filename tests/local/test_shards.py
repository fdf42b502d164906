"""Whose word counts when several processes share an aggregation."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_workloads import workloads_of
from world import a_world

from fedoperator.local.children import Children
from fedoperator.local.folder import Folder
from fedoperator.local.machine import Machine
from fedoperator.local.processes import Command
from fedoperator.rounds.observed import Child, ChildState, Failure
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import MESSAGE_ENV, Exit, Message, Role

pytestmark = pytest.mark.processes

SHARD = """
import os, sys, time
time.sleep(float(sys.argv[1]))
open(os.environ["FEDTRAIN_TERMINATION_LOG"], "w").write(sys.argv[3])
sys.exit(int(sys.argv[2]))
"""
End = tuple[float, int, Message]
"""Of a shard: after so many seconds, with this exit code, saying this."""


class Scripted(Machine):
    """A machine whose shards end as they are told to."""

    ends: tuple[End, ...] = ()

    def commands(self, workload: Workload, uid: str) -> list[Command]:
        logs = self.logs(workload.name, workload.nodes)
        return [
            Command(
                arguments=[sys.executable, "-c", SHARD, str(after), str(code), said],
                environment={MESSAGE_ENV: str(self.message(workload.name, node))},
                folder=self.folder.root,
                log=logs[node],
            )
            for node, (after, code, message) in enumerate(self.ends)
            for said in [message.encode().decode()]
        ]


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[object]:
    """The child of an aggregation by shards that end like this."""
    folder = Folder(tmp_path)
    made: list[Children] = []

    def end(*ends: End) -> Child:
        machine = type("Shards", (Scripted,), {"ends": ends})
        spec = {"shards": len(ends)}
        world = a_world(rounds=1).edited(aggregation=spec)
        children = Children(folder, machine(folder=folder, scripts=tmp_path, claims={}), jobs=1)
        made.append(children)
        children.create(workloads_of(world)[Role.AGGREGATE])
        until = time.monotonic() + 30
        while not (child := children.observed().children[0]).finished:
            assert time.monotonic() < until, "it does not end"
            children.look()
            time.sleep(0.01)
        return child

    with folder.held():
        yield end
        for children in made:
            children.stop()


WHOLE = Message(result={"digest": "sha256:0", "verdicts": "..."})
NOTHING = Message()
FEW = Message(reason="TooFewAccepted", message="1 of 2", result={"verdicts": ".N"})


def test_on_success_it_is_the_first_shard_whoever_ends_first(ended) -> None:
    child = ended((0.3, 0, WHOLE), (0.0, 0, NOTHING), (0.0, 0, NOTHING))
    assert (child.state, child.result) == (ChildState.SUCCEEDED, dict(WHOLE.result))


def test_on_failure_it_is_the_one_that_failed_first(ended) -> None:
    child = ended((30.0, 0, WHOLE), (0.0, int(Exit.VERDICTS), FEW))
    assert (child.state, child.failure) == (ChildState.FAILED, Failure.VERDICTS)
    assert (child.trouble.reason, child.result) == ("TooFewAccepted", dict(FEW.result))


def test_a_shard_whose_part_is_final_does_not_hide_a_later_failure(ended) -> None:
    full = Message(reason="ExchangeFull", message="no room")
    child = ended((0.3, int(Exit.EXCHANGE), full), (0.0, 0, NOTHING))
    assert (child.failure, child.trouble.reason) == (Failure.FREE, "ExchangeFull")
