"""Answers of the API server as kopf reads them: lists as a whole, watches line by line."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from fedoperator.cluster import nesting


class Response(aiohttp.ClientResponse):
    """Read as a whole or line by line, without what lies too deep."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    async def json(self, **_: Any) -> Any:
        """Without what no handler reads and may have a megabyte in each object of a list."""
        found = nesting.loads(await self.read())
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
                yield b"".join(nesting.cut(line) + b"\n" for line in lines)
        if rest:
            yield nesting.cut(rest)
