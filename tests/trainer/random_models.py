"""Random small modules, and what becomes of them in a federation, whatever they are wrapped in.

`life` is one participant's: it publishes a model, trains it twice, and tells the digests. A plain
process and any number of ranks with any sharding must tell the same. As a program (under torchrun)
it lives the lives of the seeds in its arguments, and rank 0 writes what they told:

    torchrun --nproc-per-node 4 random_models.py FOLDER [failures] SEED ...
"""

import functools
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from fedtrain import digest, globalmodel, pieces, rounds, tensorfile, weights
from fedtrain.contract import (
    ROOT_ENV,
    SCRATCH_ENV,
    TASK_ENV,
    ModelRef,
    ParticipantTask,
    Role,
    encode_task,
)
from fedtrain.tensorfile import TensorFile, digest_file

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
CODECS: tuple[Mapping[str, Any] | None, ...] = (
    None,
    {"name": "BFloat16"},
    {"name": "Int8", "block": 64},
    {"name": "TopK", "fraction": 0.2, "block": 1024},
)
WAYS = ("ddp", "fsdp", "parts", "hsdp", "columns", "mixed", "compiled", "tensor parallel")
Shard = Callable[[nn.Module, int], nn.Module]


class Odd(nn.Module):
    """Parameters and buffers of all kinds: tiny, empty, deep, frozen, whole numbers, forgotten."""

    def __init__(self, draw: random.Random, dtype: torch.dtype) -> None:
        super().__init__()
        shape = [draw.randint(1, 5) for _ in range(draw.randint(1, 4))]
        self.deep = nn.Parameter(torch.randn(shape).to(dtype))
        self.one = nn.Parameter(torch.randn(1).to(dtype), requires_grad=draw.random() < 0.5)
        self.none = nn.Parameter(torch.zeros(0, 3, dtype=dtype))
        self.wide = nn.Parameter(torch.randn(draw.randint(1, 3), draw.randint(1, 700)).to(dtype))
        self.register_buffer("mask", torch.rand(draw.randint(0, 9)) < 0.5)
        self.register_buffer("count", torch.tensor(draw.randint(-9, 9)))
        self.register_buffer("mean", torch.randn(draw.randint(1, 40), dtype=torch.float32))
        self.register_buffer("forgotten", torch.randn(2), persistent=False)


