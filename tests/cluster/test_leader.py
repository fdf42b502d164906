"""The lease, between candidates on a real API server."""

import asyncio
import contextlib

import pytest

from fedoperator import errors
from fedoperator.cluster import leader
from fedoperator.cluster.leader import Leader, LeaseLost


@pytest.fixture
def quick(monkeypatch):
    """The same protocol, as fast as whole seconds and a busy machine allow."""
    monkeypatch.setattr(leader, "RETRY", 0.1)
    monkeypatch.setattr(leader, "DEADLINE", 1.5)
    monkeypatch.setattr(leader, "DURATION", 2)


def a_candidate(stage, identity: str) -> Leader:
    return Leader(stage.api, namespace=stage.namespace, name="lease", identity=identity)


def path(stage) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{stage.namespace}/leases/lease"


@contextlib.asynccontextmanager
async def task(coroutine):
    running = asyncio.create_task(coroutine)
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.apiserver
async def test_one_leads_and_the_other_stands_by_until_the_lease_is_released(stage, quick):
    first, second = a_candidate(stage, "first"), a_candidate(stage, "second")
    await first.acquire()
    assert first.leads
    async with task(first.keep()) as keeping, task(second.acquire()) as acquiring:
        await asyncio.sleep(2.5)
        assert not acquiring.done(), "a lease that is renewed is respected"
        assert second.stands_by
        assert not second.leads
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await first.release()
        assert not first.leads
        await asyncio.wait_for(acquiring, 10)
    lease = await stage.api.request("GET", path(stage))
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseTransitions"] == 1


@pytest.mark.apiserver
async def test_a_renewal_that_arrived_unseen_does_not_keep_the_lease(stage, quick):
    first = a_candidate(stage, "first")
    await first.acquire()
    seen = first._lease
    assert await first._try()
    first._lease = seen  # as if the renewal had been cancelled before its answer came
    await first.release()
    lease = await stage.api.request("GET", path(stage))
    assert lease["spec"]["holderIdentity"] == ""


@pytest.mark.apiserver
async def test_a_lease_that_is_not_renewed_is_taken_over_after_its_own_duration(stage, quick):
    await a_candidate(stage, "dead").acquire()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.wait_for(a_candidate(stage, "next").acquire(), 5)
    assert loop.time() - started > 2.0


@pytest.mark.apiserver
async def test_who_finds_the_lease_in_other_hands_stops(stage, quick):
    candidate = a_candidate(stage, "first")
    await candidate.acquire()
    lease = await stage.api.request("GET", path(stage))
    lease["spec"]["holderIdentity"] = "usurper"
    await stage.api.request("PUT", path(stage), lease)
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(candidate.keep(), 5)
    assert not candidate.leads
    await candidate.release()
    left = await stage.api.request("GET", path(stage))
    assert left["spec"]["holderIdentity"] == "usurper"


@pytest.mark.apiserver
async def test_a_deleted_lease_is_made_again(stage, quick):
    candidate = a_candidate(stage, "first")
    await candidate.acquire()
    await stage.api.request("DELETE", path(stage), {})
    async with task(candidate.keep()):
        await asyncio.sleep(0.4)
        assert candidate.leads
    assert (await stage.api.request("GET", path(stage)))["spec"]["holderIdentity"] == "first"


async def test_without_an_api_server_leadership_ends_before_others_may_begin(quick):
    class Silent:
        answers = True

        async def request(self, method, path, body=None):
            if not self.answers:
                raise errors.Unavailable("no answer")
            if method == "GET":
                raise errors.Gone("none")
            return {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}

    api = Silent()
    candidate = Leader(api, namespace="n", name="lease", identity="first")  # type: ignore[arg-type]
    await candidate.acquire()
    api.answers = False
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(candidate.keep(), 5)
    assert loop.time() - started < leader.DURATION
    assert not candidate.leads


async def test_an_api_server_that_hangs_is_not_waited_for(quick):
    class Hanging:
        async def request(self, *_, **__):
            await asyncio.sleep(3600)

    candidate = Leader(Hanging(), namespace="n", name="l", identity="i")  # type: ignore[arg-type]
    async with task(candidate.acquire()):
        await asyncio.sleep(1.0)
        assert candidate.stands_by
