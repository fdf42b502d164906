"""The queue, on a clock that only moves when everybody waits."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from fedoperator import errors
from fedoperator.cluster import workqueue
from fedoperator.cluster.workqueue import Key, Next, Queue
from tests.cluster.clock import run

KEY = ("default", "digits")
START = datetime(2026, 1, 1, tzinfo=UTC)


def now() -> float:
    return asyncio.get_running_loop().time()


class Looks:
    """Records what is looked at and when; answers what it is told to."""

    def __init__(self, answer: Callable[[Key], Next] = lambda key: Next()) -> None:
        self.answer = answer
        self.seen: list[tuple[float, Key]] = []
        self.failed: list[str | None] = []
        self.waits: list[tuple[float, bool]] = []
        self.under_way: list[Key] = []
        self.lasts = 0.0

    async def __call__(self, key: Key) -> Next:
        assert key not in self.under_way, "one look per key at a time"
        self.under_way.append(key)
        try:
            self.seen.append((now(), key))
            await asyncio.sleep(self.lasts)
            return self.answer(key)
        finally:
            self.under_way.remove(key)

    def waited(self, seconds: float, again: bool) -> None:
        self.waits.append((round(seconds, 3), again))

    def looked(self, seconds: float, failed: str | None) -> None:
        self.failed.append(failed)

    @property
    def times(self) -> list[float]:
        return [round(when, 3) for when, _ in self.seen]


@contextlib.asynccontextmanager
async def running(looks: Looks, workers: int = 2) -> AsyncIterator[Queue]:
    queue = Queue(
        looks,
        watcher=looks,
        clock=lambda: START + timedelta(seconds=now()),
        jitter=lambda: 1.0,
    )
    task = asyncio.create_task(queue.run(workers))
    await asyncio.sleep(0)
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_key_woken_many_times_is_looked_at_once():
    async def main():
        looks = Looks()
        async with running(looks) as queue:
            for _ in range(100):
                queue.wake(KEY)
            await asyncio.sleep(30)
        assert looks.times == [0]

    run(main())


def test_how_long_a_key_was_due_is_told_and_whether_it_is_tried_again():
    def fails_once(key: Key) -> Next:
        if key == KEY and len(looks.seen) == 1:
            raise RuntimeError
        return Next()

    looks = Looks(fails_once)

    async def main():
        looks.lasts = 2.0
        async with running(looks, workers=1) as queue:
            queue.wake(KEY)
            queue.wake(("default", "other"))
            await asyncio.sleep(30)
        assert looks.waits == [(0, False), (2, False), (0, True)]

    run(main())


@pytest.mark.parametrize(
    ("asked", "times"),
    [(Next(), [0, 1, 2, 3, 4]), (Next(pause=0.25), [number / 4 for number in range(19)])],
)
def test_a_key_is_looked_at_once_a_second_at_most_or_as_often_as_its_look_asks_for(asked, times):
    async def main():
        looks = Looks(lambda key: asked)
        async with running(looks) as queue:
            for _ in range(90):
                queue.wake(KEY)
                await asyncio.sleep(0.05)
        assert looks.times == times

    run(main())


def test_a_wake_during_a_look_is_followed_by_exactly_one_more():
    async def main():
        looks = Looks()
        looks.lasts = 1.0
        async with running(looks, workers=4) as queue:
            queue.wake(KEY)
            for _ in range(9):
                await asyncio.sleep(0.1)
                queue.wake(KEY)
            await asyncio.sleep(30)
        assert looks.times == [0, 3]

    run(main())


def test_after_a_long_look_a_key_rests_twice_as_long_but_not_too_long():
    async def main(lasts: float) -> list[float]:
        looks = Looks()
        looks.lasts = lasts
        async with running(looks) as queue:
            for _ in range(300):
                queue.wake(KEY)
                await asyncio.sleep(0.1)
        return looks.times[:3]

    assert run(main(0.2)) == [0, 1, 2]
    assert run(main(2.0)) == [0, 6, 12]
    assert run(main(10.0)) == [0, 15, 30]


def test_different_keys_are_looked_at_beside_each_other():
    async def main():
        looks = Looks()
        looks.lasts = 5.0
        async with running(looks, workers=2) as queue:
            for name in "abc":
                queue.wake(("default", name))
            await asyncio.sleep(30)
        assert looks.times == [0, 0, 5]

    run(main())


def test_a_key_is_looked_at_when_its_last_look_asked_for_it():
    async def main():
        moments = iter([Next(wake_at=START + timedelta(seconds=42))])
        looks = Looks(lambda key: next(moments, Next()))
        async with running(looks) as queue:
            queue.wake(KEY)
            await asyncio.sleep(100)
        assert looks.times == [0, 42]

    run(main())


def test_a_moment_that_has_passed_asks_for_a_look_in_a_second():
    async def main():
        looks = Looks(lambda key: Next(wake_at=START - timedelta(hours=1)))
        async with running(looks) as queue:
            queue.wake(KEY)
            await asyncio.sleep(3.5)
        assert looks.times == [0, 1, 2, 3]

    run(main())


def test_a_wake_comes_before_the_moment_asked_for():
    async def main():
        looks = Looks(lambda key: Next(wake_at=START + timedelta(seconds=60)))
        async with running(looks) as queue:
            queue.wake(KEY)
            await asyncio.sleep(10)
            queue.wake(KEY)
            await asyncio.sleep(20)
        assert looks.times == [0, 10]

    run(main())


def test_without_any_event_a_key_is_looked_at_every_few_minutes():
    async def main():
        looks = Looks()
        async with running(looks) as queue:
            queue.wake(KEY)
            await asyncio.sleep(1000)
        assert looks.times == [0, 330, 660, 990]

    run(main())


def test_failures_are_tried_again_ever_later_but_at_least_every_minute():
    async def main():
        looks = Looks(lambda key: 1 / 0)  # type: ignore[arg-type, return-value]
        async with running(looks) as queue:
            queue.wake(KEY)
            await asyncio.sleep(300)
        waits = [b - a for a, b in zip(looks.times, looks.times[1:], strict=False)]
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert set(looks.failed) == {"ZeroDivisionError"}

    run(main())


def test_an_event_does_not_cut_a_backoff_short_and_success_ends_it():
    async def main():
        outcomes = iter([errors.Unavailable("no"), errors.Unavailable("no")])

        def answer(key: Key) -> Next:
            error = next(outcomes, None)
            if error is not None:
                raise error
            return Next()

        looks = Looks(answer)
        async with running(looks) as queue:
            for _ in range(45):
                queue.wake(KEY)
                await asyncio.sleep(0.1)
        assert looks.times == [0, 1, 3, 4]

    run(main())


def test_one_key_that_fails_holds_up_no_other():
    async def main():
        looks = Looks(lambda key: Next() if key == KEY else 1 / 0)  # type: ignore[return-value]
        async with running(looks, workers=1) as queue:
            queue.wake(("default", "broken"))
            await asyncio.sleep(40)
            queue.wake(KEY)
            await asyncio.sleep(0.1)
            assert looks.seen[-1] == (40, KEY)

    run(main())


def test_a_look_that_hangs_is_ended_and_counted():
    async def main():
        looks = Looks()
        looks.lasts = 10_000.0
        async with running(looks, workers=1) as queue:
            queue.wake(KEY)
            await asyncio.sleep(100)
            assert queue.oldest() == pytest.approx(100)
            await asyncio.sleep(workqueue.LOOK_LIMIT)
            assert looks.failed == ["TimeoutError"]

    run(main())


def test_what_is_gone_is_forgotten_and_takes_no_memory():
    async def main():
        looks = Looks(lambda key: Next(gone=True))
        async with running(looks) as queue:
            for number in range(1000):
                queue.wake(("default", f"t{number}"))
            await asyncio.sleep(10)
            assert (queue.keys, queue.depth) == (0, 0)

    run(main())


def test_a_key_woken_while_found_gone_is_looked_at_again():
    async def main():
        looks = Looks(lambda key: Next(gone=True))
        looks.lasts = 1.0
        async with running(looks) as queue:
            queue.wake(KEY)
            await asyncio.sleep(0.5)
            queue.wake(KEY)
            await asyncio.sleep(10)
            assert looks.times == [0, 3]
            assert queue.keys == 0

    run(main())


def test_forget_takes_a_key_out_wherever_it_waits():
    async def main():
        looks = Looks()
        queue = Queue(looks)
        queue.wake(KEY)
        assert queue.depth == 1
        queue.forget(KEY)
        assert (queue.keys, queue.depth) == (0, 0)
        queue.forget(KEY)

    run(main())


def test_before_it_runs_the_queue_collects_keys_and_nothing_counts_as_late():
    async def main():
        looks = Looks()
        queue = Queue(looks)
        queue.wake(KEY)
        await asyncio.sleep(1000)
        assert queue.oldest() == 0
        task = asyncio.create_task(queue.run(1))
        await asyncio.sleep(0)
        assert queue.oldest() == 0
        await asyncio.sleep(0.1)
        assert looks.times == [1000]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_expected_errors_are_one_line_and_unexpected_ones_come_with_a_traceback(caplog):
    async def main(error: Exception) -> None:
        def answer(key: Key) -> Next:
            raise error

        async with running(Looks(answer)) as queue:
            queue.wake(KEY)
            await asyncio.sleep(0.1)

    with caplog.at_level(logging.INFO):
        run(main(errors.Refused("exceeded quota")))
        run(main(KeyError("metadata")))
    refused, unexpected = caplog.records
    assert (refused.reason, refused.said, refused.exc_info) == ("Refused", "exceeded quota", None)
    assert unexpected.exc_info is not None
