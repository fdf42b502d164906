"""Killed before and after every tensor that it writes and run again, the same bytes appear."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.contract import AggregateTask, global_folder
from tests.aggregation.conftest import Federation
from tests.aggregation.hostile.processes import aggregated, running
from tests.aggregation.hostile.rounds import copied, published_by

pytestmark = pytest.mark.processes

Document = Mapping[str, Any]
SETTINGS: Mapping[str, Document] = {
    "the mean": {"strategy": {"name": "FedAvg"}},
    "a server with state": {"strategy": {"name": "FedAdam"}},
    "two passes": {"strategy": {"name": "Krum"}, "precision": "Exact"},
    "an encoding": {"strategy": {"name": "DiLoCo"}, "codec": {"name": "Int8", "block": 64}},
    "two shards": {"strategy": {"name": "FedAdam"}, "shards": 2},
}
MODEL = {
    "a.weight": np.ones((40, 10), np.float32),
    "a.running_var": np.ones(10, np.float32),
    "b.weight": np.zeros(77, np.float32),
    "steps": np.array(3, np.int64),
}
PARTICIPANTS = 6


@dataclass(frozen=True, slots=True)
class Round:
    """One that is ready to be aggregated. writes: of each process when nobody is killed."""

    federation: Federation
    task: AggregateTask
    writes: tuple[int, ...]
    bytes: str

    def killed_and_run_again(self, name: str, kill: tuple[int, ...]) -> str:
        """The published bytes in the end."""
        federation = copied(self.federation, self.federation.root.with_name(name))
        ended = aggregated(federation, self.task, kill)
        for one, number in zip(ended, kill, strict=True):
            assert one.code == (-9 if number else 0), one.output
        final = federation.root / self.task.output
        assert not final.exists() or federation.published_bytes() == self.bytes
        for one in aggregated(federation, self.task, (0,) * len(kill)):
            assert one.code == 0, one.output
        return federation.published_bytes()


@contextmanager
def prepared(said: Document) -> Iterator[Round]:
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder) / "prepared", MODEL, {"a.running_var": "buffer"})
        rng = np.random.default_rng(5)
        for k in range(PARTICIPANTS):
            update = {
                name: (0.01 * rng.normal(size=array.shape)).astype(array.dtype)
                for name, array in MODEL.items()
            }
            published_by(federation, f"p{k}", update, k + 1, said.get("codec"))
        federation.with_update("refused", MODEL, base="another")
        task = federation.task(**said)
        whole = copied(federation, Path(folder) / "whole")
        ended = aggregated(whole, task, (0,) * task.shards)
        assert [one.code for one in ended] == [0] * task.shards, [one.output for one in ended]
        writes = tuple(one.writes for one in ended)
        assert sum(writes) >= len(MODEL)
        yield Round(federation, task, writes, whole.published_bytes())


@pytest.fixture(scope="module", params=SETTINGS.values(), ids=SETTINGS.keys())
def a_round(request: pytest.FixtureRequest) -> Iterator[Round]:
    with prepared(request.param) as one:
        yield one


@pytest.fixture(scope="module")
def two_shards() -> Iterator[Round]:
    with prepared(SETTINGS["two shards"]) as one:
        yield one


def test_killed_at_any_tensor_and_run_again_it_publishes_the_same_bytes(a_round: Round) -> None:
    shards = a_round.task.shards
    for shard in range(shards):
        for write in range(1, a_round.writes[shard] + 1):
            kill = tuple(write if other == shard else 1 for other in range(shards))
            name = f"killed-{shard}-{write}"
            assert a_round.killed_and_run_again(name, kill) == a_round.bytes, (shard, write)


def test_what_was_killed_left_nothing_that_a_later_round_sees(a_round: Round) -> None:
    federation = copied(a_round.federation, a_round.federation.root.with_name("leftover"))
    shards = a_round.task.shards
    aggregated(federation, a_round.task, tuple(a_round.writes))
    left = [path.name for path in (federation.root / "global/1").iterdir()]
    assert left
    assert all(name.startswith(".tmp-1-") for name in left)
    task = dataclasses.replace(a_round.task, attempt=2, output=global_folder(1, 2))
    assert [one.code for one in aggregated(federation, task, (0,) * shards)] == [0] * shards
    assert [path.name for path in (federation.root / "global/1").iterdir()] == ["2"]


def test_a_shard_that_is_killed_and_started_again_finds_the_others_waiting(
    two_shards: Round,
) -> None:
    for killed in (0, 1):
        for write in range(1, two_shards.writes[killed] + 1, 2):
            name = f"joined-{killed}-{write}"
            federation = copied(two_shards.federation, two_shards.federation.root.with_name(name))
            with running(federation, two_shards.task, 1 - killed) as waiting:
                with running(federation, two_shards.task, killed, kill=write) as one:
                    assert one.wait(60) == -9
                with running(federation, two_shards.task, killed) as again:
                    assert again.wait(60) == 0, again.communicate()[0]
                assert waiting.wait(60) == 0, waiting.communicate()[0]
            assert federation.published_bytes() == two_shards.bytes, name
