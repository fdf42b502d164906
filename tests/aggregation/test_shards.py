"""Shards divide the tensors, meet, hear each other out, and never wait for ever."""

import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.aggregation import shards
from fedtrain.aggregation.peers import Over
from fedtrain.aggregation.report import Claim, Report
from fedtrain.aggregation.shards import Shards, owned
from fedtrain.contract import AggregateTask, ModelRef
from fedtrain.errors import ContractError, TryAgain
from fedtrain.layout import item_size
from fedtrain.publication import Publication
from fedtrain.schema import Schema, TensorSpec

Make = Callable[..., Any]
TRAINER = Path(__file__).parents[2] / "trainer"


def a_schema(*lengths: int) -> Schema:
    return Schema.of(
        TensorSpec(name=f"t{number:04}", dtype="F32", shape=(length,))
        for number, length in enumerate(lengths)
    )


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 12))
def test_every_tensor_has_one_owner_and_the_load_is_balanced(
    lengths: list[int], count: int
) -> None:
    schema = a_schema(*lengths)
    parts = [owned(schema, count, index) for index in range(count)]
    whole = [spec.name for part in parts for spec in part]
    assert sorted(whole) == [spec.name for spec in schema.tensors]
    assert all(list(part) == sorted(part, key=lambda spec: spec.name) for part in parts)
    loads = [sum(item_size("F32") * spec.shape[0] for spec in part) for part in parts]
    assert max(loads) - min(loads) <= 4 * max(lengths, default=0)
    assert [bool(part) for part in parts] == [index < len(lengths) for index in range(count)]


def test_who_owns_what_is_the_same_everywhere_and_always() -> None:
    schema = a_schema(5, 100, 7, 7, 60, 0)
    names = [[spec.name for spec in owned(schema, 3, index)] for index in range(3)]
    assert names == [["t0001"], ["t0004"], ["t0000", "t0002", "t0003", "t0005"]]


def a_task(shards: int = 2, **said: Any) -> AggregateTask:
    task = AggregateTask(
        training="digits",
        uid="u",
        round=1,
        attempt=1,
        model=ModelRef(path="global/0/1", digest="sha256:0"),
        output="global/1/1",
        candidates=(("a", 1),),
        minimum=1,
        shards=shards,
    )
    return dataclasses.replace(task, **said)


def a_report(index: int, complete: bool = True) -> Report:
    return Report(complete=complete, hashes={"model": {f"t{index}": "00"}})


def meeting(root: Path) -> Path:
    return root / "global/1/.tmp-1-shards"


def shared(shard: Shards, number: int = 1, report: Report | None = None) -> list[Report]:
    with shard:
        return shard.share(number, report or a_report(shard.index))


def published(root: Path) -> None:
    with Publication(root / "global/1/1", "manifest.json") as publication:
        publication.commit("{}")


def test_all_shards_get_the_reports_of_all_in_order(tmp_path: Path) -> None:
    task = a_task(3)
    with ThreadPoolExecutor(3) as pool:
        both = [Shards(task, tmp_path, index) for index in range(3)]
        got = list(pool.map(shared, both))
    assert got == [[a_report(index) for index in range(3)]] * 3


@pytest.mark.parametrize("index", [-1, 2])
def test_a_shard_that_the_task_does_not_have_is_refused(tmp_path: Path, index: int) -> None:
    with pytest.raises(ContractError, match=f"there is no shard {index} of 2"):
        Shards(a_task(), tmp_path, index)


def test_a_shard_that_never_starts_ends_the_waiting(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TryAgain, match="shard 1 of 2 has not started within 0 s") as missing:
        shared(Shards(a_task(), tmp_path, 0, patience=0.3))
    assert missing.value.reason == "ShardMissing"
    assert 0.3 <= time.monotonic() - began < 5


def test_a_mark_that_nobody_touches_any_more_ends_the_waiting(tmp_path: Path) -> None:
    # The peer's process was killed: as an object that was entered and is never left.
    Shards(a_task(), tmp_path, 1).__enter__()
    with pytest.raises(TryAgain, match="shard 1 of 2 gave no sign of life") as missing:
        shared(Shards(a_task(), tmp_path, 0, patience=0.3))
    assert missing.value.reason == "ShardMissing"


def test_a_peer_that_works_for_longer_than_our_patience_is_waited_for(tmp_path: Path) -> None:
    def slowly(shard: Shards) -> list[Report]:
        with shard:
            shard.share(0, Report())
            if shard.index == 1:
                time.sleep(2.5)
            return shard.share(1, a_report(shard.index))

    with ThreadPoolExecutor(2) as pool:
        both = [Shards(a_task(), tmp_path, index, patience=1.0) for index in range(2)]
        assert list(pool.map(slowly, both)) == [[a_report(0), a_report(1)]] * 2


