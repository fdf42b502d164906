"""Updates that travel encoded: what is in their files, and what error feedback makes good."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain import memory, modelfiles, rounds
from fedtrain.codecs import Codec, codec, update_schema, widened
from fedtrain.contract import SCRATCH_ENV, joined_digest
from fedtrain.errors import ContractError, DataError, TryAgain
from fedtrain.schema import Schema
from fedtrain.tensorfile import TensorFile, TensorWriter, digest_file, plan

pytestmark = pytest.mark.processes

BFLOAT16 = {"name": "BFloat16"}
INT8 = {"name": "Int8", "block": 64}
TOPK = {"name": "TopK", "fraction": 0.05, "block": 1024}
DOCUMENTS = [BFLOAT16, INT8, TOPK]
every_codec = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one["name"])


def made(document: Any) -> Codec:
    one = codec(document)
    assert one is not None
    return one


def decoded(folder: Path, one: Codec, name: str, shape: tuple[int, ...]) -> Any:
    """A parameter of an update, as the aggregator would read it."""
    with TensorFile.open(folder / "update.safetensors") as file:
        parts = tuple(file.read(name + part.suffix) for part in one.parts(shape))
    return widened(one.decode(parts, int(np.prod(shape)))).reshape(shape)


def way(seed: int, count: int = 3000) -> Any:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=count) * 10.0 ** draw.uniform(-4, -1, count)).astype(np.float32)


def zeros(count: int = 3000) -> dict[str, Any]:
    return {"w": np.zeros(count, np.float32)}


@every_codec
def test_parameters_travel_encoded_and_the_rest_as_it_is(federation: Any, document: Any) -> None:
    model = nn.Sequential(nn.Linear(60, 40), nn.BatchNorm1d(40))
    federation.begin(model)
    exchange, one = federation.exchange, made(document)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = exchange.train(codec=document)
    federation.perform(task)
    for rnd in rounds(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter) * 1e-3
        model(torch.randn(8, 60))
        rnd.submit(samples=8)
    folder, after = exchange.root / task.output, model.state_dict()
    schema = Schema.from_json((exchange.root / "global/0/1/schema.json").read_text())
    with TensorFile.open(folder / "update.safetensors") as file:
        assert update_schema(schema, one).difference(file.tensors.values()) is None
        assert digest_file(file) == exchange.receipt(task).digest
        assert file.read("1.num_batches_tracked").tolist() == [1]
        means = after["1.running_mean"] - before["1.running_mean"]
        assert np.array_equal(file.read("1.running_mean"), means.numpy())
    assert exchange.receipt(task).codec == document
    for name, parameter in model.named_parameters():
        delta = (after[name] - before[name]).numpy()
        sent = one.decode(one.encode(delta.reshape(-1)), delta.size)
        found = decoded(folder, one, name, tuple(parameter.shape))
        assert np.array_equal(found.reshape(-1), widened(sent))


def test_without_a_codec_the_receipt_names_none(federation: Any) -> None:
    federation.begin()
    list(federation.take_part(1))
    assert federation.exchange.receipt(federation.exchange.train()).codec is None


def test_files_are_as_large_as_schema_and_codec_say_whatever_was_trained(federation: Any) -> None:
    federation.begin(zeros())
    for document in DOCUMENTS:
        sizes = set()
        for attempt, by in enumerate((0.0, 1.0, way(1)), start=1):
            number = 1 + DOCUMENTS.index(document)
            list(federation.take_part(number, attempt, model=zeros(), by=by, codec=document))
            task = federation.exchange.train(round=number, attempt=attempt)
            sizes.add(federation.exchange.receipt(task).size)
        assert len(sizes) == 1


@pytest.mark.parametrize("document", [INT8, {"name": "TopK", "fraction": 0.01, "block": 3000}])
def test_a_parameter_of_several_tiles_is_encoded_as_if_it_were_one(
    federation: Any, document: Any
) -> None:
    count = (1 << 22) + 7000  # a tile of 16 MiB, which blocks of 3,000 do not divide
    federation.begin(zeros(count))
    one, by = made(document), way(3, count)
    for number in (1, 2):
        list(federation.take_part(number, model=zeros(count), by=by, codec=document))
        federation.accept(number, {"north": (number, 1)})
    first = one.decode(one.encode(by), count)
    second = one.decode(one.encode(by + (by - first)), count)
    updates = federation.exchange.root / "updates/north"
    assert np.array_equal(decoded(updates / "1/1", one, "w", (count,)), first)
    assert np.array_equal(decoded(updates / "2/1", one, "w", (count,)), second)


def sums(federation: Any, document: Any, count: int) -> tuple[Any, Any]:
    """(what was sent, what was trained) over rounds that were all accepted."""
    one, sent, trained = made(document), np.zeros(3000), np.zeros(3000)
    steady = way(0)
    for number in range(1, count + 1):
        by = steady + way(number) / 4
        list(federation.take_part(number, model=zeros(), by=by, codec=document))
        trained += by
        folder = federation.exchange.root / f"updates/north/{number}/1"
        sent += decoded(folder, one, "w", (3000,))
        federation.accept(number, {"north": (number, 1)})
    return sent, trained


@pytest.mark.parametrize(
    ("document", "rounds_", "with_feedback", "without"),
    [(INT8, 20, 1e-3, 1.5e-3), (TOPK, 40, 0.12, 0.3)],
    ids=["Int8", "TopK"],
)
def test_with_error_feedback_what_was_sent_adds_up_to_what_was_trained(
    federation: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    document: Any,
    rounds_: int,
    with_feedback: float,
    without: float,
) -> None:
    federation.begin(zeros())

    def missing() -> float:
        sent, trained = sums(federation, document, rounds_)
        return float(np.linalg.norm(sent - trained) / np.linalg.norm(trained))

    kept = missing()
    state = federation.scratch / f"digits-0123-456/north/state/{rounds_}-1"
    assert json.loads((state / "state.json").read_text())["json"] == {}  # invisible in rnd.state
    for folder in ("updates", "global"):
        (federation.exchange.root / folder).rename(federation.exchange.root / f"{folder}-kept")
    federation.begin(zeros())
    monkeypatch.delenv(SCRATCH_ENV)
    monkeypatch.setattr(memory, "_said", set())
    lost = missing()
    assert kept < with_feedback
    assert lost > without
    said = capsys.readouterr().err
    assert said.count("what the codec leaves out of this update is lost") == 1


def test_what_was_left_out_is_exactly_what_comes_with_the_next_accepted_round(
    federation: Any,
) -> None:
    federation.begin(zeros())
    one = made(TOPK)

    def send(number: int, seed: int) -> Any:
        list(federation.take_part(number, model=zeros(), by=way(seed), codec=TOPK))
        folder = federation.exchange.root / f"updates/north/{number}/1"
        return decoded(folder, one, "w", (3000,))

    def encoded(values: Any) -> Any:
        return one.decode(one.encode(values), 3000)

    first = send(1, 1)
    assert np.array_equal(first, encoded(way(1)))
    left = way(1) - first
    federation.accept(1, {"north": (1, 1)})
    assert np.array_equal(send(2, 2), encoded(way(2) + left))
    federation.accept(2, {"north": (1, 1)})  # round 2 was refused
    assert np.array_equal(send(3, 3), encoded(way(3) + left))


def test_state_and_residuals_are_one_transaction(federation: Any) -> None:
    federation.begin(zeros())
    for number in (1, 2):
        for rnd in federation.take_part(number, model=zeros(), by=way(number), codec=INT8):
            assert dict(rnd.state) == ({} if number == 1 else {"seen": 1})
            rnd.state["seen"] = number
        federation.accept(number, {"north": (number, 1)})
    folder = federation.scratch / "digits-0123-456/north/state/2-1"
    names = sorted(entry.name for entry in folder.iterdir())
    assert names == ["residual.safetensors", "state.json", "state.safetensors"]


def test_bfloat16_needs_no_scratch(federation: Any) -> None:
    federation.begin(zeros())
    list(federation.take_part(1, model=zeros(), codec=BFLOAT16))
    assert not federation.scratch.exists()


@every_codec
def test_what_a_codec_rounds_to_infinity_is_refused_here_and_not_there(
    federation: Any, document: Any
) -> None:
    federation.begin(zeros())
    largest = float(np.finfo(np.float32).max)
    if document is TOPK:
        list(federation.take_part(1, model=zeros(), by=largest, codec=document))
        return
    with pytest.raises(DataError) as refused:
        list(federation.take_part(1, model=zeros(), by=largest, codec=document))
    assert refused.value.reason == "NotFinite"
    assert list((federation.exchange.root / "updates/north/1").iterdir()) == []


def test_residuals_that_were_damaged_are_not_taken_for_none(federation: Any) -> None:
    federation.begin(zeros())
    list(federation.take_part(1, model=zeros(), by=way(1), codec=INT8))
    federation.accept(1, {"north": (1, 1)})
    folder = federation.scratch / "digits-0123-456/north/state/1-1"
    (folder / "residual.safetensors").write_bytes(b"")
    with pytest.raises(TryAgain) as failed:
        list(federation.take_part(2, model=zeros(), by=way(2), codec=INT8))
    assert failed.value.reason == "StateUnreadable"


def test_a_codec_that_this_version_does_not_know_is_a_bad_task(federation: Any) -> None:
    federation.begin(zeros())
    with pytest.raises(ContractError, match="'Zip' is no codec") as refused:
        list(federation.take_part(1, model=zeros(), codec={"name": "Zip"}))
    assert refused.value.reason == "BadTask"


def test_a_sharded_global_model_with_a_server_state_is_a_base_like_any_other(
    federation: Any,
) -> None:
    first = {"a": np.arange(3, dtype=np.float32), "w": np.ones(4, np.float32)}
    federation.begin(first)
    folder = federation.exchange.root / "global/0/1"
    (folder / "model.safetensors").unlink()
    files = {}
    for number, name in enumerate(first):
        infos = plan([(name, "F32", first[name].shape)])
        files[modelfiles.shard_name(number, 2)] = infos
        with TensorWriter(folder / modelfiles.shard_name(number, 2), infos) as file:
            file.write(name, 0, first[name])
    (folder / "model.safetensors.index.json").write_text(modelfiles.index_text(files))
    model = federation.exchange.model
    joined = joined_digest(model.digest, "sha256:" + "1" * 64)
    federation.exchange.model = replace(model, digest=joined)
    local = {name: np.zeros_like(array) for name, array in first.items()}
    for _ in federation.take_part(1, model=local, by=2.0):
        assert local["a"].tolist() == [0, 1, 2]
        assert local["w"].tolist() == [3, 3, 3, 3]
    assert federation.exchange.receipt(federation.exchange.train()).base == joined
    federation.exchange.model = replace(model, digest=joined_digest("sha256:" + "0" * 64, joined))
    with pytest.raises(TryAgain) as refused:
        list(federation.take_part(1, attempt=2, model=local))
    assert refused.value.reason == "BaseDigestMismatch"
