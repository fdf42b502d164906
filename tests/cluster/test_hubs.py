"""The lines to hubs, and what one that says nothing costs the others."""

import asyncio
import socket
import time

import pytest

from fedoperator import errors, link
from fedoperator.api.training import Training
from fedoperator.cluster import hubs
from tests.cluster.stage import a_training

KEY = ("here", "digits")
JOB = {
    "metadata": {
        "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"fedtrain.dev/resident": "true", "fedtrain.dev/role": "prepare"},
    },
    "spec": {"template": {"spec": {"containers": [{"env": []}]}}},
    "status": {"ready": 1},
}


def a_resident_training() -> Training:
    document = a_training(pods="Resident")
    document["metadata"] |= {"uid": "t", "namespace": "here", "resourceVersion": "1"}
    return Training.from_object(document)


async def pods(uid):
    return [{"status": {"podIP": "127.0.0.1"}}]


def lost(line: link.Link, until: float) -> None:
    while not line.is_lost() and time.monotonic() < until:
        time.sleep(0.05)


async def test_what_a_lost_line_told_is_not_taken_for_all_there_is(monkeypatch):
    """Who reported since would be late. A line that is back at once is no loss."""
    woken = []
    monkeypatch.setattr(link, "SILENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hub:
        monkeypatch.setattr(hubs.contract, "HUB_PORT", hub.getsockname()[1])
        lines = hubs.Hubs(woken.append)

        def answer() -> None:
            line, _ = hub.accept()
            line.sendall(b'{"reports": {}}\n')
            answered.append(line)

        async def heard():
            return await lines.heard(KEY, a_resident_training(), [JOB], pods)

        answered: list[socket.socket] = []
        try:
            first = asyncio.get_running_loop().run_in_executor(None, answer)
            _, since = await heard()
            await first
            assert since is not None
            answered[0].close()
            assert await heard() == ((), since)
            until = time.monotonic() + 20
            await asyncio.to_thread(lost, lines._links[KEY][1], until)
            with pytest.raises(errors.HubUnreachable):
                await heard()
            woken.clear()
            for _ in range(50):
                # Its calls in between stand in a queue, and nobody answers those any more.
                await asyncio.get_running_loop().run_in_executor(None, answer)
                await asyncio.sleep(0.05)
                if woken:
                    break
            assert woken == [KEY]
            assert await heard() == ((), since)
        finally:
            lines.forget(KEY)
            for line in answered:
                line.close()


async def test_a_hub_that_says_nothing_is_waited_for_once(monkeypatch):
    """A worker waits meanwhile: a few such trainings would take the looks of all others."""
    training, waits = a_resident_training(), []

    async def to_thread(wait, seconds):
        waits.append(seconds)
        return wait(0)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    monkeypatch.setattr(hubs, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hubs.contract, "HUB_PORT", silent.getsockname()[1])
        lines = hubs.Hubs(lambda key: None)
        try:
            with pytest.raises(errors.HubUnreachable):
                await lines.heard(KEY, training, [JOB], pods)
            assert len(waits) == 1
            await asyncio.sleep(0.5)
            with pytest.raises(errors.HubUnreachable):
                await lines.heard(KEY, training, [JOB], pods)
            assert len(waits) == 1
        finally:
            lines.forget(KEY)
