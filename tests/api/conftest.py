"""Builders: trainings as plain documents."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

Document = dict[str, Any]


def _a_training(*, name: str = "digits", **spec: Any) -> Document:
    """A valid training of two participants; what is given replaces a field of its spec."""
    default = {
        "rounds": 3,
        "trainer": {"image": "registry.example/digits:1", "command": ["torchrun", "train.py"]},
        "participants": [{"name": "north"}, {"name": "south"}],
        "exchange": {"size": "1Gi"},
    }
    return {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": name},
        "spec": copy.deepcopy(default | spec),
    }


def _started(document: Document) -> Document:
    return {**document, "status": {"round": 0, "phase": "Pending"}}


@pytest.fixture(scope="session")
def a_training() -> Callable[..., Document]:
    return _a_training


@pytest.fixture(scope="session")
def started() -> Callable[[Document], Document]:
    """The training as the operator leaves it after its first look."""
    return _started


@pytest.fixture(scope="session")
def the_design_example() -> Document:
    """Everything that design section 3 shows and that this version has."""
    return _a_training(
        rounds=10,
        stop={"metric": "accuracy", "target": 0.97, "patience": 3, "mode": "Max", "of": "Worst"},
        strategy={"name": "FedAdam", "learningRate": 0.01, "normBound": 10},
        selection={"fraction": 0.6, "minimum": 2, "seed": 7},
        quorum={"minimum": 2, "deadline": "30m", "onMiss": "Retry"},
        weight={"by": "Samples", "max": 100000},
        aggregation={
            "shards": 2,
            "precision": "Float64",
            "resources": {"limits": {"memory": "2Gi"}},
        },
        compression={"codec": "Int8", "block": 256},
        retries=2,
        trainer={
            "image": "registry.example/digits:1",
            "command": ["torchrun", "train.py"],
            "env": [
                {"name": "NCCL_DEBUG", "value": "INFO"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
            ],
            "resources": {"limits": {"nvidia.com/gpu": 4, "memory": "64Gi"}},
            "nodes": 2,
            "processesPerNode": 4,
            "terminationGracePeriodSeconds": 120,
            "hangTimeout": "10m",
        },
        optimizerState="Keep",
        participants=[
            {
                "name": "hospital-a",
                "trainer": {"nodes": 1, "resources": {"limits": {"nvidia.com/gpu": 8}}},
                "data": {"claimName": "hospital-a-data", "mountPath": "/data"},
                "scratch": {"claimName": "hospital-a-work"},
            },
            {"name": "hospital-b", "data": {"claimName": "hospital-b-data"}},
            {"name": "hospital-c"},
        ],
        model={"init": {}},
        parameters={"lr": 0.05, "localEpochs": 5, "betas": [0.9, 0.95], "note": None},
        exchange={"claimName": "exchange"},
        evaluation={"by": "Participants", "every": 1, "lessIsBetter": ["loss"]},
        personalization={"fineTune": {"parameters": {"lr": 0.01}}},
        keep={"last": 5, "updates": 2, "best": 1, "metric": "accuracy"},
        history=100,
        security={"runAsUser": None, "runAsGroup": None, "fsGroup": 1000},
        network={"policy": "Strict", "egress": [{"cidr": "10.20.0.0/16", "ports": [443]}]},
        suspend=False,
    )
