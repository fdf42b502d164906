"""A run on a cluster: a training on an API server, looked at now and then.

Two small reads a second, which survive sleeping laptops and lost connections by being made again;
`fedtrain watch` holds a watch instead, and prints.
"""

import time
from pathlib import Path
from typing import Any, Self

import pydantic

from fedoperator.api import admission
from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Record, record_name
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.cli.follow import problem_of
from fedoperator.cli.server import Server
from fedoperator.local import report
from fedoperator.local.folder import Refused
from fedoperator.notebook.run import Run

_LOOK_SECONDS = 1.0
_REMEDY = "give kubeconfig="
Document = dict[str, Any]


class ClusterRun(Run):
    """The training of this name on a cluster; raises Refused if there is none, or no cluster.

    Leaving a loop over it, or ending the notebook, changes nothing on the cluster: `suspend`,
    `resume` and `delete` do. namespace, kubeconfig, context: as for `FederatedTraining.submit`.
    """

    def __init__(
        self,
        name: str,
        namespace: str | None = None,
        *,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
    ) -> None:
        self._name = name
        self._server = Server(namespace, kubeconfig, context, remedy=_REMEDY)
        self._records: dict[int, Record] = {}
        self._training()

    @classmethod
    def submit(
        cls,
        document: Document,
        *,
        namespace: str | None,
        kubeconfig: str | Path | None,
        context: str | None,
    ) -> Self:
        """Create it; where it exists, change its spec if that differs, as far as it may be."""
        metadata = document["metadata"]
        namespace = namespace or metadata.get("namespace")
        server = Server(namespace, kubeconfig, context, remedy=_REMEDY)
        wanted = {**document, "metadata": {**metadata, "namespace": server.namespace}}
        found = server.get(training_api.PLURAL, metadata["name"])
        if found is None:
            server.create(wanted)
        elif TrainingSpec.model_validate(found["spec"]) != TrainingSpec.model_validate(
            document["spec"]
        ):
            problems = admission.problems(found, wanted)
            if problems:
                raise Refused("\n".join(str(problem) for problem in problems))
            server.replace({**found, "spec": document["spec"]})
        return cls(metadata["name"], server.namespace, kubeconfig=kubeconfig, context=context)

    @property
    def name(self) -> str:
        return self._name

    @property
    def namespace(self) -> str:
        return self._server.namespace

    def suspend(self) -> None:
        """Stop what trains, and keep everything; `resume` goes on with the same round."""
        self._server.patch(self._name, {"spec": {"suspend": True}})

    def resume(self) -> None:
        self._server.patch(self._name, {"spec": {"suspend": False}})

    def delete(self) -> None:
        """The training, its rounds and its pods; the claim with the model on it stays."""
        self._server.delete(self._name)

    def _training(self) -> Training:
        document = self._server.get(training_api.PLURAL, self._name)
        if document is None:
            where = f"in namespace {self.namespace}"
            remedy = "submit it, or name another namespace"
            raise Refused(f"FederatedTraining {self._name} does not exist {where}; {remedy}")
        try:
            return Training.from_object(document)
        except pydantic.ValidationError as error:
            raise Refused(f"{self._name}: {problem_of(error)}") from error

    def _record(self, number: int) -> Record | None:
        if number in self._records:
            return self._records[number]
        document = self._server.get(round_api.PLURAL, record_name(self._name, number))
        if document is None:
            return None
        try:
            record = Record.from_object(document)
        except pydantic.ValidationError as error:
            raise Refused(f"round {number}: {problem_of(error)}") from error
        if report.is_told(record):
            self._records[number] = record  # nothing changes in it any more
        return record

    def _over(self) -> bool:
        return False  # only the training's own phase says so

    def _pause(self) -> None:
        time.sleep(_LOOK_SECONDS)

    def _place(self, model: GlobalModel, exchange: str | Path | None) -> Path:
        if exchange is None:
            claim = self._training().spec.exchange.claim_of(self._name)
            raise Refused(
                f"the model is {model.path} on the claim {claim} in namespace {self.namespace}; "
                "mount that claim where this notebook runs, or copy the folder from a pod that "
                "mounts it (kubectl cp), and name the folder that stands for its root: "
                "model(exchange='/mnt/exchange')"
            )
        return Path(exchange) / model.path
