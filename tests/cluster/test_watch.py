"""The watch says so when it ends, whatever ends it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes

from fedoperator.cluster.watch import Watch


@pytest.fixture
async def a_server_without_anything() -> AsyncIterator[kubernetes.Configuration]:
    """Every question is answered with 404, which no trying again mends."""

    async def nothing(_: web.BaseRequest) -> web.Response:
        return web.json_response({"kind": "Status", "code": 404, "message": "none"}, status=404)

    runner = web.ServerRunner(web.Server(nothing))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = kubernetes.Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield configuration
    await runner.cleanup()


async def test_an_end_of_kopf_is_the_end_of_the_watch(a_server_without_anything):
    """Else the process would hold the lease for ever, and see nothing."""
    watch = Watch(a_server_without_anything, lambda key: None, asyncio.get_running_loop(), "here")
    with pytest.raises(RuntimeError, match="the watch ended"):
        await asyncio.wait_for(watch.run(), timeout=30)


JOB = {"metadata": {"labels": {"fedtrain.dev/training": "digits"}}, "spec": {}, "status": {}}
TRAINING = {"metadata": {"generation": 2}, "status": {"observedGeneration": 2}}


@pytest.mark.parametrize(
    ("kind", "wakes"), [(None, True), ("ADDED", False), ("MODIFIED", False), ("DELETED", True)]
)
async def test_a_job_without_news_wakes_with_the_first_list_and_when_it_is_gone(kind, wakes):
    woken = []
    loop = asyncio.get_running_loop()
    watch = Watch(kubernetes.Configuration(), woken.append, loop, "here")
    await watch._on_job(type=kind, namespace="here", body=JOB)
    await asyncio.sleep(0)
    assert woken == [("here", "digits")] * wakes


@pytest.mark.parametrize(
    ("kind", "wakes"), [(None, True), ("ADDED", True), ("MODIFIED", False), ("DELETED", True)]
)
async def test_a_training_wakes_whatever_happens_to_it_but_for_its_own_status(kind, wakes):
    woken = []
    loop = asyncio.get_running_loop()
    watch = Watch(kubernetes.Configuration(), woken.append, loop, "here")
    await watch._on_training(type=kind, namespace="here", name="digits", body=TRAINING)
    await asyncio.sleep(0)
    assert woken == [("here", "digits")] * wakes