def module(seed: int, dtype: torch.dtype | None = None) -> nn.Module:
    """A random module; all of it of one dtype, or of one for each part."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for _ in range(draw.randint(1, 4)):
        a, b = draw.randint(1, 40), draw.randint(1, 40)
        part = draw.choice([
            lambda a=a, b=b: nn.Linear(a, b, bias=draw.random() < 0.5),
            lambda a=a, b=b: nn.Embedding(a, b),
            lambda a=a: nn.BatchNorm1d(a),
            lambda a=a, b=b: nn.Conv2d(a % 5 + 1, b % 7 + 1, 3).to(
                memory_format=draw.choice([torch.channels_last, torch.contiguous_format])
            ),
        ])()  # fmt: skip
        parts.append(part.to(dtype or draw.choice(DTYPES)))
    parts.append(Odd(draw, dtype or draw.choice(DTYPES)))
    model = nn.Sequential(*parts)
    if draw.random() < 0.5:
        size = draw.randint(1, 30)
        model.embed = nn.Embedding(size, 8)
        model.head = nn.Linear(8, size)
        model.head.weight = model.embed.weight
    return model


def plain(model: nn.Module, seed: int) -> nn.Module:
    return model


def life(
    root: Path, seed: int, shard: Shard = plain, dtype: torch.dtype | None = None
) -> list[str]:
    """Digests of the model that was published and of two updates, the first of them accepted."""
    draw, codec = random.Random(seed), CODECS[(seed + seed // len(WAYS)) % len(CODECS)]
    exchange, scratch = root / "exchange", root / "scratch"
    os.environ |= {ROOT_ENV: str(exchange), SCRATCH_ENV: str(scratch)}

    def perform(role: Role, number: int, output: str, **more: Any) -> None:
        fields = {"training": "laws", "uid": "0123-4567", "participant": "north", "attempt": 1}
        task = ParticipantTask(role=role, round=number, output=output, seed=seed, **fields, **more)
        os.environ[TASK_ENV] = encode_task(task)

    perform(Role.INIT, 0, "global/0/1")
    assert list(rounds(shard(module(seed, dtype), seed))) == []
    told = [json.loads((exchange / "global/0/1/manifest.json").read_text())["digest"]]
    for number in (1, 2):
        base = f"global/{number - 1}/1"
        output = f"updates/north/{number}/1"
        ref = ModelRef(path=base, digest=told[0])
        perform(Role.TRAIN, number, output, model=ref, codec=codec, proximal=0.1)
        model = shard(module(seed, dtype), seed)
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.zero_()
        before = {name: layout(tensor) for name, tensor in named(model).items()}
        for rnd in rounds(model):
            after = named(model)
            assert {name: layout(tensor) for name, tensor in after.items()} == before
            assert_loaded(after, exchange / base)
            train(model, draw.randint(0, 2**31))
            rnd.proximal_term()
            rnd.submit(samples=1)
        told.append(json.loads((exchange / output / "receipt.json").read_text())["digest"])
        with TensorFile.open(exchange / output / "update.safetensors") as file:
            assert digest_file(file) == told[-1]
        if number == 1 and rank() == 0:
            accept(exchange, base)
        meet()
    kept = scratch / "laws-0123-456/north/state/2-1/residual.safetensors"
    if kept.exists():
        with TensorFile.open(kept) as file:
            told.append(digest_file(file))
    return told


def train(model: nn.Module, seed: int) -> None:
    """Change everything, as much in every sharding; buffers differ on each rank: rank 0's count."""
    generator = torch.Generator().manual_seed(seed)
    parameters = set(model.parameters())
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor not in parameters:
                noise = (10 * noise).round() + rank()
            change = noise.to(tensor.dtype).to(tensor.device)
            if hasattr(tensor, "full_tensor"):
                mine = distributed(change, tensor.device_mesh, tensor.placements)
                tensor.to_local().add_(mine.to_local())
            elif tensor.dtype == torch.bool:
                tensor.logical_xor_(change)
            else:
                tensor.add_(change)


def assert_loaded(tensors: Mapping[str, Any], base: Path) -> None:
    """The model holds what was published, bit for bit in its own dtype."""
    aliases = {
        alias: spec["name"]
        for spec in json.loads((base / "schema.json").read_text())["tensors"]
        for alias in spec["aliases"]
    }
    with TensorFile.open(base / "model.safetensors") as file:
        for name, tensor in tensors.items():
            value = torch.from_numpy(file.read(aliases.get(name, name)))
            wanted = value.view(tensor.shape).to(tensor.dtype)
            whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            assert torch.equal(whole.cpu(), wanted), name


def named(model: nn.Module) -> dict[str, Any]:
    """By published name: the wrappers' own words are left out."""
    return {
        name.replace("_orig_mod.", "").replace("module.", ""): value.detach()
        for name, value in model.state_dict(keep_vars=True).items()
    }


def layout(tensor: Any) -> Any:
    """What loading has to keep."""
    local = tensor.to_local() if hasattr(tensor, "full_tensor") else tensor
    placements = getattr(tensor, "placements", None)
    return local.data_ptr(), tensor.dtype, tensor.device, tensor.stride(), placements


def accept(exchange: Path, base: str) -> None:
    """The same model again as the global one of round 1, with this participant accepted in it."""
    shutil.copytree(exchange / base, exchange / "global/1/1")
    path = exchange / "global/1/1/manifest.json"
    manifest = json.loads(path.read_text()) | {"round": 1, "last_accepted": {"north": (1, 1)}}
    path.write_text(json.dumps(manifest))


