"""Processes that stay between rounds give what processes of a round each give, sooner."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

Three = Callable[..., dict[str, list[str]]]

DDP = """
import torch
from torch.nn.parallel import DistributedDataParallel

from fedtrain import rounds

torch.manual_seed(3)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for rnd in rounds(model, optimizer=optimizer, evaluate=lambda m: {"bias": m.bias.sum().item()}):
    ddp = DistributedDataParallel(model)
    for _ in range(3):
        optimizer.zero_grad()
        ddp(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    rnd.submit(samples=16)
print("the script came to its end")
"""


def pids(federation: Any, name: str) -> list[int]:
    """Of the processes of one participant's workload."""
    from fedoperator.local import processes

    return processes.marked(str(federation.out / "children" / name))


def test_the_same_digests_as_with_processes_of_a_round_each(
    federation: Any, three: Three, undisturbed: Any
) -> None:
    federation.of(three(), rounds=10, pods="Resident", evaluation={"by": "a"})
    result = federation.run()
    assert result.returncode == 0, result.stderr
    digests = [r["status"]["globalModel"]["digest"] for r in federation.records]
    assert digests == [r["status"]["globalModel"]["digest"] for r in undisturbed.records]
    metrics = [r["status"]["metrics"] for r in federation.records]
    assert metrics == [r["status"]["metrics"] for r in undisturbed.records]
    made = sorted(path.name for path in (federation.out / "logs").glob("*-train-*"))
    assert made == [f"linear-train-1-{name}-1.log" for name in "abc"]
    assert federation.processes == []


def test_one_that_is_killed_comes_back_and_changes_nothing(
    federation: Any, three: Three, undisturbed: Any
) -> None:
    federation.of(three("--sleep", "0.3"), rounds=10, pods="Resident", evaluation={"by": "a"})
    running = federation.start()
    federation.wait_for(lambda: federation.round >= 3)
    for pid in pids(federation, "linear-train-1-b-1"):
        os.kill(pid, signal.SIGKILL)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert federation.digest == undisturbed.digest
    logs = sorted(path.name for path in (federation.out / "logs").glob("*-train-*"))
    assert len(logs) == 4, "only b was made again"


def test_a_hub_that_is_killed_is_made_again_and_changes_nothing(
    federation: Any, three: Three, undisturbed: Any
) -> None:
    federation.of(three("--sleep", "0.3"), rounds=10, pods="Resident", evaluation={"by": "a"})
    running = federation.start()
    federation.wait_for(lambda: federation.round >= 3)
    for pid in pids(federation, "linear-prepare-0-1"):
        os.kill(pid, signal.SIGKILL)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert federation.digest == undisturbed.digest
    assert len(list((federation.out / "logs").glob("*-train-*"))) == 3, "nobody lost its place"


def test_interrupted_and_started_again_it_goes_on(
    federation: Any, three: Three, undisturbed: Any
) -> None:
    federation.of(three("--sleep", "0.1"), rounds=10, pods="Resident", evaluation={"by": "a"})
    federation.kill_after(lambda: federation.round >= 4)
    result = federation.run()
    assert result.returncode == 0, result.stderr
    assert federation.digest == undisturbed.digest


def test_a_script_that_fails_in_a_later_round_is_told_with_its_reason(
    federation: Any, three: Three
) -> None:
    federation.of(three() | {"b": ["--raise-in", "2"]}, rounds=3, retries=0, pods="Resident")
    result = federation.run()
    assert result.returncode == 0, result.stderr
    failed = next(p for p in federation.records[2]["status"]["participants"] if p["name"] == "b")
    assert failed["state"] == "Failed"
    assert "ValueError: no luck in round 2" in failed["message"]
    again = next(p for p in federation.records[3]["status"]["participants"] if p["name"] == "b")
    assert again["state"] == "Accepted"


def test_two_ranks_of_torch_stay_and_give_the_same_bytes(a_federation: Any, tmp_path: Path) -> None:
    digests = {}
    for mode in ("Resident", "PerRound"):
        (tmp_path / mode).mkdir()
        made = a_federation(tmp_path / mode)
        (made.folder / "train.py").write_text(DDP)
        trainer = {"image": "x", "command": ["torchrun", "train.py"], "processesPerNode": 2}
        made.of({"a": []}, rounds=3, pods=mode, trainer=trainer, evaluation={"by": "a"})
        result = made.run()
        assert result.returncode == 0, result.stderr
        digests[mode] = [r["status"]["globalModel"]["digest"] for r in made.records]
        made.close()
    assert digests["Resident"] == digests["PerRound"]
    log = (tmp_path / "Resident" / "out" / "logs" / "linear-train-1-a-1.log").read_text()
    assert log.count("the script came to its end") == 2
