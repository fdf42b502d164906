"""The proxy between one operator and the API server: passes everything on, but for what goes wrong.

It asks the server with the operator's own credentials, so the operator has no more rights than the
chart gives it. What it counts as a write is neither of a Lease nor an event.
"""

import asyncio
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.faults.calls import BY_THE_CLOCK, RIGHTS, Call, named, refusal, status
from tests.faults.faults import COUNTED, Fault
from tests.faults.mirror import lines

_PASSED = ("Accept", "Content-Type", "Authorization", "User-Agent")
SETTLED = 0.02
"""Seconds after a reply until the operator is killed `after` it: it has read it by then."""

REMEMBERED = 5
"""Answers to a list, for when an old one is asked for."""


class Upstream:
    """The API server, as anybody reaches it who has no certificate."""

    def __init__(self, url: str, context: Any) -> None:
        self.url = url
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            auto_decompress=False,
        )


@dataclass(eq=False)
class Proxy:
    """Of one operator after the other. kill: ends the one that is there; called in the loop."""

    upstream: Upstream
    kill: Callable[[bool], None]
    faults: Iterable[Fault] = ()
    counts: Counter[str] = field(default_factory=Counter)
    written: list[str] = field(default_factory=list)
    """Every write that was asked for, in order."""
    verbs: set[tuple[str, str, str]] = field(default_factory=set)
    """(group, resource, verb) of all that was asked for."""
    hit: list[str] = field(default_factory=list)
    """The faults that happened, and where."""

    def __post_init__(self) -> None:
        self._due: dict[str, dict[int, list[Fault]]] = defaultdict(lambda: defaultdict(list))
        for fault in self.faults:
            self._due[COUNTED[fault.kind]][fault.at].append(fault)
        self.old_lists = 0
        """So many of the next lists of children are as the last one was."""
        self._ending = False
        self._watches: set[asyncio.Task[Any]] = set()
        self._seen: dict[str, deque[bytes]] = {}
        self._stale: dict[str, tuple[bytes, int]] = {}
        self.wrote_at = self.hit_at = self.led_at = self.listed_at = _now()

    async def open(self) -> str:
        """Its address, from now on."""
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def close(self) -> None:
        self.restarted()
        await self._runner.cleanup()

    def restarted(self) -> None:
        """The operator that had lines here is gone; another one comes."""
        self._ending = False
        self.led_at = self.listed_at = float("inf")
        for watch in self._watches:
            watch.cancel()

    @property
    def misled(self) -> bool:
        """Whether the operator was answered otherwise than by the server, or not at all."""
        return any(not one.startswith("killed") for one in self.hit)

    def _next(self, what: str, where: str) -> list[Fault]:
        """Count one, and tell what is to go wrong with it."""
        self.counts[what] += 1
        due = self._due[what].pop(self.counts[what], [])
        for fault in due:
            self.hit.append(f"{fault} ({where})")
            self.hit_at = _now()
        return due

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(request.method, request.path, request.query.get("watch") in ("true", "1"))
        body = await request.read()
        group, resource, name = call.resource
        if resource and resource != RIGHTS:
            self.verbs.add((group, resource, call.verb))
        if self._ending:
            return _nothing(request)
        if call.watches:
            return await self._watch(request)
        where = f"{call.verb} {resource} {name or named(body)}".rstrip()
        faults = [] if resource in BY_THE_CLOCK else self._next("request", where)
        if call.writes:
            self.written.append(where)
            self.wrote_at = _now()
            faults += self._next("write", where)
        if call.lists:
            faults += self._next("list", where)
        for fault in faults:
            if fault.kind == "delay":
                await asyncio.sleep(fault.seconds)
            elif fault.kind == "answer":
                return refusal(call.refusal(fault.code))
            elif fault.kind == "kill" and fault.position == "before":
                return self._end(request, fault)
        asked = await self._ask(request, body)
        if asked is None:
            return _nothing(request)
        code, headers, answer = asked
        if resource == "leases" and request.method != "GET" and code < 300:
            self.led_at = min(self.led_at, _now())
        if (resource, call.verb) == ("federatedtrainings", "list"):
            self.listed_at = min(self.listed_at, _now())
        if call.lists and code == 200:
            answer = self._as_it_was(str(request.rel_url), answer, faults)
        for fault in faults:
            if fault.kind == "lose":
                return _nothing(request)
            if fault.kind == "kill" and fault.position == "unanswered":
                return self._end(request, fault)
            if fault.kind == "kill" and fault.position == "after":
                self._ending = True
                asyncio.get_running_loop().call_later(SETTLED, self.kill, fault.stranger)
        return web.Response(status=code, headers=headers, body=answer)

    def _end(self, request: web.BaseRequest, fault: Fault) -> web.Response:
        self._ending = True
        self.kill(fault.stranger)
        return _nothing(request)

    async def _ask(
        self, request: web.BaseRequest, body: bytes
    ) -> tuple[int, dict[str, str], bytes] | None:
        """What the server answered; None if it is away, and so are we."""
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        try:
            async with self.upstream.session.request(
                request.method,
                f"{self.upstream.url}{request.rel_url}",
                headers=headers,
                data=body or None,
                timeout=aiohttp.ClientTimeout(total=30),
            ) as answer:
                kept = ("Content-Type", "Content-Encoding", "Retry-After")
                told = {name: answer.headers[name] for name in kept if name in answer.headers}
                return answer.status, told, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _as_it_was(self, url: str, answer: bytes, faults: Iterable[Fault]) -> bytes:
        seen = self._seen.setdefault(url, deque(maxlen=REMEMBERED))
        for fault in faults:
            if fault.kind == "stale" and seen:
                old = seen[max(-fault.age, -len(seen))]
                self._stale[url] = (old, fault.code)
        if self.old_lists and seen:
            self.old_lists -= 1
            self.hit.append("an old list")
            return seen[-1]
        seen.append(answer)
        old, times = self._stale.get(url, (answer, 0))
        if times:
            self._stale[url] = (old, times - 1)
        return old if times else answer

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None, "a handler is a task"
        self._watches.add(task)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        try:
            async with self.upstream.session.get(
                f"{self.upstream.url}{request.rel_url}", headers=headers
            ) as answer:
                if answer.status != 200:
                    return web.Response(status=answer.status, body=await answer.read())
                await response.prepare(request)
                async for line in lines(answer.content):
                    if not await self._pass(response, line):
                        break
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # One of both ends is gone, and so the other has to.
        finally:
            self._watches.discard(task)
        if request.transport is not None:
            request.transport.abort()
        return response

    async def _pass(self, response: web.StreamResponse, line: bytes) -> bool:
        """One event of a watch; whether the connection goes on."""
        event = json.loads(line)
        if event["type"] in ("BOOKMARK", "ERROR"):
            await response.write(line + b"\n")
            return True
        name = event["object"].get("metadata", {}).get("name", "")
        for fault in self._next("event", f"{event['type']} {name}"):
            if fault.kind in ("late", "freeze"):
                await asyncio.sleep(fault.seconds)
            if fault.kind == "repeat":
                await response.write(line + b"\n")
            if fault.kind == "expire":
                gone = {"type": "ERROR", "object": status(410)}
                await response.write(json.dumps(gone).encode() + b"\n")
            if fault.kind in ("cut", "freeze", "expire"):
                return False
        await response.write(line + b"\n")
        return True


def _nothing(request: web.BaseRequest) -> web.Response:
    """The connection breaks: nobody hears this answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def _now() -> float:
    return asyncio.get_running_loop().time()
