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
    ("handler", "of", "wakes"),
    [
        # A Job without news: with the first list nothing was made just now, and its end is news.
        (
            "_on_job",
            {"body": JOB},
            {None: True, "ADDED": False, "MODIFIED": False, "DELETED": True},
        ),
        # A training whose status was written.
        (
            "_on_training",
            {"body": TRAINING, "name": "digits"},
            {None: True, "ADDED": True, "MODIFIED": False, "DELETED": True},
        ),
    ],
)
async def test_what_the_operator_itself_has_written_wakes_nobody(handler, of, wakes):
    woken = []
    watch = Watch(kubernetes.Configuration(), woken.append, asyncio.get_running_loop(), "here")
    for kind, expected in wakes.items():
        woken.clear()
        await getattr(watch, handler)(type=kind, namespace="here", **of)
        await asyncio.sleep(0)  # the watch wakes by way of the loop
        assert woken == [("here", "digits")] * expected, kind
