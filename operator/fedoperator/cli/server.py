"""The few requests that a person's program makes, to one namespace of one API server."""

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import kubernetes
import urllib3.exceptions

from fedoperator import api
from fedoperator.api import training as training_api
from fedoperator.cluster import nesting
from fedoperator.local.folder import Refused

_client: Any = kubernetes
"""Parts of it are annotated, and parts are not."""

_TIMEOUT = (10, 30)
_CHUNK = 50
"""Objects of one answer to a list of metadata."""
_JSON = "application/json"
_METADATA = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PASSING = (None, 0, 429, 500, 502, 503, 504)
_PATIENCE = 300.0
"""Seconds without an answer, after there have been some, before a look gives up."""

T = TypeVar("T")
Document = dict[str, Any]
GROUP = f"/apis/{api.GROUP}/{api.VERSION}"


class Server:
    """namespace: that of the kubeconfig's context if left out. kubeconfig: a file; KUBECONFIG,
    ~/.kube/config or, in a pod, its service account if left out. Raises Refused, here and in every
    request, in one sentence.
    """

    def __init__(
        self,
        namespace: str | None = None,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        *,
        remedy: str = "set KUBECONFIG",
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
            raise Refused(f"no cluster to ask ({sentence}); {remedy}") from error
        loaded.retries = False  # a connection that is refused is said at once
        self.namespace: str = namespace or named
        self.client = _client.client.ApiClient(loaded)
        self._answered = False

    def get(self, plural: str, name: str) -> Document | None:
        """One of ours; None if there is none. Where there have been answers, lost ones are waited
        for."""
        until, pause = time.monotonic() + (_PATIENCE if self._answered else 0.0), 1.0
        while True:
            try:
                found: Document = self._request("GET", self.ours(plural, name))
                self._answered = True
                return found
            except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                status = getattr(error, "status", None)
                if status == 404:
                    self._answered = True
                    return None
                if status not in _PASSING or time.monotonic() > until:
                    raise refused(error) from error
                time.sleep(pause)
                pause = min(2 * pause, 30.0)

    def create(self, document: Document) -> Document:
        """A training."""
        return self.post(self.ours(), document)

    def replace(self, document: Document) -> Document:
        path = self.ours(name=document["metadata"]["name"])
        return _once(lambda: self._request("PUT", path, body=document))

    def patch(self, name: str, change: Mapping[str, Any]) -> Document:
        """Merge this into the training of that name."""
        kind = "application/merge-patch+json"
        return _once(lambda: self._request("PATCH", self.ours(name=name), body=change, kind=kind))

    def delete(self, name: str) -> None:
        _once(lambda: self._request("DELETE", self.ours(name=name)))

    def ours(self, plural: str = training_api.PLURAL, name: str = "") -> str:
        """The path of our resources in the namespace."""
        return f"{GROUP}/namespaces/{self.namespace}/{plural}/{name}".rstrip("/")

    def core(self, plural: str, name: str = "") -> str:
        """The path of resources of the core group in the namespace."""
        return f"/api/v1/namespaces/{self.namespace}/{plural}/{name}".rstrip("/")

    def read(self, path: str, **query: str) -> Document | None:
        """Any object; None if there is none."""
        try:
            found: Document = self._request("GET", path, query)
            return found
        except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            if getattr(error, "status", None) == 404:
                return None
            raise refused(error) from error

    def list(self, path: str, **query: str) -> list[Document]:
        """All objects of a list; none where the server does not know the kind."""
        found = self.read(path, **query)
        return [] if found is None else list(found["items"])

    def metadata(self, path: str) -> Iterator[Document]:
        """The metadata, and no more, of all objects of a list."""
        query = {"limit": str(_CHUNK)}
        while True:
            asked = functools.partial(self._request, "GET", path, query, accept=_METADATA)
            answer: Document = _once(asked)
            yield from (item["metadata"] for item in answer.get("items") or [])
            rest = (answer.get("metadata") or {}).get("continue")
            if not rest:
                return
            query = {**query, "continue": rest}

    def post(self, path: str, document: Document) -> Document:
        return _once(lambda: self._request("POST", path, body=document))

    def remove(self, path: str) -> None:
        """Delete any object; it may be gone already."""
        query = {"propagationPolicy": "Background"}
        try:
            self._request("DELETE", path, query)
        except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            if getattr(error, "status", None) != 404:
                raise refused(error) from error

    def stream(self, path: str, **query: str) -> Any:
        """The answer's bytes as they come: a urllib3 response to iterate over and to close."""
        return _once(lambda: self._request("GET", path, query, accept="*/*", stream=True))

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        kind: str = _JSON,
        accept: str = _JSON,
        stream: bool = False,
    ) -> Any:
        method, url, headers, sent, _ = self.client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": accept} | ({} if body is None else {"Content-Type": kind}),
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self.client.call_api(
            method,
            url,
            header_params=headers,
            body=sent,
            _request_timeout=(10, None) if stream else _TIMEOUT,
        )
        if stream and answer.status < 400:
            return answer.response
        text = answer.read()
        if answer.status >= 400:
            raise _client.client.ApiException(status=answer.status, reason=answer.reason, body=text)
        return document(text)


def document(text: bytes) -> Document:
    """An answer; what others have nested too deep in it is left out. Raises Refused."""
    try:
        found = nesting.loads(text)
    except ValueError as error:
        raise Refused("the API server cannot be understood: it answers no JSON") from error
    if not isinstance(found, dict):
        raise Refused("the API server cannot be understood: it answers no object")
    return found


def _once(act: Callable[[], T]) -> T:
    """What changes something, or is looked at again anyway, is asked for once."""
    try:
        return act()
    except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        raise refused(error) from error


def refused(error: Exception) -> Refused:
    """What the server, or the way to it, said, as a sentence."""
    status = getattr(error, "status", None)
    if status is None:
        return Refused(f"the API server cannot be reached: {error}")
    said = _message(getattr(error, "body", None)) or getattr(error, "reason", "")
    return Refused(f"the API server refuses: {status} {said}")


def _message(body: object) -> str:
    """The message of a Status that the server answered with."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        return str(nesting.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _namespace(file: str | None, context: str | None) -> str:
    """Of the context; default if it names none."""
    contexts, active = _client.config.list_kube_config_contexts(file)
    chosen = next((c for c in contexts if c["name"] == context), active)
    named: str = chosen.get("context", {}).get("namespace") or "default"
    return named
