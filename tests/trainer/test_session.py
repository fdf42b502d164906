"""`rounds`, in this process: what each role does with a model of numpy arrays or torch tensors."""

import errno
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain import publication, rounds, store, tensorfile
from fedtrain.contract import ROOT_ENV, TASK_ENV, ModelRef, ParticipantTask, encode_task
from fedtrain.errors import ContractError, DataError, ExchangeError, FedtrainError, TryAgain
from fedtrain.home import Home
from fedtrain.kept import Kept
from fedtrain.models import weights_of
from fedtrain.session import Session
from fedtrain.store import Submission
from fedtrain.tensorfile import TensorFile, TensorWriter, digest_file, plan
from fedtrain.told import agree, checked_metrics
from tests.trainer.threads import Threads

pytestmark = pytest.mark.processes


@pytest.fixture
def perform(exchange: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`perform(task)` makes this process the one that the task is for."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv(ROOT_ENV, str(exchange.root))

    def begin(task: ParticipantTask) -> None:
        monkeypatch.setenv(TASK_ENV, encode_task(task))

    return begin


@pytest.fixture
def begun(exchange: Any, perform: Any) -> Any:
    """`begun(model)`: the federation has this model as its round 0."""

    def initialise(model: Any) -> ModelRef:
        perform(exchange.init())
        assert list(rounds(model)) == []
        manifest = json.loads((exchange.root / "global/0/1/manifest.json").read_text())
        ref = ModelRef(path="global/0/1", digest=manifest["digest"])
        exchange.model = ref
        return ref

    return initialise


def read(folder: Path, name: str = "update.safetensors") -> dict[str, Any]:
    with TensorFile.open(folder / name) as file:
        return {tensor: file.read(tensor).tolist() for tensor in file.tensors}


def train(model: Any, change: Callable[[], object] = lambda: None) -> None:
    """The shortest script: one change to the model, one submit."""
    for rnd in rounds(model):
        change()
        rnd.submit(samples=1)


def arrays(value: float = 1.0) -> dict[str, Any]:
    return {"w": np.full(3, value, np.float32), "n": np.array([2])}


def test_the_init_role_publishes_the_untrained_model_and_never_enters_the_body(
    exchange: Any, begun: Any
) -> None:
    ref = begun(arrays())
    folder = exchange.root / "global/0/1"
    assert read(folder, "model.safetensors") == {"w": [1, 1, 1], "n": [2]}
    with TensorFile.open(folder / "model.safetensors") as file:
        assert digest_file(file) == ref.digest
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["training"], manifest["base"], manifest["n"]) == ("0123-4567", None, 1)
    kinds = {
        t["name"]: t["kind"] for t in json.loads((folder / "schema.json").read_text())["tensors"]
    }
    assert kinds == {"w": "parameter", "n": "integer"}


def test_an_update_is_the_delta_of_floats_and_the_value_of_integers(
    exchange: Any, begun: Any, perform: Any
) -> None:
    base = begun(arrays(1.0))
    perform(exchange.train(parameters={"lr": 0.5}))
    model = arrays(99.0)
    for rnd in rounds(model):
        assert model["w"].tolist() == [1, 1, 1]  # the global model, not what the script built
        assert (rnd.number, rnd.participant, rnd.parameters.get("lr")) == (1, "north", 0.5)
        model["w"] -= rnd.parameters["lr"]
        model["n"] += 5
        rnd.submit(samples=10, metrics={"loss": np.float32(0.25)}, steps=4)
    folder = exchange.root / "updates/north/1/1"
    assert read(folder) == {"w": [-0.5, -0.5, -0.5], "n": [7]}
    receipt = exchange.receipt(exchange.train())
    assert (receipt.base, receipt.samples, receipt.steps) == (base.digest, 10, 4)
    assert receipt.metrics == {"loss": 0.25}
    assert receipt.size == (folder / "update.safetensors").stat().st_size


def test_parameters_are_read_only(exchange: Any, begun: Any, perform: Any) -> None:
    begun(arrays())
    perform(exchange.train(parameters={"lr": 0.5}))
    with pytest.raises(TypeError):
        next(iter(rounds(arrays()))).parameters["lr"] = 1  # type: ignore[index]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)
        self.last.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.norm(self.first(x)))


