"""Who may write: the holder of a Lease, as client-go's leader election does it.

Clocks of other machines are not trusted: a lease is over when it has not changed for its own
duration on *our* clock. The election that the kubernetes client ships writes local time as UTC,
puts no limit on a request and cannot release, so this is our own.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime

from fedoperator import errors
from fedoperator.cluster.api import Api, Object

DURATION = 15
"""Seconds for which others respect a lease that is not renewed."""

DEADLINE = 10.0
"""Seconds without a renewal after which the holder stops: well before others may start."""

RETRY = 2.0
"""Seconds between tries, and between renewals."""

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another process may lead now: end this one, without finishing anything."""


class Leader:
    """One candidate for the lease `name`."""

    def __init__(self, api: Api, *, namespace: str, name: str, identity: str) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace, self._name, self._identity = namespace, name, identity
        self._lease: Object | None = None
        self._observed_at = float("-inf")
        self._renewed_at = float("-inf")
        self._tried_at = time.monotonic()
        self._released = False

    @property
    def leads(self) -> bool:
        """Whether the lease is surely ours at this moment."""
        return not self._released and time.monotonic() - self._renewed_at < DEADLINE

    @property
    def stands_by(self) -> bool:
        """Whether this candidate still tries."""
        return time.monotonic() - self._tried_at < 3 * DEADLINE

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        while True:
            if await self._try():
                break
            await asyncio.sleep(RETRY)
        log.info("lease acquired", extra={"identity": self._identity, "lease": self._name})

    async def keep(self) -> None:
        """Renew for ever. Raises LeaseLost."""
        while True:
            await asyncio.sleep(RETRY)
            if not await self._try() and not self.leads:
                raise LeaseLost(f"lease {self._name} was not renewed for {DEADLINE:.0f} s")

    async def release(self) -> None:
        """Let the next one take over at once; best effort."""
        if not self.leads or self._lease is None:
            return
        self._released = True
        try:
            try:
                await self._put(self._nobodys(self._lease))
            except errors.Conflict:
                # A renewal that was cancelled on its way here may have arrived all the same.
                lease = await self._api.request("GET", f"{self._path}/{self._name}")
                if lease["spec"].get("holderIdentity") == self._identity:
                    await self._put(self._nobodys(lease))
            log.info("lease released", extra={"identity": self._identity})
        except errors.ClusterError as error:
            log.warning("lease not released", extra={"said": str(error)})

    async def _try(self) -> bool:
        """Acquire or renew once; whether the lease is ours now."""
        started = self._tried_at = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE / 2):
                ours = await self._acquire_or_renew()
        except (errors.ClusterError, TimeoutError) as error:
            if not isinstance(error, errors.Conflict):
                log.warning("lease not renewed", extra={"said": str(error) or "no answer"})
            return False
        if ours:
            self._renewed_at = started
        return ours

    async def _acquire_or_renew(self) -> bool:
        if self.leads and self._lease is not None:
            try:
                self._observe(await self._put(self._ours(self._lease)))
                return True
            except errors.Conflict:
                pass  # Somebody wrote to it: see who it belongs to.
        try:
            self._observe(await self._api.request("GET", f"{self._path}/{self._name}"))
        except errors.Gone:
            self._observe(await self._api.request("POST", self._path, self._ours(None)))
            return True
        assert self._lease is not None, "just observed"
        holder = (self._lease.get("spec") or {}).get("holderIdentity")
        if holder not in (None, "", self._identity) and not self._is_over():
            self._renewed_at = float("-inf")
            return False
        self._observe(await self._put(self._ours(self._lease)))
        return True

    def _observe(self, lease: Object) -> None:
        known = (self._lease or {}).get("metadata", {}).get("resourceVersion")
        if lease["metadata"].get("resourceVersion") != known:
            self._observed_at = time.monotonic()
        self._lease = lease

    def _is_over(self) -> bool:
        assert self._lease is not None, "asked only once it was read"
        duration = self._lease["spec"].get("leaseDurationSeconds") or DURATION
        return time.monotonic() - self._observed_at > float(duration)

    def _ours(self, lease: Object | None) -> Object:
        """The lease with us as its holder, from now on."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            transitions = int(spec.get("leaseTransitions") or 0) + (lease is not None)
            spec |= {"acquireTime": now, "leaseTransitions": transitions}
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION,
            "renewTime": now,
        }
        if lease is not None:
            return {**lease, "spec": spec}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }

    @staticmethod
    def _nobodys(lease: Object) -> Object:
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        return {**lease, "spec": spec}

    async def _put(self, lease: Object) -> Object:
        return await self._api.request("PUT", f"{self._path}/{self._name}", lease)
