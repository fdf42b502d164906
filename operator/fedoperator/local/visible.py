"""Texts that others wrote, for a terminal: what moves a cursor, colours, or turns the order of
letters around is shown and not done."""

import re

_COLOUR = re.compile("(\x1b\\[[0-9;]{0,32}m)")


def line(text: str) -> str:
    """On one line, so that no text looks like a line of ours."""
    return _shown(re.sub(r"\r?\n|\t", " ", text))


def lines(text: str) -> str:
    """The same of each line."""
    return "\n".join(map(line, text.split("\n")))


def coloured(text: str) -> str:
    """One line of a log, in its colours, which end with it."""
    parts = _COLOUR.split(text)
    shown = "".join(p if n % 2 else _shown(p.replace("\t", "    ")) for n, p in enumerate(parts))
    return f"{shown}\x1b[0m" if len(parts) > 1 else shown


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