def small_tiles(nbytes: int, replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have tiles of the digest so small that ranks' rows end within them, as large ones' do."""
    for where in (digest, pieces, globalmodel, tensorfile):
        replace(where, "TILE_BYTES", nbytes)
    for where in (globalmodel, weights):
        replace(where, "TILE", 5)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def meet() -> None:
    if dist.is_initialized():
        dist.barrier()


def distributed(whole: torch.Tensor, mesh: Any, placements: Any) -> Any:
    """A DTensor of what every rank has, without a word between them."""
    from torch.distributed.tensor import DTensor, Replicate

    replicas = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicas.redistribute(placements=placements)


def sharded(model: nn.Module, seed: int) -> nn.Module:
    """The model in DDP, or sharded in one of the ways that there are."""
    from torch.distributed import fsdp, tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    world, (line, square) = dist.get_world_size(), meshes(dist.get_world_size())
    way = WAYS[seed % len(WAYS)]
    if way == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if way == "mixed":
        return _mixed(model, line, square, random.Random(seed))
    _contiguous(model)
    tied = getattr(model, "embed", None), getattr(model, "head", None)
    parts = [part for part in model.children() if part not in tied]
    if way == "tensor parallel":  # and FSDP over it: no rank has rows that follow each other
        for part in parts:
            if isinstance(part, nn.Linear):
                parallelize_module(part, square["shards"], ColwiseParallel())
        fsdp.fully_shard(model, mesh=square["replicas"])
        return model
    options: dict[str, Any] = {"mesh": square if way == "hsdp" else line}
    if way == "columns":
        options["shard_placement_fn"] = lambda p: tensor.Shard(
            1 if p.ndim > 1 and p.shape[1] % world == 0 else 0
        )
    for part in parts if way in ("parts", "hsdp") else ():
        fsdp.fully_shard(part, **options)
    fsdp.fully_shard(model, **options)
    return torch.compile(model) if way == "compiled" else model


@functools.cache
def meshes(world: int) -> tuple[Any, Any]:
    """All ranks in a line, and two lines of half of them."""
    from torch.distributed.device_mesh import init_device_mesh

    names = ("replicas", "shards")
    square = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=names)
    return init_device_mesh("cpu", (world,)), square


def sharded_by_rows(model: nn.Module) -> nn.Module:
    """fully_shard as it is by default."""
    from torch.distributed import fsdp

    _contiguous(model)
    fsdp.fully_shard(model)
    return model


def _contiguous(model: nn.Module) -> None:
    for parameter in model.parameters():  # FSDP takes no others
        parameter.data = parameter.data.contiguous()


def _mixed(model: nn.Module, line: Any, square: Any, draw: random.Random) -> nn.Module:
    """Each parameter with placements of its own, some of them none."""
    from torch.distributed.tensor import Replicate, Shard

    made: dict[nn.Parameter, nn.Parameter] = {}  # once for those that are tied
    for part in model.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is None:
                continue
            if parameter not in made:
                places = [Replicate(), Shard(0), Shard(parameter.ndim - 1)]
                mesh = draw.choice([line, square])
                placements = [draw.choice(places) for _ in range(mesh.ndim)]
                cut = distributed(parameter.detach().contiguous(), mesh, placements)
                made[parameter] = nn.Parameter(cut, requires_grad=parameter.requires_grad)
                if draw.random() < 0.1:
                    made[parameter] = parameter
            part._parameters[name] = made[parameter]
    return model


def main() -> None:
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    dist.init_process_group("gloo")
    if "failures" in words:
        from tests.trainer.failing_ranks import failures

        words.remove("failures")
        said = failures(folder / "failures")
        (folder / f"failures-{rank()}.json").write_text(json.dumps(said))
    small_tiles(64)
    told = {seed: life(folder / seed, int(seed), sharded) for seed in words}
    if rank() == 0:
        (folder / "told.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
