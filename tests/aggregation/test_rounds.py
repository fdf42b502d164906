"""Rounds of every strategy: against naive twins, from round to round, whoever is left out."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fedtrain.contract import MODEL_FILE, SERVER_FILE, ModelRef, parted_digest
from fedtrain.errors import TryAgain
from fedtrain.strategies import STRATEGIES

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
NAMES = [f"p{k}" for k in range(8)]
WITH_STATE = (
    "SCAFFOLD",
    "FedAvgM",
    "FedAdam",
    "FedYogi",
    "FedAdagrad",
    "DiLoCo",
    "CenteredClipping",
)


def a_round(a_federation: Make, a_delta: Make) -> Any:
    federation = a_federation(**{"bn.running_var": "buffer"})
    for k, name in enumerate(NAMES):
        federation.with_update(name, a_delta(k), samples=k + 1)
    return federation


def flat(update: Mapping[str, np.ndarray]) -> np.ndarray:
    """The parameters of an update, in fp64."""
    names = ("conv.weight", "fc.bias", "fc.weight", "nothing")
    return np.concatenate([update[name].reshape(-1).astype(np.float64) for name in names])


def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("digest", "tensorfile", "aggregation.units", "aggregation.hashing"):
        monkeypatch.setattr(f"fedtrain.{module}.TILE_BYTES", 512)
    monkeypatch.setattr("fedtrain.aggregation.units.ROW", 16)
    monkeypatch.setattr("fedtrain.aggregation.round.PIECE", 64)


@pytest.mark.parametrize("precision", ["Float32", "Float64", "Exact"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_neither_threads_nor_a_refused_participant_change_a_byte_of_any_strategy(
    a_federation: Make,
    a_delta: Make,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    precision: str,
) -> None:
    small_tiles(monkeypatch)
    federation = a_round(a_federation, a_delta)
    said = {"strategy": {"name": strategy}, "precision": precision, "norm_bound": 0.2}
    if STRATEGIES[strategy].counts_steps:  # which go with neither, see below
        said = {**said, "norm_bound": None, "precision": precision.replace("Exact", "Float64")}
    federation.aggregate(threads=1, **said)
    hostile = a_delta(99)
    hostile["fc.weight"][-1, -1] = np.nan
    federation.with_update("a-hostile-one", hostile, samples=3)
    message = federation.aggregate(threads=3, output="global/1/2", **said)
    assert federation.verdict_on("a-hostile-one", message) == "NotFinite"
    first, second = (federation.root / f"global/1/{n}" for n in (1, 2))
    names = [MODEL_FILE] + [SERVER_FILE] * (strategy in WITH_STATE)
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert sorted(path.name for path in first.iterdir()) == sorted(
        [*names, "manifest.json", "schema.json"]
    )
    assert federation.manifest(1).accepted == federation.manifest(2).accepted


@pytest.mark.parametrize("strategy", ["Krum", "GeometricMedian", "CenteredClipping"])
def test_an_update_whose_bytes_are_not_its_digest_s_is_out_before_anything_is_weighed(
    a_federation: Make, a_delta: Make, strategy: str
) -> None:
    federation = a_round(a_federation, a_delta)
    said = {"strategy": {"name": strategy}}
    federation.aggregate(**said)
    federation.with_update("b", a_delta(3), digest="sha256:" + "0" * 64)
    message = federation.aggregate(output="global/1/2", **said)
    assert federation.verdict_on("b", message) == "DigestMismatch"
    assert federation.manifest(2).digest == federation.manifest(1).digest


def test_fewer_than_the_rule_is_defined_for_end_in_verdicts(
    a_federation: Make, a_delta: Make
) -> None:
    federation = a_federation()
    for k, name in enumerate("abcd"):
        federation.with_update(name, a_delta(k))
    ended = federation.run(strategy={"name": "Krum", "byzantine": 1})
    assert (ended.code, ended.message.reason) == (66, "TooFewAccepted")
    assert ended.message.message == "4 updates were accepted, 5 are needed by Krum"
    assert ended.message.result["verdicts"] == "...."


def test_a_norm_bound_scales_down_whoever_is_beyond_it(a_federation: Make, a_delta: Make) -> None:
    federation = a_round(a_federation, a_delta)
    norms = np.array([np.linalg.norm(flat(a_delta(k))) for k in range(8)])
    bound = float(np.median(norms))
    federation.aggregate(norm_bound=bound)
    weights = np.arange(1, 9) / 36
    scales = np.minimum(1, bound / norms)
    naive = sum((weights * scales)[k] * flat(a_delta(k)) for k in range(8))
    moved = flat(federation.result()) - flat(federation.model)
    assert np.abs(moved - naive).max() < 1e-6 * np.abs(flat(federation.model)).max()
    assert [entry.norm for entry in federation.manifest().accepted] == pytest.approx(norms, 1e-5)


@pytest.mark.parametrize("strategy", ["FedAvg", "Median", "FedAdam"])
def test_each_update_s_cosine_is_the_one_to_what_the_round_combined(
    a_federation: Make, a_delta: Make, strategy: str
) -> None:
    federation = a_round(a_federation, a_delta)
    message = federation.aggregate(threads=2, strategy={"name": strategy})
    deltas = np.stack([flat(a_delta(k)) for k in range(8)])
    combined = np.median(deltas, axis=0) if strategy == "Median" else np.arange(1, 9) @ deltas
    naive = deltas @ combined / np.linalg.norm(deltas, axis=1) / np.linalg.norm(combined)
    accepted = federation.manifest().accepted
    assert [entry.cosine for entry in accepted] == pytest.approx(naive, abs=2e-5)
    assert message.result["cosines"] == pytest.approx(naive, rel=6e-3)
    assert message.result["norms"] == pytest.approx(np.linalg.norm(deltas, axis=1), rel=6e-3)
    assert message.result["spread"]["cosines"][1] == pytest.approx(np.median(naive), rel=6e-3)


def test_a_large_update_s_cosine_is_that_of_its_samples(
    a_federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedtrain.aggregation.fold.SAMPLE", 16)
    model = {"w": np.zeros(5000, np.float32)}
    one, other = ({"w": np.full(5000, v, np.float32)} for v in (1, 1))
    other["w"][:16], other["w"][16:] = 3, -9
    federation = a_federation(model).with_update("a", one).with_update("b", other)
    federation.aggregate()
    assert [entry.cosine for entry in federation.manifest().accepted] == [1, 1]


def test_the_message_tells_how_much_room_the_exchange_has(
    a_federation: Make, a_delta: Make
) -> None:
    federation = a_round(a_federation, a_delta)
    result, volume = federation.aggregate().result, os.statvfs(federation.root)
    assert result["exchangeSize"] == volume.f_blocks * volume.f_frsize
    assert 0 < result["exchangeFree"] <= result["exchangeSize"]


def test_krum_s_choice_is_the_one_nearest_to_the_others(a_federation: Make, a_delta: Make) -> None:
    federation = a_round(a_federation, a_delta)
    federation.aggregate(strategy={"name": "Krum", "byzantine": 1})
    deltas = np.stack([flat(a_delta(k)) for k in range(8)])
    distances = np.sort(((deltas[:, None] - deltas) ** 2).sum(-1), axis=1)
    chosen = int(distances[:, 1 : 1 + 8 - 1 - 2].sum(1).argmin())
    result = federation.result()
    assert np.array_equal(
        result["fc.weight"], federation.model["fc.weight"] + a_delta(chosen)["fc.weight"]
    )


def next_round(federation: Any, a_delta: Make, n: int = 1, **said: Any) -> Any:
    """The same federation in round 2, upon aggregation `n` of round 1."""
    manifest = federation.manifest(n)
    for k, name in enumerate(NAMES):
        base = {"base": manifest.digest, "round": 2, **said}
        folder = federation.folder_of(name)
        candidates = list(federation.candidates)
        folder.rename(folder.with_name("kept"))
        federation.with_update(name, a_delta(100 + k), samples=k + 1, **base)
        there = federation.folder_of(name, round_number=2)
        there.parent.mkdir(exist_ok=True)
        folder.rename(there)
        folder.with_name("kept").rename(folder)
        federation.candidates[:] = candidates
    model = ModelRef(path=f"global/1/{n}", digest=manifest.digest)
    return dataclasses.replace(federation.task(), round=2, model=model, output="global/2/1")


@pytest.mark.parametrize("threads", [1, 3])
def test_momentum_goes_on_where_the_last_round_left_it(
    a_federation: Make, a_delta: Make, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch)
    federation = a_round(a_federation, a_delta)
    strategy = {"name": "FedAvgM", "learningRate": 1.0, "momentum": 0.9}
    federation.aggregate(threads, strategy=strategy)
    task = next_round(federation, a_delta)
    from fedtrain.aggregation import engine

    message = engine.aggregate(dataclasses.replace(task, strategy=strategy), federation.root, 2)
    weights = np.arange(1, 9) / 36
    first, second = (
        sum(w * flat(a_delta(seed + k)) for k, w in enumerate(weights)) for seed in (0, 100)
    )
    naive = flat(federation.model) + first + (0.9 * first + second)
    assert np.abs(flat(federation.result(2, 1)) - naive).max() < 1e-6
    assert parted_digest(message.result["digest"])[1] is not None


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("norm_bound", [None, 1e-7])
def test_an_exact_sum_has_room_for_a_center_larger_than_every_delta(
    a_federation: Make,
    a_delta: Make,
    monkeypatch: pytest.MonkeyPatch,
    norm_bound: float | None,
    threads: int,
) -> None:
    from fedtrain.aggregation import engine

    small_tiles(monkeypatch)

    def tiny(seed: int) -> dict[str, np.ndarray]:
        return {
            name: (array * np.float32(1e-8)).astype(array.dtype)
            for name, array in a_delta(seed).items()
        }

    moved = []
    for n, precision in enumerate(("Float64", "Exact"), start=1):
        federation = a_round(a_federation, a_delta)
        far = {"strategy": {"name": "CenteredClipping", "radius": 100.0}, "precision": precision}
        federation.aggregate(threads, **far, output=f"global/1/{n}")
        task = dataclasses.replace(
            next_round(federation, tiny, n),
            strategy={"name": "CenteredClipping", "radius": 1e-3},
            precision=precision,
            norm_bound=norm_bound,
        )
        engine.aggregate(task, federation.root, threads)
        moved.append(flat(federation.result(2, 1)))
    assert np.abs(moved[1] - moved[0]).max() < 1e-6


def test_a_state_that_is_not_what_its_digest_says_publishes_nothing(
    a_federation: Make, a_delta: Make
) -> None:
    from fedtrain.aggregation import engine

    federation = a_round(a_federation, a_delta)
    strategy = {"name": "CenteredClipping"}
    federation.aggregate(strategy=strategy)
    task = dataclasses.replace(next_round(federation, a_delta), strategy=strategy)
    path = federation.root / "global/1/1" / SERVER_FILE
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TryAgain) as failed:
        engine.aggregate(task, federation.root, 1)
    assert failed.value.reason == "BaseCorrupt"
    path.unlink()
    with pytest.raises(TryAgain) as failed:
        engine.aggregate(task, federation.root, 1)
    assert failed.value.reason == "BaseUnreadable"
    assert not (federation.root / "global/2/1").exists()


def test_the_manifest_says_of_everybody_which_update_was_accepted_last(
    a_federation: Make, a_delta: Make
) -> None:
    from fedtrain.aggregation import engine

    federation = a_round(a_federation, a_delta)
    federation.aggregate()
    assert federation.manifest().last_accepted == dict.fromkeys(NAMES, (1, 1))
    task = next_round(federation, a_delta)
    some = tuple(candidate for candidate in task.candidates if candidate[0] in ("p2", "p5"))
    engine.aggregate(dataclasses.replace(task, candidates=some), federation.root, 1)
    document = json.loads((federation.root / "global/2/1/manifest.json").read_text())
    expected = {name: [2 if name in ("p2", "p5") else 1, 1] for name in NAMES}
    assert document["last_accepted"] == expected
    assert document["strategy"] == {"name": "FedAvg"}
