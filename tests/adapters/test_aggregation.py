"""What the aggregator makes of adapters, against what it comes to naively in fp64."""

import dataclasses
import re
import threading

import numpy as np
import pytest

from fedtrain import modeltexts
from fedtrain.aggregation import engine
from fedtrain.aggregation.shards import Shards, owned
from fedtrain.contract import MODEL_INDEX_FILE, global_folder
from fedtrain.errors import ContractError
from fedtrain.manifest import Manifest
from fedtrain.modelfiles import open_model
from fedtrain.schema import Schema, TensorSpec
from tests.adapters.conftest import LAYERS, an_adapter, best, loaded, product
from tests.aggregation.conftest import Federation, read_tensors

RANKS = {"north": 2, "south": 3}
SAMPLES = {"east": 10, "north": 20, "south": 30}


def product_of(**ranks):
    return {"aggregation": "Product", "ranks": ranks}


def trained_by(name, adapter):
    """What the participant has after training, at its rank."""
    seed = sorted(SAMPLES).index(name) + 1
    start = loaded(adapter, RANKS.get(name, 4))
    moved = an_adapter(RANKS.get(name, 4), seed, scale=0.3)
    return {key: (value + moved[key]).astype(np.float32) for key, value in start.items()}


def deltas_of(name, adapter):
    start = loaded(adapter, RANKS.get(name, 4))
    return {key: value - start[key] for key, value in trained_by(name, adapter).items()}


@pytest.fixture
def adapter():
    return an_adapter(4, seed=0)


@pytest.fixture
def a_round(adapter, tmp_path):
    """Three participants, two of them of lower ranks than the global adapter's 4."""
    made = Federation(tmp_path, adapter)
    for name, samples in SAMPLES.items():
        made.with_update(name, deltas_of(name, adapter), samples)
    return made


def exact(adapter, layer, names=SAMPLES):
    total = sum(SAMPLES[name] for name in names)
    return sum(SAMPLES[n] / total * product(trained_by(n, adapter), layer) for n in names)


def off(found, adapter, names=SAMPLES):
    """The residual, naively."""
    pairs = [(product(found, layer), exact(adapter, layer, names)) for layer in LAYERS]
    return np.sqrt(sum(np.linalg.norm(f - e) ** 2 for f, e in pairs)) / np.sqrt(
        sum(np.linalg.norm(e) ** 2 for _, e in pairs)
    )


def test_products_of_different_ranks_become_the_best_adapter_of_the_global_rank(a_round, adapter):
    message = a_round.aggregate(adapters=product_of(**RANKS))
    found = a_round.result()
    for layer in LAYERS:
        expected = best(exact(adapter, layer), 4)
        scale = np.linalg.norm(expected)
        np.testing.assert_allclose(product(found, layer), expected, atol=1e-6 * scale)
        columns = np.linalg.norm(found[f"{layer}.lora_B.weight"], axis=0)
        assert (np.diff(columns) <= 0).all(), "the first directions are the largest"
    mean = sum(SAMPLES[n] / 60 * trained_by(n, adapter)["head.bias"] for n in SAMPLES)
    np.testing.assert_allclose(found["head.bias"], mean, rtol=1e-6)
    assert message.result["residual"] == pytest.approx(off(found, adapter), rel=1e-4)
    assert a_round.manifest().measured == {"residual": message.result["residual"]}


def test_products_that_fit_the_global_rank_are_exact(adapter, tmp_path):
    a_round = Federation(tmp_path, adapter).with_update("north", deltas_of("north", adapter))
    message = a_round.aggregate(adapters=product_of(**RANKS))
    assert message.result["residual"] < 1e-6
    assert not a_round.result()["q.lora_B.weight"][:, 2:].any()
    assert np.array_equal(a_round.result()["q.lora_A.weight"][2:], adapter["q.lora_A.weight"][2:])


def test_averaged_factors_are_the_mean_that_they_always_were_and_say_how_far_off_they_are(
    adapter, tmp_path
):
    names = ("east", "west")
    plain, said = Federation(tmp_path / "a", adapter), Federation(tmp_path / "b", adapter)
    moved = {name: an_adapter(4, seed, 0.3) for seed, name in enumerate(names, 1)}
    for made in (plain, said):
        for name in names:
            made.with_update(name, moved[name])
    plain.aggregate()
    message = said.aggregate(adapters={"aggregation": "Factors", "ranks": {}})
    for name, array in plain.result().items():
        assert np.array_equal(array, said.result()[name]), name
    trained = [{k: adapter[k] + m[k] for k in adapter} for m in moved.values()]
    differences = {
        layer: product(said.result(), layer) - sum(product(t, layer) for t in trained) / 2
        for layer in LAYERS
    }
    wholes = {layer: sum(product(t, layer) for t in trained) / 2 for layer in LAYERS}
    norm = lambda parts: np.sqrt(sum(np.linalg.norm(p) ** 2 for p in parts.values()))  # noqa: E731
    assert message.result["residual"] == pytest.approx(norm(differences) / norm(wholes), rel=1e-4)
    assert plain.manifest().measured == {}


