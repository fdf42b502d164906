"""The lines to hubs, and what one that says nothing costs the others."""

import asyncio
import socket

import pytest

from fedoperator import errors
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


async def test_a_hub_that_says_nothing_is_waited_for_once(monkeypatch):
    """A worker waits meanwhile: a few such trainings would take the looks of all others."""
    document = a_training(pods="Resident")
    document["metadata"] |= {"uid": "t", "namespace": "here", "resourceVersion": "1"}
    training, waits = Training.from_object(document), []

    async def to_thread(wait, seconds):
        waits.append(seconds)
        return wait(0)

    async def pods(uid):
        return [{"status": {"podIP": "127.0.0.1"}}]

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
