"""Liveness and readiness tell the truth, in sentences."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from fedoperator.cluster import health, watch
from fedoperator.cluster.health import Health
from fedoperator.cluster.telemetry import Telemetry
from fedoperator.cluster.watch import Watch


@pytest.fixture
def parts() -> SimpleNamespace:
    """Everybody is well."""
    return SimpleNamespace(
        queue=SimpleNamespace(oldest=lambda: 0.0),
        leader=SimpleNamespace(leads=True, stands_by=True),
        watch=SimpleNamespace(stale=lambda: None, started=True),
        rights=SimpleNamespace(lacking=lambda: iter(())),
        api=SimpleNamespace(answered_at=time.monotonic()),
        telemetry=Telemetry(),
    )


@pytest.fixture
def checked(parts) -> Health:
    return Health(**vars(parts))


def test_all_is_well(checked):
    assert list(checked.dead()) == []
    assert list(checked.unready()) == []


def test_standing_by_is_alive_and_ready(parts, checked):
    parts.leader.leads = False
    assert list(checked.dead()) == []
    assert list(checked.unready()) == []


def test_a_candidate_that_stopped_trying_is_dead(parts, checked):
    parts.leader.leads = parts.leader.stands_by = False
    assert list(checked.dead()) == ["the lease is neither held nor tried for"]


def test_a_training_nobody_looks_at_is_told(parts, checked):
    parts.queue.oldest = lambda: 1000.0
    assert list(checked.dead()) == ["a training has waited 1000 s to be looked at"]


def test_a_missing_definition_is_no_reason_to_restart(parts, checked):
    parts.watch.started = False
    checked.waits_for = "the CustomResourceDefinitions of fedtrain.dev are missing"
    assert list(checked.dead()) == []
    assert list(checked.unready()) == [checked.waits_for]


def test_a_silent_api_server_makes_unready_not_dead(parts, checked):
    parts.api.answered_at = time.monotonic() - 60
    assert list(checked.dead()) == []
    assert list(checked.unready()) == ["the API server has not answered for 60 s"]


def test_a_right_that_is_lacking_makes_unready_not_dead(parts, checked):
    parts.rights.lacking = lambda: iter(["the operator may not list pods in namespace here"])
    assert list(checked.dead()) == []
    assert list(checked.unready()) == ["the operator may not list pods in namespace here"]


def test_an_api_server_that_never_answered_is_told(parts, checked):
    parts.api.answered_at = float("-inf")
    assert list(checked.unready()) == ["the API server has not answered yet"]


async def test_a_blocked_event_loop_is_noticed_and_forgiven(checked, monkeypatch):
    monkeypatch.setattr(health, "TICK", 0.01)
    monkeypatch.setattr(health, "LAG_LIMIT", 0.1)
    ticking = asyncio.create_task(checked.tick())
    await asyncio.sleep(0.05)
    assert list(checked.dead()) == []
    time.sleep(0.3)  # noqa: ASYNC251 - what the check is there for
    await asyncio.sleep(0.03)
    assert "the event loop is 0." in "".join(checked.dead())
    await asyncio.sleep(1.0)
    assert list(checked.dead()) == []
    ticking.cancel()


async def test_answers_over_http(parts, checked):
    async with TestClient(TestServer(checked.application())) as client:
        fine = await client.get("/healthz")
        assert (fine.status, await fine.text()) == (200, "ok\n")
        metrics = await client.get("/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "fedtrain_operator_writes_total" in await metrics.text()
        parts.watch.stale = lambda: "the watch of jobs was last opened 999 s ago"
        sick = await client.get("/healthz")
        assert sick.status == 503
        assert await sick.text() == "the watch of jobs was last opened 999 s ago\n"


async def test_a_watch_is_stale_when_it_was_not_opened_again_in_time():
    eyes = Watch(None, lambda key: None, asyncio.get_running_loop())  # type: ignore[arg-type]
    assert not eyes.started
    assert eyes.stale() is None
    eyes._opened = dict.fromkeys(watch.STREAMS, time.monotonic())
    assert eyes.started
    assert eyes.stale() is None
    eyes._opened["jobs"] -= watch.SERVER_TIMEOUT + watch.GRACE + 1
    assert "the watch of jobs" in (eyes.stale() or "")
