"""The garbage collector: what nobody owns any more goes, as the real one does it in the background.

A deletion in the foreground keeps its object until those are gone that block it.
"""

import asyncio
from typing import Any

from fedoperator import errors
from fedoperator.cluster.api import Api
from tests.faults.mirror import Name, Object, View, path

_FOREGROUND = "foregroundDeletion"
_OWNERS = {"FederatedTraining": "federatedtrainings", "Job": "jobs"}


class Collector:
    """Of one namespace."""

    def __init__(self, api: Api, namespace: str, view: View) -> None:
        self._api, self._namespace, self._view = api, namespace, view
        self._dirty = asyncio.Event()
        view.listeners.append(lambda *_: self._dirty.set())

    async def run(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            for name, it in list(self._view.objects.items()):
                try:
                    await self._collect(name, it)
                except errors.Unavailable:
                    await asyncio.sleep(0.3)
                    self._dirty.set()

    async def _collect(self, name: Name, it: Object) -> None:
        meta = it["metadata"]
        if _FOREGROUND in meta.get("finalizers", ()) and "deletionTimestamp" in meta:
            if not any(_blocks(other, meta["uid"]) for other in self._view.objects.values()):
                await self._let_go(name, it)
            return
        owners = [r for r in meta.get("ownerReferences", ()) if r["kind"] in _OWNERS]
        if "deletionTimestamp" in meta or not owners:
            return
        if all([await self._is_gone(owner) for owner in owners]):
            await self._delete(name, meta["uid"])

    async def _is_gone(self, reference: Object) -> bool:
        """Asked of the server itself, as the real one does: our view may be late."""
        if reference["uid"] in self._view.uids():
            return False
        where = path(_OWNERS[reference["kind"]], self._namespace, reference["name"])
        try:
            there = await self._api.request("GET", where)
        except errors.Gone:
            return True
        return bool(there["metadata"]["uid"] != reference["uid"])

    async def _delete(self, name: Name, uid: str) -> None:
        options: dict[str, Any] = {
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._api.request("DELETE", path(name[0], self._namespace, name[1]), options)
        except (errors.Gone, errors.Conflict):
            return

    async def _let_go(self, name: Name, it: Object) -> None:
        left = [f for f in it["metadata"]["finalizers"] if f != _FOREGROUND]
        changed = {**it, "metadata": {**it["metadata"], "finalizers": left}}
        try:
            await self._api.request("PUT", path(name[0], self._namespace, name[1]), changed)
        except (errors.Gone, errors.Conflict):
            return


def _blocks(other: Object, uid: str) -> bool:
    references = other["metadata"].get("ownerReferences", ())
    return any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in references)
