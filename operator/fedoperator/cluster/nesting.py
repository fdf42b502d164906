"""JSON from the API server, which takes ten thousand levels where Python reads a thousand.

Whoever may write an object that we list can nest it as deep: a training in its free parameters, a
Job, a pod or an event in metadata.managedFields. One such object would keep everybody's from being
read, so what lies that deep is not read at all; nothing of ours does.
"""

import json
import re
from typing import Any

LIMIT = 300
"""Levels that are read; also of a list, and with what Python's own stack holds already."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]')


def loads(text: str | bytes) -> Any:
    """As json.loads, with null for everything below LIMIT of what is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(cut(text.encode() if isinstance(text, str) else text))


def cut(text: bytes) -> bytes:
    """The JSON, with null for everything below LIMIT."""
    if text.count(b"{") + text.count(b"[") <= LIMIT:
        return text
    depth, begin, parts = 0, 0, []
    for token in _TOKEN.finditer(text):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == LIMIT + 1:
                parts += [text[begin : token.start()], b"null"]
        elif token[0] in (b"}", b"]"):
            if depth == LIMIT + 1:
                begin = token.end()
            depth -= 1
    # What ends too early ends in what was left out: no JSON, whatever reads it.
    return b"".join([*parts, text[begin:]]) if depth <= LIMIT else b"".join(parts)
