"""The transport: one request to the API server, with dict bodies and typed errors.

`kubernetes.aio` brings configuration, credentials and their renewal, TLS and connections. Its
typed models are left alone: they cost 4 to 13 times the CPU and drop fields they do not know.
"""

import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as kubernetes_config

from fedoperator import errors
from fedoperator.cluster import nesting

Configuration = kubernetes.Configuration
Object = dict[str, Any]
Told = Callable[[str, str, str, float], None]
"""(verb, resource, code, seconds) of every request; code 0 where no answer came."""

JSON = "application/json"

TIMEOUT = 10.0
"""Seconds for one request, connection included."""


async def configuration(kubeconfig: Path | None = None) -> kubernetes.Configuration:
    """Of that kubeconfig; else, in a pod, its service account; else KUBECONFIG, ~/.kube/config.

    Raises kubernetes.aio.config.ConfigException if there is none of these.
    """
    loaded, load = kubernetes.Configuration(), _untyped(kubernetes_config)
    if kubeconfig is not None:
        await load.load_kube_config(str(kubeconfig), client_configuration=loaded)
    else:
        try:
            load.load_incluster_config(client_configuration=loaded)
        except kubernetes_config.ConfigException:
            await load.load_kube_config(client_configuration=loaded)
    loaded.proxy, loaded.client_session_kwargs = proxy(loaded), {"trust_env": False}
    return loaded


def proxy(loaded: kubernetes.Configuration) -> str | None:
    """The proxy to the API server: the configuration's, else the environment's, if any.

    Asked for once. A session that trusts the environment reads it, and ~/.netrc in a thread, at
    every request, which cost a sixth of the operator's time.
    """
    if loaded.proxy:
        return str(loaded.proxy)
    url = urllib.parse.urlsplit(loaded.host)
    if urllib.request.proxy_bypass(url.hostname or ""):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _untyped(thing: Any) -> Any:
    """Parts of the client are annotated, and parts are not."""
    return thing


class Api:
    """A session with the API server. Make and close it inside the event loop that uses it."""

    def __init__(self, loaded: kubernetes.Configuration, told: Told | None = None) -> None:
        self._client = _untyped(kubernetes.ApiClient(loaded))
        self._client.user_agent = "fedtrain-operator"
        self.told: Told = told or (lambda verb, resource, code, seconds: None)
        self.answered_at = float("-inf")
        """When the server last answered anything, on time.monotonic's clock."""

    async def close(self) -> None:
        await self._client.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
    ) -> Object:
        """The answer's document. Raises a ClusterError for anything but success."""
        resource, started, code = _resource(path), time.monotonic(), 0
        try:
            code, text = await self._send(method, path, body, query, accept)
            self.answered_at = time.monotonic()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            raise errors.Unavailable(f"{method} {path}: no answer ({said})") from error
        finally:
            self.told(method, resource, str(code), time.monotonic() - started)
        try:
            document = nesting.loads(text) if text else {}
        except ValueError:
            document = {"message": text[:500].decode(errors="replace")}
        if not isinstance(document, dict):
            document = {"message": str(document)[:500]}
        if code >= 400:
            raise _error(code, document, f"{method} {path}")
        return document

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str] | None,
        accept: str,
    ) -> tuple[int, bytes]:
        url = self._client.configuration.host + path
        if query:
            url = f"{url}?{urllib.parse.urlencode(query)}"
        headers = {**self._client.default_headers, "Accept": accept}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        response = await self._client.rest_client.request(
            method,
            url,
            headers=headers,
            body=body,
            _request_timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        )
        return int(response.status), await response.read()


def _resource(path: str) -> str:
    """The plural in a path, with its subresource: a metric label with few values."""
    parts = path.strip("/").split("/")
    below = parts[2:] if parts[0] == "api" else parts[3:]
    if below[:1] == ["namespaces"] and len(below) > 2:
        below = below[2:]
    return "/".join([*below[:1], *below[2:3]]) or path


def _error(code: int, status: Mapping[str, Any], request: str) -> errors.ClusterError:
    """The API server's sentence in the class that says what to do about it."""
    said = str(status.get("message") or "") or f"{request} was answered with {code}"
    if code in (404, 410):
        return errors.Gone(said)
    if code == 409:
        exists = status.get("reason") == "AlreadyExists"
        return errors.AlreadyExists(said) if exists else errors.Conflict(said)
    if code == 429 or code >= 500:
        return errors.Unavailable(f"{request}: {code} {said}")
    return errors.Refused(said)
