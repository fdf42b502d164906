"""Messages as lines of JSON, from somebody who may send anything at all."""

import asyncio
import json
from typing import Any

from fedtrain.contract import HUB_BEAT

SILENCE = 3 * HUB_BEAT
PIECE = 16 * 1024
"""Bytes that are taken at once, and about what waits for somebody whose turn has not come."""

BRACKETS = 64
"""In one message of a participant, of which ours have four; they bound how deep it goes, so that
nothing is nested deeper than it can be written again."""


class Lines:
    """One caller's messages, of which no more is held than the one that is being read."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._rest = bytearray()

    async def next(self, limit: int, brackets: int | None = None) -> dict[str, Any]:
        """The next message. limit: its bytes; brackets: how many of them it may open.

        Raises ValueError, in a sentence, for what is none, and EOFError at the end.
        """
        try:
            async with asyncio.timeout(SILENCE):
                line = await self._line(limit)
        except TimeoutError:
            raise ValueError(f"nothing was heard for {SILENCE:.0f} s") from None
        if brackets is not None and line.count(b"{") + line.count(b"[") > brackets:
            raise ValueError(f"a message with more than {brackets} brackets")
        try:
            message = json.loads(line)
        except RecursionError:
            raise ValueError("a message that is nested too deep") from None
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        return message

    async def _line(self, limit: int) -> bytes:
        known = 0
        while (end := self._rest.find(b"\n", known)) < 0:
            if len(self._rest) > limit:
                break
            known = len(self._rest)
            piece = await self._reader.read(PIECE)
            if not piece:
                raise EOFError
            self._rest += piece
        if not 0 <= end <= limit:
            raise ValueError(f"a message of more than {limit} bytes")
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line
