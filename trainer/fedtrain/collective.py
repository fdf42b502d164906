"""What the ranks of one participant tell each other, in a gloo group of the SDK's own.

Loads torch only where there is more than one rank, or where a torch script was started by
torchrun. Waiting between rounds never happens in here.
"""

import atexit
import datetime
import os
import sys
from dataclasses import dataclass
from typing import Any, Protocol

TIMEOUT = datetime.timedelta(hours=1)
"""How long the ranks wait while rank 0 publishes; a peer that *dies* is noticed at once."""

_failed = False


class Ranks(Protocol):
    """Two verbs, because the SDK says two kinds of things: "here is mine" and "rank 0 says"."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    def gather(self, mine: Any) -> list[Any]:
        """What every rank said, in rank order, on every rank."""

    def tell(self, value: Any) -> Any:
        """What rank 0 said, on every rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """One process: it hears itself."""

    rank: int = 0
    world: int = 1

    def gather(self, mine: Any) -> list[Any]:
        return [mine]

    def tell(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Gloo:
    """The ranks of one torchrun, over CPU memory, whatever backend the script trains with."""

    rank: int
    world: int
    group: Any

    def gather(self, mine: Any) -> list[Any]:
        import torch.distributed as dist

        everybody: list[Any] = [None] * self.world
        dist.all_gather_object(everybody, mine, group=self.group)
        return everybody

    def tell(self, value: Any) -> Any:
        import torch.distributed as dist

        told = [value]
        dist.broadcast_object_list(told, src=0, group=self.group)
        return told[0]


def join(*, torch_model: bool) -> Ranks:
    """The ranks this process belongs to; collective.

    Under torchrun, and unless the script did so before, this also initialises torch.distributed
    (NCCL for CUDA tensors, gloo for the others), so that DDP and FSDP work without boilerplate; a
    script that wants another backend calls `init_process_group` before `rounds(...)`.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    by_torchrun = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    wanted = by_torchrun and (world > 1 or torch_model)
    if not wanted and "torch.distributed" not in sys.modules:
        return Alone()
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not (wanted or dist.is_initialized()):
        return Alone()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    if dist.get_world_size() == 1:
        return Alone()
    group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    return Gloo(rank=dist.get_rank(), world=dist.get_world_size(), group=group)


def rank_of_this_process() -> int:
    """The rank that torchrun gave, known before any group exists."""
    return int(os.environ.get("RANK", "0"))


def do_not_wait_for_peers() -> None:
    """After a failure: NCCL's orderly end would wait for peers that are gone."""
    global _failed
    _failed = True


def _leave() -> None:
    import torch.distributed as dist

    if not _failed and dist.is_initialized():
        dist.destroy_process_group()
