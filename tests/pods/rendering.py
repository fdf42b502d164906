"""All the pods that a FederatedTraining may come to, whatever role they have."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Assignment, Candidate, Record, RoundSpec, RoundStatus
from fedoperator.api.training import Training
from fedoperator.rounds import jobs, resident
from fedoperator.rounds.workloads import Workload, workload
from fedtrain.contract import Role

Object = dict[str, Any]
MODEL = GlobalModel(round=2, path="digits-1a2b3c4d/global/2/1/model.safetensors", digest="sha256:0")


def training_of(document: Object) -> Training:
    """As the operator reads it."""
    about = {"namespace": "ours", "uid": "1a2b3c4d-0000", "name": "digits"}
    document = {**document, "metadata": {**document["metadata"], **about}}
    training = Training.from_object(copy.deepcopy(document))
    return training.model_copy(
        update={"status": training.status.model_copy(update={"global_model": MODEL})}
    )


def workloads(training: Training, sites: int | None = None) -> Iterator[Workload]:
    """Of every role, for each of the first sites."""
    names = [site.name for site in training.spec.sites]
    status = RoundStatus(global_model=MODEL, candidates=[Candidate(name=names[0], attempt=1)])
    spec = RoundSpec(training=training.name, round=3, generation=1, invited=names)
    record = Record(name=f"{training.name}-00003", spec=spec, status=status)
    for role in Role:
        own = role in (Role.PREPARE, Role.AGGREGATE)
        for name in [""] if own else names[:sites]:
            made = workload(training, record, role, Assignment(name=name))
            assert made is not None
            yield replace(made, stays=True) if resident.stays(training.spec, role) else made


def job_of(made: Workload) -> Object:
    return jobs.objects(made, "controller:1")[-1]


def pod_of(job: Object) -> Object:
    """As the Job controller makes it from the template."""
    template = copy.deepcopy(job["spec"]["template"])
    return {"apiVersion": "v1", "kind": "Pod", **template}
