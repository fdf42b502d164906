"""A whole aggregation: what is published, what is said, and what must make no difference."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.aggregation import round as passes
from fedtrain.aggregation.updates import Update
from fedtrain.aggregation.verdicts import Verdicts, VerdictsError
from fedtrain.contract import MESSAGE_LIMIT, MODEL_FILE, Message, ModelRef, weight_of
from fedtrain.errors import ContractError, DataError, TryAgain
from fedtrain.manifest import Accepted, Rejected
from fedtrain.schema import Schema
from fedtrain.strategies.fedavg import FedAvg

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
DIGEST = "sha256:" + "0" * 64
EPSILON = np.finfo(np.float32).eps


def three_participants(a_federation: Make, a_delta: Make, order: str = "abc") -> Any:
    federation = a_federation(**{"bn.running_var": "buffer"})
    for name in order:
        seed = ord(name)
        federation.with_update(name, a_delta(seed), samples=1 + seed % 7)
    return federation


def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many units and many pieces of a model of a few kilobytes."""
    for module in ("digest", "tensorfile", "aggregation.units", "aggregation.hashing"):
        monkeypatch.setattr(f"fedtrain.{module}.TILE_BYTES", 512)
    monkeypatch.setattr("fedtrain.aggregation.units.ROW", 16)
    monkeypatch.setattr("fedtrain.aggregation.round.PIECE", 64)


def test_parameters_and_buffers_are_the_base_plus_the_weighted_mean_and_integers_the_maximum(
    a_federation: Make, a_delta: Make, model: dict[str, np.ndarray]
) -> None:
    federation = three_participants(a_federation, a_delta)
    federation.aggregate()
    deltas = [a_delta(ord(name)) for name in "abc"]
    samples = np.array([1 + ord(name) % 7 for name in "abc"], np.float64)
    weights = samples / samples.sum()
    result = federation.result()
    assert result.keys() == model.keys()
    for name, base in model.items():
        values = np.stack([delta[name] for delta in deltas])
        if base.dtype.kind == "f":
            naive = base + np.tensordot(weights, values.astype(np.float64), 1)
            scale = np.abs(base) + np.tensordot(weights, np.abs(values), 1)
            assert np.all(np.abs(result[name] - naive) <= 1e-6 * scale), name
        else:
            assert np.array_equal(result[name], values.max(axis=0)), name


