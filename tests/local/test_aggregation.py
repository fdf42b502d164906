"""Strategies with a state of their own, shards and compression, in a whole federation."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

pytestmark = pytest.mark.processes

Three = Callable[..., dict[str, list[str]]]
SPEC = {
    "rounds": 3,
    "strategy": {"name": "FedAdam", "learningRate": 0.1},
    "compression": {"codec": "Int8", "block": 64},
    "keep": {"last": 10, "updates": 10},
}


@pytest.fixture(scope="module")
def sharded(
    tmp_path_factory: pytest.TempPathFactory, a_federation: Any, three: Three
) -> Iterator[Any]:
    """Server Adam over int8 updates, aggregated by two processes."""
    made = a_federation(tmp_path_factory.mktemp("sharded"))
    made.of(three(), aggregation={"shards": 2}, **SPEC)
    result = made.run("--jobs", "2", "--give-up-after", "20s")
    assert result.returncode == 0, result.stderr
    yield made
    made.close()


def folders(federation: Any) -> list[Path]:
    """Of each round's global model, from round 0 on."""
    paths = [record["status"]["globalModel"]["path"] for record in federation.records]
    return [(federation.out / "exchange" / path).parent for path in paths]


def test_the_model_is_an_index_with_a_file_of_each_shard(sharded: Any) -> None:
    assert sharded.model.name == "model.safetensors.index.json"
    places = json.loads(sharded.model.read_text())["weight_map"]
    assert set(places) == {"w", "b"}
    assert set(places.values()) == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    for name, file in places.items():
        assert name in safetensors.load_file(sharded.model.parent / file)


def test_every_round_was_accepted_by_all_shards_alike(sharded: Any) -> None:
    for record in sharded.records[1:]:
        assert [p["state"] for p in record["status"]["participants"]] == ["Accepted"] * 3
        assert record["status"]["aggregation"]["attempt"] == 1


def test_one_process_makes_the_same_model_and_the_same_state(
    sharded: Any, federation: Any, three: Three
) -> None:
    result = federation.of(three(), **SPEC).run("--give-up-after", "20s")
    assert result.returncode == 0, result.stderr
    assert federation.model.name == "model.safetensors"
    assert federation.digest == sharded.digest
    assert federation.digest.count("sha256:") == 2
    whole = safetensors.load_file(federation.model)
    places = json.loads(sharded.model.read_text())["weight_map"]
    for name, file in places.items():
        assert np.array_equal(whole[name], safetensors.load_file(sharded.model.parent / file)[name])


def test_the_state_of_the_server_lies_beside_each_model_but_the_first(sharded: Any) -> None:
    first, *others = folders(sharded)
    assert list(first.glob("server*")) == []
    for folder in others:
        files = sorted(folder.glob("server*.safetensors"))
        names = {name for file in files for name in safetensors.load_file(file)}
        assert {name.split("/", 1)[1] for name in names} == {"w", "b"}


def test_the_receipts_say_how_the_updates_are_encoded(sharded: Any) -> None:
    receipts = list((sharded.out / "exchange").glob("*/updates/*/[1-3]/1/receipt.json"))
    assert len(receipts) == 9
    for receipt in receipts:
        assert json.loads(receipt.read_text())["codec"] == {"name": "Int8", "block": 64}


def test_every_participant_has_a_scratch_of_its_own(sharded: Any) -> None:
    assert {path.name for path in (sharded.out / "scratch").iterdir()} == {"a", "b", "c"}


@pytest.mark.parametrize("shards", [1, 2])
def test_too_few_sound_updates_are_told_by_name_whichever_shard_says_so_first(
    federation: Any, three: Three, shards: int
) -> None:
    federation.of(
        three(), rounds=1, quorum={"minimum": 3, "onMiss": "Fail"}, aggregation={"shards": shards}
    )
    spoilt = 'python train.py --part 2; truncate -s -1 "$FEDTRAIN_ROOT"/updates/c/1/*/update.*'
    participants = [{"name": n, "trainer": {"args": ["--part", p]}} for n, p in ("a0", "b1")]
    participants.append({"name": "c", "trainer": {"command": ["sh", "-c", spoilt], "args": []}})
    federation.change(participants=participants)
    result = federation.run("--give-up-after", "5s")
    assert result.returncode == 1, result.stderr
    states = {p["name"]: p for p in federation.records[1]["status"]["participants"]}
    assert {name: p["state"] for name, p in states.items()} == {
        "a": "Reported",
        "b": "Reported",
        "c": "Rejected",
    }
    assert states["c"]["reason"] == "SizeMismatch"