def test_a_tied_torch_model_with_buffers_goes_there_and_back(
    exchange: Any, begun: Any, perform: Any
) -> None:
    begun(Tied())
    base = read(exchange.root / "global/0/1", "model.safetensors")
    perform(exchange.train())
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.state[model.first.bias]["momentum_buffer"] = torch.ones(3)
    for rnd in rounds(model, optimizer=optimizer):
        assert not optimizer.state  # a resident process begins a round as a fresh one does
        assert model.last.weight is model.first.weight
        assert model.first.weight.reshape(-1).tolist() == base["first.weight"]
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        rnd.submit(samples=4)
    update = read(exchange.root / "updates/north/1/1")
    assert "last.weight" not in update
    assert update["norm.num_batches_tracked"] == [1]
    local = model.state_dict()
    for name in ("first.weight", "norm.weight", "norm.running_mean"):
        assert update[name] == (local[name].reshape(-1) - torch.tensor(base[name])).tolist()


def test_a_round_is_the_same_whenever_it_is_run(exchange: Any, begun: Any, perform: Any) -> None:
    begun({"w": np.zeros(4, np.float32)})
    digests = []
    for attempt in (1, 2):
        np.random.seed(attempt)
        torch.manual_seed(attempt)
        perform(exchange.train(attempt=attempt))
        model = {"w": np.zeros(4, np.float32)}
        for rnd in rounds(model):
            model["w"] += np.random.rand(4).astype(np.float32) + float(torch.rand(()))
            rnd.submit(samples=1)
        digests.append(exchange.receipt(exchange.train(attempt=attempt)).digest)
    assert digests[0] == digests[1]


def test_an_attempt_that_has_its_receipt_is_not_trained_again(
    exchange: Any, begun: Any, perform: Any
) -> None:
    begun(arrays())
    perform(exchange.train())
    train(arrays())
    assert list(rounds(arrays())) == []


