"""Several ranks, started by real torchruns: they end the same way, and the guilty one speaks."""

import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fedtrain.tensorfile import TensorFile

pytestmark = pytest.mark.processes

SCRIPT = """\
import os
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from fedtrain import rounds

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
{wrap}
for rnd in rounds(model):
    rank, world = dist.get_rank(), dist.get_world_size()
    ddp = DistributedDataParallel(getattr(model, "module", model))
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(rnd.seed))
    ddp(inputs[rank::world]).square().mean().backward()
    optimizer.step()
    os.write(1, f"rank {{rank}} of {{world}} draws {{torch.rand(()).item()}}\\n".encode())
    {before}
    rnd.submit(samples=8{more})
"""


OWN_GROUP = """\
dist.init_process_group("gloo")
model = DistributedDataParallel(model)
"""


def script(before: str = "pass", more: str = "", wrap: str = "") -> str:
    return SCRIPT.format(before=before, more=more, wrap=wrap)


FAILING: Mapping[str, str] = {
    "disagree": script(more=" + rank"),
    "raise": script("if rank == 1: raise ValueError('bad sector')"),
    "killed": script("if rank == 1: os.kill(os.getpid(), 9)"),
}


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return str(listener.getsockname()[1])


def test_torchruns_of_one_node_run_side_by_side_and_each_rank_has_its_own_seed(
    exchange: Any,
) -> None:
    exchange.publish_initial(script())
    tasks = [exchange.train("north"), exchange.train("south"), exchange.train("north", attempt=2)]
    texts = [script(), script(wrap=OWN_GROUP), script()]
    started = [
        exchange.start(text, task, processes=2) for text, task in zip(texts, tasks, strict=True)
    ]
    ended = [running.end() for running in started]
    assert [one.code for one in ended] == [0, 0, 0], "\n".join(one.log for one in ended)
    digests = [one.message.result["digest"] for one in ended]
    assert digests[0] == digests[2] != digests[1]  # the same round again, and another participant
    with TensorFile.open(exchange.root / tasks[1].output / "update.safetensors") as update:
        assert np.abs(update.read("0.weight")).max() > 0  # without the `module.` of its own DDP
    draws = {line for line in ended[0].log.splitlines() if line.startswith("rank ")}
    assert len({line.split()[-1] for line in draws}) == 2
    assert draws == {line for line in ended[2].log.splitlines() if line.startswith("rank ")}


def test_what_fails_on_one_rank_is_the_outcome_of_all(exchange: Any) -> None:
    exchange.publish_initial(script())
    started = {
        name: exchange.start(text, exchange.train(name), processes=2)
        for name, text in FAILING.items()
    }
    said = {}
    for name, running in started.items():
        ended = running.end()
        said[name] = (ended.code, ended.message.reason, ended.message.message)
        assert not (exchange.root / exchange.train(name).output).exists()
    assert said["disagree"][:2] == (64, "SamplesDisagree")
    assert "rank 0 says 8, rank 1 says 9" in said["disagree"][2]
    assert said["raise"] == (75, "ScriptFailed", "rank 1: ValueError: bad sector (train.py:19)")
    assert said["killed"][:2] == (75, "ScriptKilled")


def test_a_node_that_lost_its_peers_lets_the_guilty_one_fail_first(exchange: Any) -> None:
    exchange.publish_initial(script())
    failing = script("if rank == 1: raise ValueError('bad sector')")
    address = {"PET_NNODES": "2", "PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": free_port()}
    bystander, guilty = (
        exchange.start(
            failing, exchange.train(), processes=1, env=address | {"PET_NODE_RANK": str(node)}
        )
        for node in range(2)
    )
    ended = guilty.end()
    assert (ended.code, ended.message.reason) == (75, "ScriptFailed")
    bystander.wait_for("lost its peers; waits 15 s")
    assert bystander.process.poll() is None
    bystander.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    ended = bystander.end()
    assert time.monotonic() - told < 5
    assert (ended.code, ended.message.reason) == (75, "PeersLost")


@pytest.mark.parametrize("processes", [0, 1])
def test_numpy_models_never_load_torch(exchange: Any, numpy_script: str, processes: int) -> None:
    exchange.publish_initial(numpy_script)
    ended = exchange.run(numpy_script, exchange.train(), processes=processes)
    assert ended.code == 0, ended.log
