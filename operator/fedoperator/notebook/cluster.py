"""A run on a cluster: a training on an API server, looked at now and then.

Two small reads a second, which survive sleeping laptops and lost connections by being made again;
`fedtrain watch` holds a watch instead, and prints.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import kubernetes
import pydantic
import urllib3.exceptions

from fedoperator import api
from fedoperator.api import admission
from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Record, record_name
from fedoperator.api.training import Training, TrainingSpec
from fedoperator.cli.follow import problem_of
from fedoperator.local import report
from fedoperator.local.folder import Refused
from fedoperator.notebook.run import Run

_client: Any = kubernetes
"""Parts of it are annotated, and parts are not."""

_LOOK_SECONDS = 1.0
_TIMEOUT = (10, 30)
_PASSING = (None, 0, 429, 500, 502, 503, 504)
_PATIENCE = 300.0
"""Seconds without an answer, after there have been some, before a look gives up."""

T = TypeVar("T")
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
        self._server = _Server(namespace, kubeconfig, context)
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
        server = _Server(namespace or metadata.get("namespace"), kubeconfig, context)
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


class _Server:
    """The few requests of a run, to one namespace."""

    def __init__(
        self, namespace: str | None, kubeconfig: str | Path | None, context: str | None
    ) -> None:
        file = str(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG")
        loaded = _client.client.Configuration()
        try:
            if file is None and "KUBERNETES_SERVICE_HOST" in os.environ and context is None:
                _client.config.load_incluster_config(client_configuration=loaded)
                named = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text()
            else:
                _client.config.load_kube_config(file, context=context, client_configuration=loaded)
                named = _namespace(file, context)
        except (_client.config.ConfigException, OSError) as error:
            sentence = f"{error}".rstrip(".")
            raise Refused(f"no cluster to ask ({sentence}); give kubeconfig=") from error
        self.namespace: str = namespace or named
        self._answered = False
        self._objects = _client.client.CustomObjectsApi(_client.client.ApiClient(loaded))

    def get(self, plural: str, name: str) -> Document | None:
        """None if there is none. Where there have been answers, lost ones are waited for."""
        until, pause = time.monotonic() + (_PATIENCE if self._answered else 0.0), 1.0
        while True:
            try:
                found: Document = self._objects.get_namespaced_custom_object(
                    api.GROUP, api.VERSION, self.namespace, plural, name, _request_timeout=_TIMEOUT
                )
                self._answered = True
                return found
            except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                status = getattr(error, "status", None)
                if status == 404:
                    self._answered = True
                    return None
                if status not in _PASSING or time.monotonic() > until:
                    raise _refused(error) from error
                time.sleep(pause)
                pause = min(2 * pause, 30.0)

    def create(self, document: Document) -> None:
        _once(lambda: self._objects.create_namespaced_custom_object(*self._of(), document))

    def replace(self, document: Document) -> None:
        name = document["metadata"]["name"]
        _once(lambda: self._objects.replace_namespaced_custom_object(*self._of(), name, document))

    def patch(self, name: str, change: Mapping[str, Any]) -> None:
        _once(lambda: self._objects.patch_namespaced_custom_object(*self._of(), name, change))

    def delete(self, name: str) -> None:
        _once(lambda: self._objects.delete_namespaced_custom_object(*self._of(), name))

    def _of(self) -> tuple[str, str, str, str]:
        return api.GROUP, api.VERSION, self.namespace, training_api.PLURAL


def _once(act: Callable[[], T]) -> T:
    """What changes something is asked for once."""
    try:
        return act()
    except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> Refused:
    status = getattr(error, "status", None)
    if status is None:
        return Refused(f"the API server cannot be reached: {error}")
    said = _message(getattr(error, "body", None)) or getattr(error, "reason", "")
    return Refused(f"the API server refuses: {status} {said}")


def _message(body: object) -> str:
    """The message of a Status that the server answered with."""
    try:
        return str(json.loads(str(body))["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _namespace(file: str | None, context: str | None) -> str:
    """Of the context; default if it names none."""
    contexts, active = _client.config.list_kube_config_contexts(file)
    chosen = next((c for c in contexts if c["name"] == context), active)
    named: str = chosen.get("context", {}).get("namespace") or "default"
    return named