def test_an_evaluation_that_is_being_published_can_be_told_from_a_dead_update(
    exchange: Any, begun: Any, perform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(arrays())
    sources = []
    rename = publication.rename_without_replacing

    def remembering(source: Path, target: Path) -> None:
        sources.append(source.name)
        rename(source, target)

    monkeypatch.setattr(publication, "rename_without_replacing", remembering)
    perform(exchange.evaluate())
    assert list(rounds(arrays(), evaluate=lambda _: {"loss": 1.0})) == []
    assert [name.startswith(".tmp-evaluation-") for name in sources] == [True]


def test_a_receipt_that_cannot_be_read_is_charged_to_nobody(
    exchange: Any, begun: Any, perform: Any
) -> None:
    begun(arrays())
    task = exchange.train()
    (exchange.root / task.output / "receipt.json").mkdir(parents=True)
    perform(task)
    with pytest.raises(ExchangeError) as failed:
        next(iter(rounds(arrays())))
    assert failed.value.reason == "ExchangeUnreadable"


def test_values_that_are_not_finite_are_refused_by_name_and_nothing_is_published(
    exchange: Any, begun: Any, perform: Any
) -> None:
    begun(arrays())
    perform(exchange.train())
    model = arrays()
    with pytest.raises(DataError, match="tensor 'w' holds NaN") as refused:
        train(model, lambda: model["w"].fill(np.nan))
    assert refused.value.reason == "NotFinite"
    assert list((exchange.root / "updates/north/1").iterdir()) == []


def test_a_round_without_a_submit_is_an_error(exchange: Any, begun: Any, perform: Any) -> None:
    begun(arrays())
    perform(exchange.train())
    with pytest.raises(ContractError, match=r"without rnd\.submit"):
        list(rounds(arrays()))


def test_a_second_submit_is_an_error(exchange: Any, begun: Any, perform: Any) -> None:
    begun(arrays())
    perform(exchange.train())
    for rnd in rounds(arrays()):
        rnd.submit(samples=1)
        with pytest.raises(ContractError, match="called twice"):
            rnd.submit(samples=1)


def test_a_global_model_with_another_digest_is_tried_again(
    exchange: Any, begun: Any, perform: Any
) -> None:
    ref = begun(arrays())
    perform(exchange.train(model=replace(ref, digest="sha256:" + "0" * 64)))
    with pytest.raises(TryAgain, match=ref.digest) as refused:
        next(iter(rounds(arrays())))
    assert refused.value.reason == "BaseDigestMismatch"


def test_a_global_model_that_changes_while_training_is_noticed(
    exchange: Any, begun: Any, perform: Any
) -> None:
    begun(arrays())
    perform(exchange.train())

    def replace_the_file() -> None:
        path = exchange.root / "global/0/1/model.safetensors"
        path.unlink()
        with TensorWriter(path, plan([("w", "F32", (3,)), ("n", "I64", (1,))])) as file:
            file.write("w", 0, np.zeros(3, np.float32))
            file.write("n", 0, np.array([2]))

    with pytest.raises(TryAgain) as refused:
        train(arrays(), replace_the_file)
    assert refused.value.reason == "BaseDigestMismatch"


@pytest.mark.parametrize("file", ["model.safetensors", "schema.json"])
def test_a_global_model_that_is_not_there_yet_is_tried_again(
    exchange: Any, begun: Any, perform: Any, file: str
) -> None:
    begun(arrays())
    (exchange.root / "global/0/1" / file).unlink()
    perform(exchange.train())
    with pytest.raises(TryAgain) as refused:
        next(iter(rounds(arrays())))
    assert refused.value.reason == "BaseUnreadable"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"w": np.zeros(3, np.float32)}, "the global model has 'n', the script's has not"),
        (arrays() | {"v": np.zeros(1)}, "the script's model has 'v', the global model has not"),
        (arrays() | {"w": np.zeros(4)}, "'w' is [3] in the global model, [4] in the script's"),
        (arrays() | {"n": np.zeros(1)}, "'n' is I64 in the global model, F32 in the script's"),
    ],
)
def test_a_model_that_is_not_the_federation_s_is_fatal(
    exchange: Any, begun: Any, perform: Any, model: Any, sentence: str
) -> None:
    begun(arrays())
    perform(exchange.train())
    with pytest.raises(ContractError) as refused:
        next(iter(rounds(model)))
    assert refused.value.reason == "SchemaMismatch"
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "ExchangeFull"), (errno.EROFS, "ExchangeNotWritable")]
)
def test_an_exchange_that_cannot_be_written_is_nobody_s_fault(
    exchange: Any,
    begun: Any,
    perform: Any,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    reason: str,
) -> None:
    begun(arrays())
    perform(exchange.train())

    def refuse(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(tensorfile, "write_fully", refuse)
    with pytest.raises(ExchangeError) as refused:
        train(arrays())
    assert refused.value.reason == reason


def test_an_evaluation_publishes_metrics_and_the_samples_behind_them(
    exchange: Any, begun: Any, perform: Any
) -> None:
    base = begun(arrays(2.0))
    perform(exchange.evaluate())
    assert list(rounds(arrays(), evaluate=lambda m: {"sum": m["w"].sum(), "samples": 3})) == []
    receipt = exchange.receipt(exchange.evaluate())
    assert (receipt.metrics, receipt.samples) == ({"sum": 6.0}, 3)
    assert (receipt.base, receipt.digest) == (base.digest, None)


def test_an_evaluation_without_a_function_to_do_it_is_fatal(
    exchange: Any, begun: Any, perform: Any
) -> None:
    begun(arrays())
    perform(exchange.evaluate())
    with pytest.raises(ContractError, match="pass evaluate="):
        list(rounds(arrays()))


def test_outside_a_federation_one_plain_round_is_trained_and_evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(TASK_ENV, raising=False)
    model = arrays()
    for rnd in rounds(model, evaluate=lambda m: {"accuracy": m["w"].sum()}):
        assert (rnd.number, dict(rnd.parameters), rnd.deadline) == (1, {}, None)
        model["w"] += 1
        rnd.submit(samples=5, metrics={"loss": 0.5})
    said = capsys.readouterr().err
    assert "trained on 5 samples loss=0.5" in said
    assert "evaluated accuracy=6" in said


def test_metrics_become_floats_and_those_that_are_not_finite_are_left_out_aloud(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = {"a": torch.tensor(2.0), "b": np.int64(3), "c": float("nan"), "d": True}
    assert checked_metrics(told) == {"a": 2.0, "b": 3.0, "d": 1.0}
    assert "metrics['c'] is nan and was left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "metrics",
    [{"top-1": 1.0}, {"": 1.0}, {"a": "high"}, {"a": [1, 2]}, {f"m{i}": 1.0 for i in range(21)}],
)
def test_a_metric_that_cannot_become_a_series_is_refused(metrics: Any) -> None:
    with pytest.raises(ContractError, match="metrics"):
        checked_metrics(metrics)


def test_ranks_that_disagree_are_told_both_numbers() -> None:
    def says(samples: int) -> Submission:
        return Submission(samples=samples, metrics={})

    assert agree([says(3), says(3)], rank=1).samples == 3
    with pytest.raises(ContractError, match="rank 0 says 3, rank 2 says 4"):
        agree([says(3), says(3), says(4)], rank=0)


def test_every_rank_raises_its_own_error_or_else_the_first() -> None:
    fine = Submission(samples=1, metrics={})
    errors = [ContractError("A", "a"), ContractError("B", "b")]
    told = [fine, errors[0], errors[1]]
    for rank, expected in enumerate((errors[0], errors[0], errors[1])):
        with pytest.raises(ContractError) as raised:
            agree(told, rank)
        assert raised.value is expected


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("forget", "NoSubmit"), ("nan", "NotFinite"), ("metric", "BadMetric"), ("fine", "")],
)
def test_all_ranks_end_with_the_same_error_and_none_waits_for_ever(
    exchange: Any, begun: Any, behaviour: str, reason: str
) -> None:
    begun(arrays())
    task, ranks, ends = exchange.train(), Threads(3), ["", "", ""]

    def live(rank: int) -> None:
        model, own = arrays(), ranks.of(rank)
        session = Session(
            store=store.Store(root=exchange.root, task=task),
            ranks=own,
            home=Home(whole=weights_of(model)),
            done=lambda task, receipt: None,
            model=model,
            kept=Kept(model, None, own),
        )
        try:
            for rnd in session.train():
                if behaviour == "forget" and rank == 1:
                    continue
                if behaviour == "nan" and rank == 0:
                    model["w"][0] = np.inf
                name = "top-1" if behaviour == "metric" and rank == 2 else "top1"
                rnd.submit(samples=1, metrics={name: 1.0})
        except FedtrainError as error:
            ends[rank] = error.reason

    threads = [threading.Thread(target=live, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert ends == [reason] * 3
    assert (exchange.root / task.output).exists() == (behaviour == "fine")


def test_a_store_names_the_reason_when_a_task_has_no_model(exchange: Any) -> None:
    empty = store.Store(root=exchange.root, task=exchange.train(model=None))
    with pytest.raises(ContractError, match="names no global model"):
        empty.publish_evaluation(Submission(samples=1, metrics={}))


TRAINS_A_COPY = """\
import numpy as np
from fedtrain import rounds

model = {"w": np.zeros(3, np.float32)}
for rnd in rounds(model):
    model = {"w": model["w"] + 1}
    rnd.submit(samples=1)
"""

REPLACES_AN_ARRAY = """\
import numpy as np
from fedtrain import rounds

model = {"w": np.zeros(3, np.float32)}
for rnd in rounds(model):
    model["w"] = np.zeros(5, np.float32)
    rnd.submit(samples=1)
"""


def test_a_script_that_trains_a_copy_of_its_model_is_told_so(exchange: Any) -> None:
    exchange.publish_initial(TRAINS_A_COPY)
    ended = exchange.run(TRAINS_A_COPY, exchange.train())
    assert ended.code == 0, ended.log
    assert "nothing in the model changed since the round began" in ended.log


def test_an_array_that_became_another_one_is_refused(exchange: Any) -> None:
    exchange.publish_initial(REPLACES_AN_ARRAY)
    ended = exchange.run(REPLACES_AN_ARRAY, exchange.train())
    assert (ended.code, ended.message.reason) == (64, "ModelUnsupported"), ended.log
    assert "'w' became float32[5]; change the arrays in place" in ended.message.message


def test_a_pipe_in_the_place_of_the_schema_does_not_hang(exchange: Any, numpy_script: str) -> None:
    exchange.publish_initial(numpy_script)
    schema = exchange.root / "global/0/1/schema.json"
    schema.unlink()
    os.mkfifo(schema)
    ended = exchange.run(numpy_script, exchange.train())
    assert (ended.code, ended.message.reason) == (75, "BaseUnreadable")
