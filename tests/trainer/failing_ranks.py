"""Two ranks of a sharded model of which one fails, in all the ways that it can."""

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

from fedtrain import rounds, tensorfile
from fedtrain.contract import ROOT_ENV, TASK_ENV, ModelRef, ParticipantTask, Role, encode_task
from fedtrain.errors import FedtrainError

EXPECTED = {
    "fine": "",
    "rows": "NotFinite: tensor '0.weight' holds NaN",
    "columns": "NotFinite: tensor '0.weight' holds NaN",
    "full": "ExchangeFull: publishing: [Errno 28] No space left on device",
    "samples": "SamplesDisagree: ranks disagree on samples: rank 0 says 8, rank 1 says 9",
    "forgotten": "NoSubmit: ",
    "changed": "BaseDigestMismatch: ",
    "gone": "BaseDigestMismatch: ",  # and so it is for the next that loads it
}


def failures(root: Path) -> dict[str, str]:
    """One attempt after the other in these processes; what each ended with on this rank."""
    os.environ[ROOT_ENV] = str(root)
    known = {"training": "failing", "uid": "0123-4567", "participant": "north", "seed": 7}

    def perform(**fields: Any) -> None:
        os.environ[TASK_ENV] = encode_task(ParticipantTask(**known, **fields))

    perform(role=Role.INIT, round=0, attempt=1, output="global/0/1")
    assert list(rounds(_model("fine"))) == []
    digest = json.loads((root / "global/0/1/manifest.json").read_text())["digest"]
    said, write = {}, tensorfile.write_fully
    for attempt, how in enumerate(EXPECTED, start=1):
        base, output = ModelRef(path="global/0/1", digest=digest), f"updates/north/1/{attempt}"
        perform(role=Role.TRAIN, round=1, attempt=attempt, model=base, output=output)
        said[how] = ""
        try:
            _live(how, root)
        except FedtrainError as error:
            said[how] = f"{error.reason}: {error}"
        tensorfile.write_fully = write
        dist.barrier()
    return said


def _model(how: str) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    columns = (lambda parameter: Shard(parameter.ndim - 1)) if how == "columns" else None
    fully_shard(model, shard_placement_fn=columns)
    return model


def _live(how: str, root: Path) -> None:
    model, rank = _model(how), dist.get_rank()
    for rnd in rounds(model):
        if how in ("rows", "columns") and rank == 1:
            with torch.no_grad():
                model[0].weight.to_local().fill_(float("nan"))
        if how == "full" and rank == 1:
            tensorfile.write_fully = _full
        if how == "changed" and rank == 0:
            with open(root / "global/0/1/model.safetensors", "r+b") as file:
                file.seek(-4, 2)
                file.write(b"1234")
        if how != "forgotten" or rank != 1:
            rnd.submit(samples=8 + rank * (how == "samples"))


def _full(fd: int, offset: int, data: memoryview) -> None:
    raise OSError(28, "No space left on device")
