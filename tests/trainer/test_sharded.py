"""Whatever a module is wrapped in or sharded by, it is one model: the same bytes everywhere."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed import fsdp

from fedtrain.contract import ROOT_ENV, SCRATCH_ENV, TASK_ENV
from fedtrain.errors import ContractError
from fedtrain.models import weights_of
from fedtrain.tensorfile import TensorFile
from tests.trainer import failing_ranks, random_models

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]


def torchrun(processes: int, program: Path, *arguments: Any) -> None:
    """Run a program on ranks of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), str(program), *map(str, arguments)]
    paths = f"{ROOT / 'trainer'}:{ROOT}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 64 bytes, and an environment that is put back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name in (ROOT_ENV, SCRATCH_ENV, TASK_ENV):
        monkeypatch.setenv(name, "")
    random_models.small_tiles(64, monkeypatch.setattr)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks left that lived the lives of eight seeds, and failed in all ways."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(2, Path(random_models.__file__), folder, "failures", *range(8))
    return folder


def test_two_ranks_publish_and_load_what_a_plain_process_does(
    tmp_path: Path, two_ranks: Path, small: None
) -> None:
    for seed, told in json.loads((two_ranks / "told.json").read_text()).items():
        assert told == random_models.life(tmp_path / seed, int(seed)), seed


def test_four_ranks_publish_and_load_what_a_plain_process_does(tmp_path: Path, small: None) -> None:
    torchrun(4, Path(random_models.__file__), tmp_path, *range(8, 24))
    for seed, told in json.loads((tmp_path / "told.json").read_text()).items():
        assert told == random_models.life(tmp_path / f"plain-{seed}", int(seed)), seed


TRAINS = """\
import sys
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from fedtrain import rounds

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.sgd = nn.Sequential(nn.Linear(6, 33), nn.Tanh(), nn.Linear(33, 3))
        self.adamw = nn.Sequential(nn.Linear(6, 33, False), nn.Tanh(), nn.Linear(33, 3, False))
    def forward(self, x, y):
        return sum(nn.functional.mse_loss(part(x), y) for part in (self.sgd, self.adamw))

way, rank, world = sys.argv[1], 0, 1
torch.manual_seed(0)
if way == "fsdp":
    torch.distributed.init_process_group("gloo")
    with torch.device("meta"):
        model = Net()
    for part in (model.sgd[0], model.sgd, model.adamw, model):
        fully_shard(part)
    model.to_empty(device="cpu")
    with torch.no_grad():  # leaves a root whole, that must not outlive what is loaded
        model(torch.zeros(1, 6), torch.zeros(1, 3))
else:
    model = Net()
for rnd in rounds(model):
    loss_of = model
    if way != "plain":
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if way == "ddp":
        loss_of = DistributedDataParallel(model)
    optimizers = [
        torch.optim.SGD(model.sgd.parameters(), lr=0.2, momentum=0.9),
        torch.optim.AdamW(model.adamw.parameters(), lr=0.01),
    ]
    generator = torch.Generator().manual_seed(rnd.seed)
    for step in range(10):
        x = torch.randn(32, 6, generator=generator)
        y = torch.stack([x.sum(1), x[:, 0] * x[:, 1], x.square().mean(1)], 1)
        (loss_of(x[rank::world], y[rank::world]) + rnd.proximal_term()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    rnd.submit(samples=320, steps=10)
"""


def test_one_round_of_fsdp_with_four_of_ddp_with_two_and_a_plain_one_agree(exchange: Any) -> None:
    exchange.publish_initial(TRAINS, arguments=["plain"])
    ways = {"plain": 0, "ddp": 2, "fsdp": 4}
    tasks = {way: exchange.train(attempt=n + 1, proximal=0.5) for n, way in enumerate(ways)}
    started = {
        way: exchange.start(TRAINS, tasks[way], processes=count, arguments=[way])
        for way, count in ways.items()
    }
    updates: dict[str, dict[str, Any]] = {}
    for way, running in started.items():
        ended = running.end()
        assert ended.code == 0, ended.log
        with TensorFile.open(exchange.root / tasks[way].output / "update.safetensors") as file:
            updates[way] = {name: file.read(name) for name in file.tensors}
    for name, plain in updates["plain"].items():
        within = 1e-5 if name.startswith("sgd") else 1e-4
        assert np.abs(plain).max() > 100 * within  # there is something to agree about
        for way in ("ddp", "fsdp"):
            assert np.abs(updates[way][name] - plain).max() <= within, (way, name)


def test_what_fails_on_one_rank_of_a_sharded_model_is_every_rank_s_error(two_ranks: Path) -> None:
    said = [json.loads((two_ranks / f"failures-{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    assert said[0].keys() == failing_ranks.EXPECTED.keys()
    for number, (how, begins) in enumerate(failing_ranks.EXPECTED.items(), start=1):
        assert said[0][how].startswith(begins), (how, said[0])
        output = two_ranks / f"failures/updates/north/1/{number}"
        assert output.exists() == (how == "fine")
    assert os.listdir(two_ranks / "failures/updates/north/1") == ["1"]  # no leftovers


@pytest.fixture
def one_rank() -> Iterator[None]:
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS = {
    "plain": lambda model: model,
    "compiled": torch.compile,
    "ddp": nn.parallel.DistributedDataParallel,
    "fsdp": lambda model: random_models.sharded_by_rows(model),
    "compiled fsdp": lambda model: torch.compile(random_models.sharded_by_rows(model)),
}


@pytest.mark.usefixtures("one_rank", "small")
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    wrap=st.sampled_from(sorted(WRAPPERS)),
    dtype=st.sampled_from([None, *random_models.DTYPES]),
)
def test_what_rounds_loads_is_what_was_published_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, wrap: str, dtype: torch.dtype | None
) -> None:
    def wrapped(model: nn.Module, _: Any) -> nn.Module:
        return WRAPPERS[wrap](model)

    plain, other = (tmp_path_factory.mktemp(name) for name in ("plain", "other"))
    told = random_models.life(plain, seed, dtype=dtype)
    assert random_models.life(other, seed, wrapped, dtype=dtype) == told


def test_fsdp_of_the_first_kind_is_refused_with_the_second(one_rank: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fsdp.FullyShardedDataParallel(nn.Linear(2, 2), device_id=torch.device("cpu"))
    with pytest.raises(ContractError, match=r"FSDP1.*use torch\.distributed\.fsdp\.fully_shard"):
        weights_of(model)


@pytest.mark.usefixtures("one_rank")
def test_a_sharded_module_on_the_meta_device_is_told_to_become_real() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 2)
    fsdp.fully_shard(model)
    with pytest.raises(ContractError, match="'weight' is on the meta device: materialise it"):
        weights_of(model)
    weights_of(model.to_empty(device="cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("wrap", ["plain", "ddp", "fsdp"])
def test_a_module_on_a_gpu_publishes_and_loads_what_one_on_the_cpu_does(
    tmp_path: Path, small: None, wrap: str
) -> None:
    told = random_models.life(tmp_path / "cpu", 5)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        on_gpu = lambda model, _: WRAPPERS[wrap](model.cuda())  # noqa: E731
        assert random_models.life(tmp_path / "gpu", 5, on_gpu) == told
    finally:
        dist.destroy_process_group()
