"""A document taken as an API server would: checked, then a new training or a changed one."""

import uuid
from typing import Any

from fedoperator.api import admission
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.local.folder import NAMESPACE, Refused


def checked(document: dict[str, Any], old: Training | None) -> Training:
    """The training that the document asks for, given the one there is. Raises Refused."""
    before = None
    if old is not None and old.status.started_at is not None:
        before = {"spec": old.spec.to_dict(), "status": old.status.to_dict()}
    problems = admission.problems(before, document)
    if problems:
        raise Refused("\n".join(str(problem) for problem in problems))
    name = document["metadata"].get("name")
    if name is None:
        raise Refused("metadata.name: is missing; generateName is for clusters only")
    spec = TrainingSpec.model_validate(document["spec"])
    if old is None:
        uid = str(uuid.uuid4())
        return Training(name=name, namespace=NAMESPACE, uid=uid, generation=1, spec=spec)
    if old.name != name:
        raise Refused(f"--out holds the training {old.name}; use another folder for {name}")
    if old.spec.to_dict() == spec.to_dict():
        return old
    if old.status.terminal:
        end = f"has {old.status.phase.lower()} after {old.status.progress} rounds"
        remedy = "use another --out; spec.model starts from its model"
        raise Refused(f"--out holds {name}, which {end} and never starts again; {remedy}")
    return old.model_copy(update={"spec": spec, "generation": old.generation + 1})
