"""What a thousand participants take in etcd, as a real API server stores it."""

import asyncio
import json

import pytest

from fedoperator import errors
from fedoperator.api import API_VERSION
from fedoperator.api.training import Training
from fedoperator.cluster.client import Kubernetes
from fedtrain.contract import Role
from tests.cluster.stage import NAME, Stage
from tests.rounds.world import World, a_spec

pytestmark = pytest.mark.apiserver

KIB = 2**10
METRICS = dict.fromkeys(("accuracy", "f1", "loss", "precision", "recall"), 0.123456789012)


async def a_thousand(stage: Stage, **changes: object) -> World:
    """In round 1, everybody ready, of a training that the API server knows."""
    spec = a_spec(rounds=1, **changes)
    spec["participants"] = [{"name": f"hospital-{number:04}"} for number in range(1000)]
    applied = await stage.apply(
        {
            "apiVersion": API_VERSION,
            "kind": "FederatedTraining",
            "metadata": {"name": NAME},
            "spec": spec,
        }
    )
    await _serves_records(stage)
    world = World(training=Training.from_object(applied)).in_round(1)
    for identity in world.live(Role.TRAIN):
        world.becomes_ready(identity)
    return world.settle()


async def stored(stage: Stage, world: World) -> tuple[int, int]:
    """Bytes of the training's status and of the record, with managedFields, as they are served."""
    cluster = Kubernetes(stage.api)
    read = await stage.training()
    await cluster.put_training_status(read, world.training.status.to_dict())
    record = world.record(1).model_copy(update={"resource_version": ""})
    existing = [r["metadata"]["name"] for r in await stage.records()]
    if record.name in existing:
        await stage.delete("federatedrounds", record.name)
    await cluster.create_record(Training.from_object(await stage.training()), record)
    kept = [r for r in await stage.records() if r["metadata"]["name"] == record.name]
    assert "managedFields" in kept[0]["metadata"]
    assert len(kept[0]["status"]["participants"]) == 1000
    return _bytes(await stage.status()), _bytes(kept[0])


async def _serves_records(stage: Stage) -> None:
    """A definition that is established may be a moment from being served."""
    async with asyncio.timeout(30):
        while True:
            try:
                await stage.records()
                return
            except errors.Unavailable:
                await asyncio.sleep(0.1)


def _bytes(document: object) -> int:
    """As compact as the API server stores it."""
    return len(json.dumps(document, separators=(",", ":")).encode())


async def test_a_round_of_a_thousand_fits_into_256_kib_at_every_step(stage):
    world = await a_thousand(stage)
    running = await stored(stage, world)
    for number, identity in enumerate(world.live(Role.TRAIN)):
        world.succeeds(identity, metrics=METRICS, samples=12345 + number, seconds=123.456)
    world.settle()
    aggregating = await stored(stage, world)
    assert world.record(1).status.phase == "Aggregating"
    world.all_succeed(Role.AGGREGATE)
    published = await stored(stage, world)
    assert world.record(1).status.phase == "Published"
    assert max(s for s, _ in (running, aggregating, published)) <= 8 * KIB
    assert max(r for _, r in (running, aggregating, published)) <= 256 * KIB
    assert all(p.metrics and p.digest and p.weight for p in world.record(1).status.participants)


async def test_where_all_thousand_evaluate_the_record_fits_into_384_kib(stage):
    world = await a_thousand(stage, evaluation={"by": "Participants"})
    for number, identity in enumerate(world.live(Role.TRAIN)):
        world.succeeds(identity, metrics=METRICS, samples=12345 + number, seconds=123.456)
    world.settle().all_succeed(Role.AGGREGATE)
    for identity in world.live(Role.EVALUATE):
        world.succeeds(identity, metrics=METRICS, samples=100)
    world.settle()
    status, record = await stored(stage, world)
    assert all(e.metrics for e in world.record(1).status.evaluation)
    assert status <= 8 * KIB
    assert record <= 384 * KIB
