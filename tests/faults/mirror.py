"""Everything that is stored, as it is stored: lists and watches of our own at the API server."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from fedoperator.api import GROUP, VERSION
from fedoperator.cluster.api import Api

Object = dict[str, Any]
Name = tuple[str, str]
"""Plural and name."""

WATCHED = {
    "federatedtrainings": f"/apis/{GROUP}/{VERSION}",
    "federatedrounds": f"/apis/{GROUP}/{VERSION}",
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "services": "/api/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "persistentvolumeclaims": "/api/v1",
}


def path(plural: str, namespace: str, *rest: str) -> str:
    prefix = WATCHED.get(plural, "/api/v1")
    return "/".join([prefix, "namespaces", namespace, plural, *rest])


class View:
    """One namespace: what is there, and what ever was."""

    def __init__(self) -> None:
        self.objects: dict[Name, Object] = {}
        self.created: Counter[Name] = Counter()
        self.deleted: Counter[Name] = Counter()
        self.models: dict[tuple[str, int], set[str]] = defaultdict(set)
        """uid and round → every global model that a training's status ever named for it."""
        self.listeners: list[Callable[[str, Name, Object], None]] = []
        self._changed = asyncio.Event()

    def of(self, plural: str) -> dict[str, Object]:
        return {name: it for (kind, name), it in self.objects.items() if kind == plural}

    def get(self, plural: str, name: str) -> Object | None:
        return self.objects.get((plural, name))

    def uids(self) -> set[str]:
        return {it["metadata"]["uid"] for it in self.objects.values()}

    async def until(self, condition: Callable[["View"], Any]) -> None:
        """Limited by whoever waits."""
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    def heard(self, kind: str, name: Name, it: Object) -> None:
        """kind: ADDED, MODIFIED or DELETED. A repetition is none."""
        old = self.objects.get(name)
        uid = it["metadata"]["uid"]
        if kind == "DELETED":
            if old is None or old["metadata"]["uid"] != uid:
                return
            del self.objects[name]
            self.deleted[name] += 1
        else:
            if old is not None and old["metadata"]["uid"] != uid:
                self.heard("DELETED", name, old)
                old = None
            kind = "MODIFIED" if old is not None else "ADDED"
            self.objects[name] = it
            self.created[name] += kind == "ADDED"
        model = (it.get("status") or {}).get("globalModel")
        if name[0] == "federatedtrainings" and model is not None:
            self.models[uid, model["round"]].add(f"{model['path']} {model['digest']}")
        for listener in self.listeners:
            listener(kind, name, it)
        self._changed.set()


class Mirror:
    """All namespaces that somebody wants to see."""

    def __init__(self, api: Api) -> None:
        self._client = api._client
        self.views: dict[str, View] = {}

    async def run(self) -> None:
        context = self._client.rest_client.ssl_context
        async with (
            aiohttp.ClientSession(
                self._client.configuration.host,
                connector=aiohttp.TCPConnector(ssl=context, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for plural in WATCHED:
                group.create_task(self._follow(session, plural))

    async def _follow(self, session: aiohttp.ClientSession, plural: str) -> None:
        everywhere = f"{WATCHED[plural]}/{plural}"
        while True:
            try:
                async with session.get(everywhere) as answer:
                    answer.raise_for_status()
                    listed = await answer.json(content_type=None)
                self._listed(plural, listed["items"])
                version = listed["metadata"]["resourceVersion"]
                query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"}
                async with session.get(everywhere, params=query) as answer:
                    answer.raise_for_status()
                    async for line in lines(answer.content):
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        self._heard(event["type"], plural, event["object"])
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(0.3)  # The API server may be killed, too.

    def _listed(self, plural: str, items: list[Object]) -> None:
        there = {(it["metadata"]["namespace"], it["metadata"]["name"]) for it in items}
        for namespace, view in self.views.items():
            for name, it in view.of(plural).items():
                if (namespace, name) not in there:
                    view.heard("DELETED", (plural, name), it)
        for it in items:
            self._heard("ADDED", plural, it)

    def _heard(self, kind: str, plural: str, it: Object) -> None:
        view = self.views.get(it["metadata"]["namespace"])
        if view is not None:
            view.heard(kind, (plural, it["metadata"]["name"]), it)


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, of any length, as they come."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
