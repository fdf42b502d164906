"""The terms in the step of a model that two processes share: DDP, and FSDP2's DTensors."""

from typing import Any

import pytest

pytestmark = pytest.mark.processes

SCRIPT = """\
import os, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel as DDP
from fedtrain.checkpoint import TensorProximal
from fedtrain.stephook import TensorCorrection

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
x = torch.linspace(-1, 1, 24).reshape(8, 3)
y = x.sum(1, keepdim=True) ** 2


def a_model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def trained(strategy, wrap, part):
    model = a_model()
    wrapped = wrap(model)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    proximal = TensorProximal(parameters, 0.5 if strategy == "FedProx" else 0)
    drift = []
    for parameter in parameters if strategy == "SCAFFOLD" else []:
        torch.manual_seed(parameter.numel())
        term = torch.randn(parameter.shape) / 10
        if isinstance(parameter, DTensor):
            term = distribute_tensor(term, parameter.device_mesh, parameter.placements)
        drift.append((parameter, term))
    correction = TensorCorrection(strategy, parameters, proximal, drift)
    correction.attach(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.mse_loss(wrapped(x[part]), y[part]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    correction.detach()
    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in parameters]
    return torch.cat([p.detach().reshape(-1) for p in whole])


def sharded(model):
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (world,))
half = slice(4 * rank, 4 * rank + 4)
for strategy in ("FedProx", "SCAFFOLD"):
    plain = trained(strategy, lambda model: model, slice(0, 8))
    assert (plain - trained("FedAvg", lambda model: model, slice(0, 8))).abs().max() > 1e-3
    for wrap in (DDP, sharded):
        torch.testing.assert_close(trained(strategy, wrap, half), plain, rtol=1e-5, atol=1e-6)
dist.barrier()
dist.destroy_process_group()
print("agreed", flush=True)
os._exit(0)
"""


def test_two_processes_step_as_one_does(exchange: Any, tmp_path: Any) -> None:
    """With clipping; each rank adds the terms of its own shard."""
    script = tmp_path / "sharded.py"
    script.write_text(SCRIPT)
    running = exchange.start(script, exchange.init(), processes=2)
    running.process.wait(timeout=240)
    assert running.log().count("agreed") == 2, running.log()
