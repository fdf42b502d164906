"""A file taken as an API server would take it: checked, then a new training or a changed one."""

import uuid
from pathlib import Path
from typing import Any

import yaml

from fedoperator.api import admission
from fedoperator.api import training as training_api
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.local.folder import NAMESPACE, Refused


def document(path: Path) -> dict[str, Any]:
    """The one FederatedTraining of a YAML file. Raises Refused."""
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d is not None]
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not YAML: {error}") from error
    kinds = [d.get("kind") if isinstance(d, dict) else None for d in documents]
    found = [d for d, kind in zip(documents, kinds, strict=True) if kind == training_api.KIND]
    if len(found) == 1:
        return found[0]  # type: ignore[no-any-return]
    if len(documents) == 1 and isinstance(documents[0], dict):
        return documents[0]  # of a wrong kind, which admission says better
    raise Refused(f"{path} holds {len(found)} FederatedTrainings; write one")


def checked(path: Path, old: Training | None) -> Training:
    """The training of the file, as a new one or as a change of the old. Raises Refused."""
    new = document(path)
    before = None
    if old is not None and old.status.started_at is not None:
        before = {"spec": old.spec.to_dict(), "status": old.status.to_dict()}
    problems = admission.problems(before, new)
    if problems:
        raise Refused("\n".join(f"{path}: {problem}" for problem in problems))
    name, spec = str(new["metadata"].get("name") or ""), TrainingSpec.model_validate(new["spec"])
    if not name:
        raise Refused(f"{path}: metadata.name: is missing; generateName is for clusters only")
    if old is None:
        uid = str(uuid.uuid4())
        return Training(name=name, namespace=NAMESPACE, uid=uid, generation=1, spec=spec)
    if old.name != name:
        raise Refused(f"--out holds the training {old.name}; use another folder for {name}")
    if old.spec.to_dict() == spec.to_dict():
        return old
    return old.model_copy(update={"spec": spec, "generation": old.generation + 1})
