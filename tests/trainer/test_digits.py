"""The first example: it learns, it repeats itself, and processes do not change what it learns."""

import json
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.contract import ROOT_ENV, TASK_ENV, ModelRef, ParticipantTask, encode_task
from fedtrain.tensorfile import TensorFile, TensorWriter

pytestmark = pytest.mark.processes

pytest.importorskip("sklearn")
TRAIN = Path(__file__).resolve().parents[2] / "examples" / "01-digits" / "train.py"
ONE_EPOCH = {"parameters": {"localEpochs": 1}}
PART = ["--part", "0", "--parts", "5", "--dropout", "0"]


def update_of(exchange: Any, task: ParticipantTask) -> dict[str, Any]:
    with TensorFile.open(exchange.root / task.output / "update.safetensors") as file:
        return {name: file.read(name).astype(np.float64) for name in file.tensors}


def test_two_by_two_processes_train_what_one_process_trains(exchange: Any) -> None:
    exchange.publish_initial(TRAIN, arguments=PART)
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = str(listener.getsockname()[1])
    address = {"PET_NNODES": "2", "PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": port}
    one, again, four = (exchange.train(attempt=attempt, **ONE_EPOCH) for attempt in (1, 2, 3))
    started = [
        exchange.start(TRAIN, one, arguments=PART),
        exchange.start(TRAIN, again, arguments=PART),
        *(
            exchange.start(
                TRAIN,
                four,
                arguments=PART,
                processes=2,
                env=address | {"PET_NODE_RANK": str(node)},
            )
            for node in range(2)
        ),
    ]
    ended = [running.end() for running in started]
    assert {end.code for end in ended} == {0}, "\n".join(end.log for end in ended)
    # One thread, one process: the same bits. Four processes add in another order.
    assert exchange.receipt(one).digest == exchange.receipt(again).digest
    alone, together = update_of(exchange, one), update_of(exchange, four)
    for name, delta in alone.items():
        assert np.linalg.norm(together[name] - delta) <= 1e-4 * np.linalg.norm(delta), name
    receipts = exchange.receipt(one), exchange.receipt(four)
    assert receipts[0].samples == receipts[1].samples == 159
    assert receipts[0].metrics["loss"] == pytest.approx(receipts[1].metrics["loss"], rel=1e-4)


class Federation:
    """The example's federation in this process, with a naive mean in the aggregator's place."""

    def __init__(self, exchange: Any, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
        self.exchange, self.patch, self.split = exchange, monkeypatch, split
        monkeypatch.setenv(ROOT_ENV, str(exchange.root))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        self.perform(0, exchange.init())
        manifest = json.loads((exchange.root / "global/0/1/manifest.json").read_text())
        self.model = ModelRef(path="global/0/1", digest=manifest["digest"])

    def perform(self, part: int, task: ParticipantTask) -> None:
        self.patch.setenv(TASK_ENV, encode_task(task))
        self.patch.setattr(
            sys, "argv", [str(TRAIN), "--part", str(part), "--parts", "5", "--split", self.split]
        )
        runpy.run_path(str(TRAIN))

    def round(self, number: int, parts: list[int]) -> None:
        root, mean, total = self.exchange.root, dict[str, Any](), 0
        for part in parts:
            task = self.exchange.train(f"p{part}", model=self.model, round=number)
            self.perform(part, task)
            samples = self.exchange.receipt(task).samples
            total += samples
            for name, delta in update_of(self.exchange, task).items():
                mean[name] = mean.get(name, 0) + samples * delta
        old, new = root / self.model.path, root / f"global/{number}/1"
        new.mkdir(parents=True)
        (new / "schema.json").write_text((old / "schema.json").read_text())
        with (
            TensorFile.open(old / "model.safetensors") as base,
            TensorWriter(new / "model.safetensors", tuple(base.tensors.values())) as file,
        ):
            for name in base.tensors:
                folded = base.read(name) + mean[name] / total
                file.write(name, 0, folded.astype(np.float32))
            self.model = ModelRef(path=f"global/{number}/1", digest=file.digest())

    def accuracy(self, number: int) -> float:
        task = self.exchange.evaluate(model=self.model, round=number)
        self.perform(0, task)
        return float(self.exchange.receipt(task).metrics["accuracy"])


def test_three_of_five_learn_the_digits_together(
    exchange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(exchange, monkeypatch, "iid")
    assert federation.accuracy(0) < 0.3
    for number, parts in enumerate(([2, 3, 4], [0, 1, 2], [0, 1, 3], [0, 1, 2]), start=1):
        federation.round(number, parts)
    assert federation.accuracy(4) > 0.93


def test_parts_differ_in_size_and_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TASK_ENV, raising=False)
    source = TRAIN.read_text().partition("# ---- the model")[0]
    for split, classes in (("iid", 10), ("shards", 6)):
        mine = []
        for part in range(5):
            monkeypatch.setattr(
                sys, "argv", ["train.py", "--part", str(part), "--parts", "5", "--split", split]
            )
            names: dict[str, Any] = {}
            exec(compile(source, "train.py", "exec"), names)
            mine.append(names["mine"])
            assert len(set(names["labels"].tolist())) <= classes
        assert sorted(np.concatenate(mine)) == list(range(1437))
        assert len({len(part) for part in mine}) > 1
