"""kopf as eyes: it watches FederatedTrainings and our Jobs, and wakes keys. It writes nothing.

Only `on.event` handlers, so kopf adds no finalizer and no annotation; no index, timer, daemon or
peering. It runs in a thread with a loop of its own, as kopf's manual has it for embedding: on its
way out kopf cancels every task of its loop, and the lease is to be released after that.
"""

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import kopf
from kubernetes.aio import client as kubernetes

from fedoperator.api import GROUP, VERSION
from fedoperator.api import training as training_api
from fedoperator.cluster import answers
from fedoperator.cluster.workqueue import Key
from fedoperator.rounds import news, observed

SERVER_TIMEOUT = 300
"""Seconds after which the API server ends a watch, and kopf asks for the next one."""

GRACE = 150
"""Seconds beyond SERVER_TIMEOUT after which a watch that was not asked for again is stuck."""

STREAMS = (training_api.PLURAL, "jobs")


class Watch:
    """The eyes. wake: called in the thread of `loop`, whichever watches."""

    def __init__(
        self,
        configuration: kubernetes.Configuration,
        wake: Callable[[Key], None],
        loop: asyncio.AbstractEventLoop,
        namespace: str = "",
    ) -> None:
        self._configuration = configuration
        self._wake = wake
        self._loop = loop
        self._namespace = namespace
        self._stop = threading.Event()
        self._told_to_stop = False
        self._opened: dict[str, float] = {}

    @property
    def started(self) -> bool:
        """Whether every stream has been open."""
        return all(stream in self._opened for stream in STREAMS)

    def ages(self) -> Mapping[str, float]:
        """Seconds since each stream was last opened; only of those that ever were.

        An idle cluster sends nothing for minutes. But the API server ends every watch after
        SERVER_TIMEOUT, and kopf opens one from which not even a bookmark came for 70 s anew: so a
        watch that lives is opened again at least every SERVER_TIMEOUT.
        """
        now = time.monotonic()
        return {stream: now - opened for stream, opened in list(self._opened.items())}

    def stale(self) -> str | None:
        """Which stream is stuck, as a sentence; None if none is."""
        for stream, age in self.ages().items():
            if age > SERVER_TIMEOUT + GRACE:
                return f"the watch of {stream} was last opened {age:.0f} s ago"
        return None

    async def run(self) -> None:
        """Watch until cancelled. Raises whatever ends kopf, which nothing should."""
        ended: asyncio.Future[None] = self._loop.create_future()
        thread = threading.Thread(target=self._thread, args=(ended,), name="watch", daemon=True)
        thread.start()
        try:
            await ended
        finally:
            self._told_to_stop = True
            self._stop.set()

    def _thread(self, ended: "asyncio.Future[None]") -> None:
        """Carry whatever ends kopf into the loop that waits: a thread would swallow it."""
        error: BaseException | None = None
        try:
            asyncio.run(self._watch())
        except BaseException as caught:
            error = caught
        if self._told_to_stop:
            return
        error = error or RuntimeError("kopf ended by itself")
        self._loop.call_soon_threadsafe(_fail, ended, RuntimeError(f"the watch ended: {error!r}"))

    async def _watch(self) -> None:
        everywhere = not self._namespace
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=_settings(),
                standalone=True,
                clusterwide=everywhere,
                namespaces=() if everywhere else (self._namespace,),
                stop_flag=self._stop,
            )
        finally:
            # A thread of this loop waits for it: the loop would never close.
            self._stop.set()

    def _registry(self) -> kopf.OperatorRegistry:
        """A plain one: kopf's default would import the synchronous client to log in."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        kopf.on.event(GROUP, VERSION, training_api.PLURAL, registry=registry)(self._on_training)
        kopf.on.event("batch", "v1", "jobs", registry=registry)(self._on_job)
        return registry

    async def _on_training(
        self, type: str | None, namespace: str | None, name: str | None, body: kopf.Body, **_: Any
    ) -> None:
        if type != "MODIFIED" or news.of_training(body):
            self._tell(namespace, name)

    async def _on_job(
        self, type: str | None, namespace: str | None, body: Mapping[str, Any], **_: Any
    ) -> None:
        """A Job that is gone is news; and with the first list nothing was made by us just now."""
        if type in (None, "DELETED") or news.of_job(body):
            labels = body["metadata"].get("labels") or {}
            self._tell(namespace, labels.get(observed.TRAINING_LABEL))

    def _tell(self, namespace: str | None, training: str | None) -> None:
        if namespace and training:
            self._loop.call_soon_threadsafe(self._wake, (namespace, training))

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """A session of our own: it renews the token of the service account at every request."""
        configuration = self._configuration
        rest = kubernetes.ApiClient(configuration).rest_client
        context: ssl.SSLContext = rest.ssl_context

        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            token = await configuration.get_api_key_with_prefix("BearerToken")
            if token:
                request.headers["Authorization"] = token
            response = await handler(request)
            if request.url.query.get("watch") and response.status == 200:
                self._opened[request.url.name] = time.monotonic()
            return response

        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers={"User-Agent": "fedtrain-operator"},
            proxy=configuration.proxy,
            middlewares=(authorize,),
            response_class=answers.Response,
        )
        return kopf.AiohttpSession(server=configuration.host, aiohttp_session=session)


class _Nothing(kopf.DiffBaseStorage):
    """What kopf would compare an object with: handlers that never ask save a copy of each event."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise NotImplementedError("nothing is kept on an object")


def _fail(ended: "asyncio.Future[None]", error: Exception) -> None:
    if not ended.done():
        ended.set_exception(error)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.peering.standalone = True
    # Neither namespaces nor CRDs are watched for: the caller has seen that ours is there.
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_TIMEOUT
    settings.watching.client_timeout = SERVER_TIMEOUT + 15
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1
    settings.watching.chunk_size = 50  # each may have a megabyte
    settings.watching.label_selectors["batch", "v1", "jobs"] = observed.TRAINING_LABEL
    settings.networking.request_timeout = 20
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.persistence.diffbase_storage = _Nothing()
    settings.queueing.error_delays = (1, 2, 5, 10, 30, 60)
    settings.execution.executor.shutdown(wait=False)  # Handlers are coroutines.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # It misses the signals of the main thread, which are not for it.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    return settings