def frozen(tmp_path, adapter):
    kinds = {f"{layer}.lora_A.weight": "frozen" for layer in LAYERS}
    return Federation(tmp_path, adapter, kinds)


def only_b(name, adapter):
    moved = an_adapter(4, sorted(SAMPLES).index(name) + 1, 0.3)
    return {key: value for key, value in moved.items() if "lora_A" not in key}


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "Median", "Krum"])
def test_a_frozen_a_is_in_no_update_and_the_same_in_every_model(adapter, tmp_path, strategy):
    a_round = frozen(tmp_path, adapter)
    for name in ("a", "b", "c", "d", "e"):
        a_round.with_update(name, {**only_b("east", adapter), "head.bias": np.ones(5, np.float32)})
    a_round.aggregate(
        strategy={"name": strategy}, adapters={"aggregation": "FrozenA", "ranks": {}}, norm_bound=9
    )
    for layer in LAYERS:
        name = f"{layer}.lora_A.weight"
        assert a_round.result()[name].tobytes() == adapter[name].tobytes()


def test_with_a_frozen_a_the_mean_of_b_is_the_exact_mean_of_the_products(adapter, tmp_path):
    a_round = frozen(tmp_path, adapter)
    for name, samples in SAMPLES.items():
        a_round.with_update(name, only_b(name, adapter), samples)
    message = a_round.aggregate(adapters={"aggregation": "FrozenA", "ranks": {}}, shards=1)
    assert message.result["residual"] < 1e-6


def test_an_update_that_brings_a_frozen_tensor_is_refused(adapter, tmp_path):
    a_round = frozen(tmp_path, adapter).with_update("east", only_b("east", adapter))
    a_round.with_update("north", an_adapter(4, 1))
    message = a_round.aggregate(adapters={"aggregation": "FrozenA", "ranks": {}})
    assert a_round.verdict_on("north", message) == "SchemaMismatch"


def test_an_update_of_another_rank_than_was_declared_is_refused(a_round, adapter):
    message = a_round.aggregate(adapters=product_of(north=2, south=2))
    assert a_round.verdict_on("south", message) == "SchemaMismatch"
    found = a_round.result()
    for layer in LAYERS:
        expected = best(exact(adapter, layer, ("east", "north")), 4)
        np.testing.assert_allclose(product(found, layer), expected, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_factor_that_is_unsound_leaves_the_bytes_of_a_round_without_it(bad, adapter, tmp_path):
    rounds = [Federation(tmp_path / name, adapter) for name in ("with", "without")]
    for made in rounds:
        for name in ("east", "south"):
            made.with_update(name, deltas_of(name, adapter), SAMPLES[name])
    spoiled = deltas_of("north", adapter)
    spoiled["q.lora_B.weight"] = spoiled["q.lora_B.weight"].copy()
    spoiled["q.lora_B.weight"][3, 1] = bad
    rounds[0].with_update("north", spoiled, 20)
    message = rounds[0].aggregate(adapters=product_of(**RANKS))
    rounds[1].aggregate(adapters=product_of(**RANKS))
    assert rounds[0].verdict_on("north", message) in ("NotFinite", "TooLarge")
    for name, array in rounds[1].result().items():
        assert np.array_equal(array, rounds[0].result()[name]), name


def test_factors_whose_product_is_beyond_measure_cost_their_participant_the_round(a_round, adapter):
    huge = {name: np.full_like(array, 7e16) for name, array in adapter.items()}
    a_round.with_update("west", huge, 5)
    message = a_round.aggregate(adapters=product_of(**RANKS))
    assert a_round.verdict_on("west", message) == "TooLarge"
    assert message.result["residual"] == pytest.approx(off(a_round.result(), adapter), rel=1e-4)


def test_a_factor_of_other_bytes_than_the_receipt_names_is_refused(a_round, adapter):
    a_round.with_update("west", deltas_of("east", adapter), 5, digest="sha256:" + "0" * 64)
    message = a_round.aggregate(adapters=product_of(**RANKS))
    assert a_round.verdict_on("west", message) == "DigestMismatch"
    assert a_round.verdict_on("south", message) == "accepted"


def test_bf16_updates_of_factors_are_taken(adapter, tmp_path):
    a_round = Federation(tmp_path, adapter)
    codec = {"name": "BFloat16"}
    wide = deltas_of("north", adapter)
    bits = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in wide.items()}
    a_round.with_update("north", bits, codec=codec)
    a_round.aggregate(adapters=product_of(**RANKS), codec=codec)
    expected = product(trained_by("north", adapter), "q")
    np.testing.assert_allclose(product(a_round.result(), "q"), expected, atol=0.1)


