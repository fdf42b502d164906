"""The operators of one run, kept up as the kubelet would: killed or not, another one starts."""

import asyncio
import itertools
import json
import pathlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedoperator import errors
from fedoperator.cluster.api import Api
from tests.faults.nursery import Nursery, Process, start_plainly
from tests.faults.proxy import Proxy

RIVALS = ("one", "other")
HAND_OVER = 2.5
"""Seconds between two hand-overs of the lease; one has it for a renewal, which comes every two."""


@dataclass(kw_only=True)
class Operators:
    """One that is `plainly` started or forked; or two `rivals`. says: to the run's story."""

    nursery: Nursery
    namespace: str
    token: str
    folder: pathlib.Path
    plainly: bool
    rivals: bool
    says: Callable[[str], None]
    wrong: list[str] = field(default_factory=list)
    _identity: int = 0
    _running: dict[str, Process] = field(default_factory=dict)

    @property
    def log(self) -> str:
        """Of all that ever ran."""
        path = self.folder / "operator.log"
        return path.read_text() if path.exists() else ""

    def parts(self, api: Api, proxy: Proxy, server: str) -> Sequence[Coroutine[Any, Any, None]]:
        """What is to run side by side. server: where the proxy listens."""
        (self.folder / "kubeconfig").write_text(json.dumps(_kubeconfig(server, self.token)))
        if not self.rivals:
            return [self._keep("operator", proxy)]
        return [*(self._keep(name, proxy) for name in RIVALS), self._hand_over(api, proxy)]

    def kill(self, stranger: bool) -> None:
        """Whoever runs; the next has another identity if that is to be a stranger's."""
        self._identity += stranger
        for operator in self._running.values():
            operator.kill()

    async def _keep(self, name: str, proxy: Proxy) -> None:
        """One after the other."""
        try:
            while True:
                if not self.rivals:
                    proxy.restarted()
                operator = self._running[name] = await self._started(name)
                self.says(f"{name} starts")
                code = await asyncio.shield(operator.ended)
                self.says(f"{name} ended with {code}")
                if code != -9:
                    # What it was answered may end it, and that its lease is another's.
                    if not proxy.misled and not self.rivals:
                        self.wrong.append(f"{name} ended by itself with {code}")
                    await asyncio.sleep(0.5)
        finally:
            for operator in self._running.values():
                operator.kill()

    async def _started(self, name: str) -> Process:
        environment = {
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "FEDTRAIN_CONTROLLER_IMAGE": "ctl:1",
            "FEDTRAIN_HOST": "127.0.0.1",
            "FEDTRAIN_PORT": "0",
            "FEDTRAIN_NAMESPACE": self.namespace,
            "FEDTRAIN_LEASE_NAMESPACE": self.namespace,
            "FEDTRAIN_IDENTITY": f"{name}-{self._identity}",
        }
        log = self.folder / "operator.log"
        if self.plainly:
            return await start_plainly(environment, log)
        return await self.nursery.start("operator", environment, log)

    async def _hand_over(self, api: Api, proxy: Proxy) -> None:
        """The lease goes to the other one now and then; who had it learns that late."""
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        for heir in itertools.cycle(RIVALS):
            await asyncio.sleep(HAND_OVER)
            try:
                lease = await api.request("GET", f"{leases}/fedtrain-operator")
                lease["spec"]["holderIdentity"] = f"{heir}-0"
                await api.request("PUT", f"{leases}/fedtrain-operator", lease)
            except (errors.Conflict, errors.Gone, errors.Unavailable):
                continue
            self.says(f"the lease goes to {heir}")
            proxy.hit.append(f"the lease went to {heir}")


def _kubeconfig(server: str, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "proxy", "user": "operator"}}],
        "current-context": "it",
    }