def test_a_peer_that_fails_is_told_of_soon_but_not_before_it_could_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_LINGER", 0.5)

    def fails() -> None:
        with Shards(a_task(), tmp_path, 1) as shard:
            shard.share(0, Report())
            time.sleep(0.2)
            failed.append(time.monotonic())
            raise MemoryError

    failed: list[float] = []

    with ThreadPoolExecutor(1) as pool, Shards(a_task(), tmp_path, 0) as shard:
        failing = pool.submit(fails)
        shard.share(0, Report())
        with pytest.raises(TryAgain, match="shard 1 of 2 ended without its report of pass 1") as at:
            shard.share(1, a_report(0))
        assert at.value.reason == "ShardFailed"
        assert 0.5 <= time.monotonic() - failed[0] < 10
        assert isinstance(failing.exception(), MemoryError)


def test_a_pod_that_starts_twice_finds_what_it_said_and_goes_on(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shared, [Shards(a_task(), tmp_path, index) for index in range(2)]))
    again = shared(Shards(a_task(), tmp_path, 0))
    assert again == [a_report(0), a_report(1)]


def test_a_pod_that_finds_something_else_the_second_time_gives_up(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shared, [Shards(a_task(), tmp_path, index) for index in range(2)]))
    claim = Claim(candidate=0, samples=1, digest="sha256:1", size=1)
    for other in (a_report(7), dataclasses.replace(a_report(0), claims=(claim,))):
        with pytest.raises(TryAgain, match="something else when it ran before") as differs:
            shared(Shards(a_task(), tmp_path, 0), report=other)
        assert differs.value.reason == "ShardDiffers"


def test_of_a_pass_that_was_broken_off_the_first_word_counts(tmp_path: Path) -> None:
    first = a_report(0, complete=False)
    with ThreadPoolExecutor(2) as pool:
        both = [Shards(a_task(), tmp_path, index) for index in range(2)]
        list(pool.map(lambda shard: shared(shard, report=first), both))
    assert shared(Shards(a_task(), tmp_path, 0), report=a_report(3)) == [first, first]


@pytest.mark.parametrize("damage", [b"", b"half", b"\xff\xfe", None])
def test_a_half_written_report_is_believed_by_nobody_and_replaced_by_its_owner(
    tmp_path: Path, damage: bytes | None
) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shared, [Shards(a_task(), tmp_path, index) for index in range(2)]))
    (report,) = meeting(tmp_path).glob("report-1-1-*")
    whole = report.read_bytes()
    report.write_bytes(whole[:-1] if damage is None else damage)
    with pytest.raises(TryAgain, match="has not started"):
        shared(Shards(a_task(), tmp_path, 0, patience=0.3))
    assert shared(Shards(a_task(), tmp_path, 1)) == [a_report(0), a_report(1)]
    assert report.read_bytes() == whole


def test_reports_about_another_task_of_the_same_number_are_not_read(tmp_path: Path) -> None:
    other = a_task(candidates=(("b", 1),))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shared, [Shards(other, tmp_path, index) for index in range(2)]))
    with pytest.raises(TryAgain, match="has not started"):
        shared(Shards(a_task(), tmp_path, 0, patience=0.3))


def test_waiting_ends_when_the_aggregation_has_been_published(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shared, Shards(a_task(), tmp_path, 1))
        while not list(meeting(tmp_path).glob("report-1-1-*")):
            time.sleep(0.01)
        published(tmp_path)
        assert isinstance(waiting.exception(timeout=30), Over)
    assert isinstance(pool_free(lambda: shared(Shards(a_task(), tmp_path, 1))), Over)


def pool_free(work: Callable[[], Any]) -> BaseException:
    with pytest.raises(Over) as raised:
        work()
    return raised.value


def test_a_later_aggregation_that_removes_the_meeting_disperses_it(tmp_path: Path) -> None:
    with Shards(a_task(), tmp_path, 0) as shard:
        meeting(tmp_path).rename(tmp_path / "gone")
        with pytest.raises(TryAgain, match="a later aggregation has begun") as dispersed:
            shard.share(0, Report())
    assert dispersed.value.reason == "ShardsDispersed"


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with ThreadPoolExecutor(2) as pool:
        both = [Shards(a_task(), tmp_path, index) for index in range(2)]
        assert list(pool.map(shared, both)) == [[a_report(0), a_report(1)]] * 2
    assert not list(meeting(tmp_path).glob(".report*"))


def test_whoever_waits_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shards, "_SAY_AFTER", 0.1)
    with pytest.raises(TryAgain):
        shared(Shards(a_task(3), tmp_path, 0, patience=0.6))
    assert "pass 1: 0 s of waiting for shards 1, 2\n" in capsys.readouterr().out