def everything(model):
    return {name: model.read(name).tobytes() for name in model.tensors}


def test_threads_and_shards_give_the_same_bytes(adapter, tmp_path):
    found = {}
    for shards, threads in ((1, 1), (1, 3), (3, 1), (2, 2)):
        made = Federation(tmp_path / f"{shards}-{threads}", adapter)
        for name, samples in SAMPLES.items():
            made.with_update(name, deltas_of(name, adapter), samples)
        task = made.task(adapters=product_of(**RANKS), shards=shards)
        if shards == 1:
            engine.aggregate(task, made.root, threads)
        else:
            work_together(task, made.root, threads)
        folder = made.root / global_folder(1, 1)
        with open_model(folder) as model:
            found[shards, threads] = everything(model), made.manifest()
    first, manifest = found[1, 1]
    for tensors, other in found.values():
        assert tensors == first
        assert dataclasses.replace(other, size=manifest.size) == manifest


def work_together(task, root, threads):
    def shard(index):
        with Shards(task, root, index, patience=60) as peers:
            engine.aggregate(task, root, threads, peers)

    workers = [threading.Thread(target=shard, args=(index,)) for index in range(task.shards)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert (root / task.output / MODEL_INDEX_FILE).exists()


@pytest.mark.parametrize("shards", range(1, 7))
def test_a_pair_is_never_on_two_shards(shards):
    schema = Schema.of(
        TensorSpec(name=name, dtype="F32", shape=array.shape)
        for name, array in an_adapter(4, 0).items()
    )
    parts = [{spec.name for spec in owned(schema, shards, index)} for index in range(shards)]
    assert sorted(name for part in parts for name in part) == [s.name for s in schema.tensors]
    for part in parts:
        for layer in LAYERS:
            assert len(part & {f"{layer}.lora_{factor}.weight" for factor in "AB"}) != 1


@pytest.mark.processes
def test_killed_before_publication_and_run_again_the_bytes_are_the_same(a_round, adapter, tmp_path):
    other = Federation(tmp_path / "other", adapter)
    for name, samples in SAMPLES.items():
        other.with_update(name, deltas_of(name, adapter), samples)
    kill = (
        "import os, signal\nfrom fedtrain.aggregation import lowrank\n"
        "lowrank.residual = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert a_round.run_with(kill, adapters=product_of(**RANKS)).code == -9
    ended = a_round.run(threads=1, adapters=product_of(**RANKS))
    assert ended.code == 0, ended.output
    assert re.search(r"Product of 2 adapter pairs: [0-9.e-]+ from the exact", ended.output)
    assert other.run(threads=3, adapters=product_of(**RANKS)).code == 0
    assert a_round.published_bytes() == other.published_bytes()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"strategy": {"name": "FedAdam"}}, "FedAdam"),
        ({"norm_bound": 1.0}, "normBound"),
        ({"codec": {"name": "Int8", "block": 64}}, "Int8"),
        ({"precision": "Exact"}, "Exact"),
    ],
)
def test_what_does_not_go_with_products_is_refused_in_the_task_too(a_round, said, what):
    with pytest.raises(ContractError, match=f"Product does not go with {what}"):
        a_round.aggregate(adapters=product_of(**RANKS), **said)


def test_an_unknown_aggregation_of_adapters_is_refused(a_round):
    with pytest.raises(ContractError, match="'Sum' is unknown"):
        a_round.aggregate(adapters={"aggregation": "Sum"})


def test_texts_travel_from_model_to_model(a_round, adapter):
    folder = a_round.root / global_folder(0, 1)
    texts = {"config.json": "{}", "tokenizer.json": "é"}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    path = folder / "manifest.json"
    manifest = dataclasses.replace(
        Manifest.from_json(path.read_text()), files=modeltexts.digests(texts), base_model="sha256:1"
    )
    path.write_text(manifest.to_json())
    a_round.aggregate(adapters=product_of(**RANKS))
    after = a_round.root / global_folder(1, 1)
    assert {name: (after / name).read_text(encoding="utf-8") for name in texts} == texts
    assert a_round.manifest().files == modeltexts.digests(texts)
    assert a_round.manifest().base_model == "sha256:1"
    assert read_tensors(after / "model.safetensors").keys() == adapter.keys()
