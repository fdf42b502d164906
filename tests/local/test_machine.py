"""What the processes of a workload are told: what the pods of its Job are, of this machine."""

import sys
from pathlib import Path

from test_workloads import workloads_of
from world import a_world

from fedoperator.local.children import Children
from fedoperator.local.folder import Folder
from fedoperator.local.machine import Machine
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Role


def of_each_role(**spec) -> dict[Role, Workload]:
    return workloads_of(a_world(rounds=1, evaluation={"by": "north"}).edited(**spec))


def a_machine(tmp_path: Path) -> Machine:
    return Machine(folder=Folder(tmp_path), scripts=tmp_path, claims={})


def test_the_shards_of_an_aggregation_are_processes_that_know_their_index(tmp_path: Path) -> None:
    workload = of_each_role(aggregation={"shards": 3})[Role.AGGREGATE]
    commands = a_machine(tmp_path).commands(workload, "uid")
    assert [c.environment["JOB_COMPLETION_INDEX"] for c in commands] == ["0", "1", "2"]
    assert {tuple(c.arguments) for c in commands} == {
        (sys.executable, "-P", "-m", "fedtrain.aggregation"),
    }
    assert len({c.log for c in commands}) == 3
    assert len({c.environment["FEDTRAIN_TERMINATION_LOG"] for c in commands}) == 3


def test_an_index_of_our_own_pod_is_nobodys_shard(tmp_path: Path, monkeypatch) -> None:
    """`fedtrain run` may itself be a pod of an Indexed Job."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    for workload in of_each_role().values():
        (command,) = a_machine(tmp_path).commands(workload, "uid")
        assert command.environment["JOB_COMPLETION_INDEX"] == "0"


def test_a_participant_keeps_one_folder_for_training_and_evaluation(tmp_path: Path) -> None:
    work = of_each_role()
    machine = a_machine(tmp_path)
    for role in (Role.TRAIN, Role.EVALUATE):
        (command,) = machine.commands(work[role], "uid")
        scratch = Path(command.environment["FEDTRAIN_SCRATCH"])
        assert scratch == tmp_path / "scratch" / work[role].identity.participant
        assert scratch.is_dir()


def test_nobody_else_is_told_of_a_scratch(tmp_path: Path) -> None:
    work = of_each_role()
    for role in (Role.PREPARE, Role.INIT, Role.AGGREGATE):
        (command,) = a_machine(tmp_path).commands(work[role], "uid")
        assert "FEDTRAIN_SCRATCH" not in command.environment
    assert not (tmp_path / "scratch").exists()


def test_an_aggregation_of_several_shards_is_observed_as_several(tmp_path: Path) -> None:
    children = Children(Folder(tmp_path), a_machine(tmp_path), jobs=1)
    children.create(of_each_role(aggregation={"shards": 3})[Role.AGGREGATE])
    (child,) = children.observed().children
    assert child.nodes == 3


def test_ranks_know_how_long_they_have_to_save(tmp_path: Path) -> None:
    (command,) = a_machine(tmp_path).commands(of_each_role()[Role.TRAIN], "uid")
    assert command.environment["FEDTRAIN_GRACE"] == "10"
    trainer = {"image": "i", "command": ["c"], "terminationGracePeriodSeconds": 45}
    (command,) = a_machine(tmp_path).commands(of_each_role(trainer=trainer)[Role.TRAIN], "uid")
    assert command.environment["FEDTRAIN_GRACE"] == "45"
