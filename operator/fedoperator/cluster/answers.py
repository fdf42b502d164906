"""The API server's answers as kopf reads them: nothing that is nested too deep, see `nesting`."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from fedoperator.cluster.nesting import cut, loads


class Response(aiohttp.ClientResponse):
    """For kopf, which reads lists as a whole and watches line by line."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    async def json(self, **_: Any) -> Any:
        """Without what no handler reads and may have a megabyte in each object of a list."""
        found = loads(await self.read())
        for item in found.get("items") or () if isinstance(found, dict) else ():
            item["metadata"].pop("managedFields", None)
            (item.get("spec") or {}).pop("template", None)
        return found


class _Lines:
    """A body; if it is taken in chunks, each is whole lines."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                yield b"".join(cut(line) + b"\n" for line in lines)
        if rest:
            yield cut(rest)