def test_the_maximum_of_integers_is_over_the_accepted_and_not_over_the_base(
    a_federation: Make,
) -> None:
    model = {"w": np.zeros(1, np.float32), "steps": np.array(50)}
    federation = a_federation(model)
    federation.with_update("a", {**model, "steps": np.array(7)})
    federation.with_update("b", {**model, "steps": np.array(11)})
    federation.aggregate()
    assert federation.result()["steps"] == 11


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_number_of_threads_changes_no_byte(
    a_federation: Make, a_delta: Make, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    small_tiles(monkeypatch)
    federation = three_participants(a_federation, a_delta)
    federation.aggregate(threads=1)
    reference = federation.published_bytes()
    again = three_participants(a_federation, a_delta)
    again.aggregate(threads=threads)
    assert again.published_bytes() == reference


def test_the_order_in_which_updates_arrive_changes_no_byte(
    a_federation: Make, a_delta: Make
) -> None:
    published = set()
    for order in ("abc", "cab", "bca"):
        federation = three_participants(a_federation, a_delta, order)
        federation.aggregate()
        federation.aggregate(
            output="global/1/2", candidates=tuple(reversed(federation.task().candidates))
        )
        published.add(federation.published_bytes())
        first, second = (
            (federation.root / f"global/1/{n}" / MODEL_FILE).read_bytes() for n in (1, 2)
        )
        assert first == second
    assert len(published) == 1


def test_a_tile_size_of_our_own_reading_changes_no_byte(
    a_federation: Make, a_delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = three_participants(a_federation, a_delta)
    federation.aggregate()
    monkeypatch.setattr("fedtrain.tensorfile.PIECE_BYTES", 64)
    monkeypatch.setattr("fedtrain.aggregation.round.PIECE", 16)
    monkeypatch.setattr("fedtrain.aggregation.units.ROW", 16)
    again = three_participants(a_federation, a_delta)
    again.aggregate()
    assert again.published_bytes() == federation.published_bytes()


@settings(deadline=None, max_examples=10)
@given(count=st.integers(1, 20), seed=st.integers(0, 2**20))
def test_identical_updates_move_the_model_by_that_update(
    a_federation: Make, a_delta: Make, count: int, seed: int
) -> None:
    federation, delta = a_federation(), a_delta(seed)
    model = federation.model
    for k in range(count):
        federation.with_update(f"p{k:02}", delta, samples=1 + (seed + k) % 5)
    federation.aggregate()
    result = federation.result()
    for name, base in model.items():
        if base.dtype.kind == "f":
            slack = 4 * EPSILON * (np.abs(base) + np.abs(delta[name]))
            assert np.all(np.abs(result[name] - (base + delta[name])) <= slack)
        else:
            assert np.array_equal(result[name], delta[name])


def test_weights_are_the_capped_samples_over_their_sum(a_federation: Make, a_delta: Make) -> None:
    federation = a_federation()
    for name, samples in (("a", 10), ("b", 1000), ("c", 0)):
        federation.with_update(name, a_delta(1), samples=samples)
    message = federation.aggregate(weight_max=30)
    accepted = federation.manifest().accepted
    assert [entry.weight for entry in accepted] == [0.25, 0.75]
    assert [entry.samples for entry in accepted] == [10, 1000]
    assert federation.verdict_on("c", message) == "SamplesMissing"
    federation.aggregate(weight="Uniform", output="global/1/2")
    assert [entry.weight for entry in federation.manifest(2).accepted] == [1 / 2] * 2


def test_a_round_in_which_nobody_counted_a_sample_is_decided_again(
    a_federation: Make, a_delta: Make
) -> None:
    federation = a_federation()
    for name in "ab":
        federation.with_update(name, a_delta(1), samples=0)
    with pytest.raises(VerdictsError) as refused:
        federation.aggregate()
    message = Message(result=refused.value.result)
    assert federation.verdict_on("a", message) == "SamplesMissing"
    assert not (federation.root / "global/1").exists()


def test_too_few_accepted_updates_end_in_verdicts_and_publish_nothing(
    a_federation: Make, a_delta: Make
) -> None:
    federation = three_participants(a_federation, a_delta)
    federation.with_update("d", a_delta(4), base="sha256:another")
    ended = federation.run(minimum=4)
    assert ended.code == 66
    assert ended.message.reason == "TooFewAccepted"
    assert "3 updates were accepted, 4 are needed" in ended.message.message
    assert ended.message.result["verdicts"] == "...a"
    assert federation.verdict_on("d", ended.message) == "BaseMismatch"
    assert not (federation.root / "global/1/1").exists()


def test_a_published_aggregation_is_the_result_and_is_said_again(
    a_federation: Make, a_delta: Make
) -> None:
    federation = three_participants(a_federation, a_delta)
    federation.with_update("d", a_delta(4), base="sha256:another")
    first = federation.run(missing=("a", "d"))
    before = federation.published_bytes()
    for name in "abc":
        (federation.folder_of(name) / "update.safetensors").write_bytes(b"gone")
    second = federation.run(missing=("a", "d"))
    assert (first.code, second.code) == (0, 0)
    assert federation.published_bytes() == before
    assert second.message.message == first.message.message
    measured = {"seconds", "peakMemory", "exchangeFree"}  # others write on the same disk
    first_result, second_result = (
        {key: value for key, value in ended.message.result.items() if key not in measured}
        for ended in (first, second)
    )
    assert first_result == second_result
    assert first_result["filled"]["a"]["samples"] == 1 + ord("a") % 7
    assert "d" in first_result["details"]


def test_the_schema_is_passed_on_word_for_word(a_federation: Make, a_delta: Make) -> None:
    federation = three_participants(a_federation, a_delta)
    federation.aggregate()
    before, after = (federation.root / f"global/{r}/1/schema.json" for r in (0, 1))
    assert after.read_bytes() == before.read_bytes()
    kinds = {spec.name: spec.kind for spec in Schema.from_json(after.read_text()).tensors}
    assert kinds["bn.running_var"] == "buffer"


def test_rounds_follow_each_other_from_digest_to_digest(a_federation: Make, a_delta: Make) -> None:
    federation = three_participants(a_federation, a_delta)
    message = federation.aggregate()
    assert federation.manifest().base == federation.digest
    assert federation.manifest().digest == message.result["digest"]
    federation.aggregate(output="global/1/2")
    assert federation.manifest(2).digest == federation.manifest(1).digest


def test_a_base_that_is_not_what_its_digest_says_publishes_nothing(
    a_federation: Make, a_delta: Make
) -> None:
    federation = three_participants(a_federation, a_delta)
    path = federation.root / "global/0/1" / MODEL_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TryAgain) as failed:
        federation.aggregate()
    assert failed.value.reason == "BaseCorrupt"
    assert os.listdir(federation.root / "global/1") == []


def test_a_base_that_cannot_be_read_yet_is_tried_again(a_federation: Make, a_delta: Make) -> None:
    federation = three_participants(a_federation, a_delta)
    with pytest.raises(TryAgain, match=r"global/0/9: .* does not exist"):
        federation.aggregate(model=ModelRef(path="global/0/9", digest=federation.digest))


def test_a_model_that_would_not_be_finite_is_not_published(
    a_federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FedAvg, "step", lambda self, base, delta, slots: base + np.float32(3e38))
    model = {"w": np.full(3, 3.3e38, np.float32)}
    federation = a_federation(model).with_update("a", {"w": np.zeros(3, np.float32)})
    with pytest.raises(DataError) as failed:
        federation.aggregate()
    assert failed.value.reason == "ModelNotFinite"
    assert not (federation.root / "global/1/1").exists()


@pytest.mark.parametrize(
    ("by", "maximum", "weight"),
    [("Samples", None, 9), ("Tokens", 5, 5), ("Samples", 20, 9), ("Uniform", 5, 1)],
)
def test_the_rule_of_weights_is_the_contract_s(by: str, maximum: int | None, weight: int) -> None:
    assert weight_of(9, by, maximum) == weight


def test_a_unit_of_weight_that_nobody_knows_is_named() -> None:
    with pytest.raises(ValueError, match=r"weight\.by: 'Kilograms' is not Samples, Tokens or"):
        weight_of(1, "Kilograms", None)


@pytest.mark.parametrize("said", [{"strategy": {"name": "FedMagic"}}, {"weight": "Kilograms"}])
def test_a_task_of_another_version_breaks_the_contract(
    a_federation: Make, a_delta: Make, said: dict[str, Any]
) -> None:
    federation = three_participants(a_federation, a_delta)
    with pytest.raises(ContractError, match="is not"):
        federation.aggregate(**said)


def test_a_thousand_verdicts_fit_one_termination_message() -> None:
    names = [f"participant-with-a-long-name-{k:04}" for k in range(1000)]
    verdicts = Verdicts(
        candidates=tuple((name, 1) for name in names),
        accepted=[
            Accepted(
                participant=name,
                attempt=1,
                weight=0.002,
                samples=10,
                digest=DIGEST,
                norm=k / 7,
                cosine=k / 499,
            )
            for k, name in enumerate(names[:500])
        ],
        rejected=[
            Rejected(participant=name, attempt=1, reason=f"Reason{k % 3}", sentence="x" * 300)
            for k, name in enumerate(names[500:])
        ],
    )
    measured = {"digest": DIGEST, "bytes": 10**15, "seconds": 12345.678, "peakMemory": 10**12}
    sentence = "1000 of 1000 updates became global/123/456"
    message = Message(message=sentence, result=verdicts.result(measured, names))
    decoded = Message.decode(message.encode().decode())
    assert len(message.encode()) <= MESSAGE_LIMIT
    assert decoded == message
    assert decoded.result["verdicts"] == "." * 500 + ("abc" * 167)[:500]
    assert decoded.result["reasons"] == {"a": "Reason0", "b": "Reason1", "c": "Reason2"}
    assert decoded.result["filled"][names[0]] == {"samples": 10, "digest": DIGEST}
    assert len(decoded.result["filled"]) >= 5
    assert decoded.result["spread"] == {"norms": [0, 35.7, 71.3], "cosines": [0, 0.5, 1]}
    assert "norms" not in decoded.result


def test_norms_and_cosines_of_a_hundred_fit_beside_their_verdicts() -> None:
    one = Accepted(participant="", attempt=1, weight=0.01, samples=1, digest=DIGEST)
    accepted = [
        dataclasses.replace(one, participant=f"p{k:02}", norm=1.2345 + k, cosine=-k / 123)
        for k in range(100)
    ]
    verdicts = Verdicts(
        candidates=[(a.participant, 1) for a in accepted], accepted=accepted, rejected=[]
    )
    message = Message(message="x" * 60, result=verdicts.result({"digest": DIGEST}, []))
    decoded = Message.decode(message.encode().decode())
    assert len(message.encode()) <= MESSAGE_LIMIT
    assert decoded == message
    assert decoded.result["norms"][:3] == [1.23, 2.23, 3.23]
    assert decoded.result["cosines"][99] == -0.805


def test_the_first_of_the_refused_are_told_why(a_federation: Make, a_delta: Make) -> None:
    federation = three_participants(a_federation, a_delta)
    federation.candidates += [(f"p{k:02}", 1) for k in range(20)]
    details = federation.aggregate().result["details"]
    assert list(details) == [f"p{k:02}" for k in range(8)]
    assert details["p00"] == "updates/p00/1/1 was not published"


def test_more_updates_than_the_soft_limit_of_open_files_are_folded(
    a_federation: Make, a_delta: Make
) -> None:
    federation, delta = a_federation(), a_delta(0)
    for k in range(40):
        federation.with_update(f"p{k:02}", delta)
    ended = federation.run_with("import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (30, 4096))")
    assert ended.code == 0, ended.output
    assert len(federation.manifest().accepted) == 40


def test_the_fold_reads_no_more_than_a_piece_of_a_participant_at_once(
    a_federation: Make, a_delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    read = Update.read

    def watched(self: Any, carrier: Any, start: int, out: np.ndarray) -> None:
        nonlocal largest
        largest = max(largest, out.nbytes)
        read(self, carrier, start, out)

    model = {"w": np.ones(5000, np.float32)}
    monkeypatch.setattr(Update, "read", watched)
    monkeypatch.setattr(passes, "PIECE", 2048)
    a_federation(model).with_update("a", model).with_update("b", model).aggregate()
    assert largest == 4 * 2048
