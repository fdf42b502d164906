"""Pieces of HTML. What participants and scripts said is text, never markup."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True)
class Exact:
    """A figure: shown with four significant digits, the exact one on copying and pointing."""

    value: float | None


@dataclass(frozen=True, slots=True)
class Code:
    """A digest, a path: in one line, cut by the page's width, whole when it is copied."""

    text: str


@dataclass(frozen=True, slots=True)
class Raw:
    """HTML that was made here."""

    html: str


Cell = str | int | float | Exact | Code | Raw | None


def table(
    key: str, caption: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], notes: str = ""
) -> str:
    """Columns whose head ends in # hold figures. notes: what was left out of it."""
    numeric = [head.endswith("#") for head in heads]
    head = "".join(
        f'<th scope="col"{_kind(right)}>{escape(text.removesuffix("#"))}</th>'
        for text, right in zip(heads, numeric, strict=True)
    )
    body = "".join(f"<tr>{_cells(row, numeric)}</tr>\n" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table id="{escape(key)}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{note(notes)}"
    )


def folded(summary: str, inside: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def cell(value: Cell) -> str:
    """The inside of a table's cell, or of any other element."""
    if value is None:
        return ""
    if isinstance(value, Raw):
        return value.html
    if isinstance(value, Code):
        return f"<code>{escape(value.text)}</code>"
    if isinstance(value, Exact):
        if value.value is None:
            return ""
        return f'<data value="{value.value!r}" title="{value.value!r}">{brief(value.value)}</data>'
    return escape(str(value))


def brief(value: float) -> str:
    """Four significant digits: `0.9333`, `12.35`, `1.2e-05`, `12345`."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 12 s`, `2 h 5 min`; a figure and its unit are on one line."""
    if seconds < 59.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, left = divmod(hours, 24)
    parts = [(days, "d"), (left, "h")] if hours >= 48 else [(hours, "h"), (minutes, "min")]
    parts = parts if hours else [(minutes, "min"), (rest, "s")]
    return " ".join(f"{count}\N{NO-BREAK SPACE}{unit}" for count, unit in parts)


def size(count: int) -> str:
    """Bytes in four digits: `13.3 KiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def embedded(key: str, document: Any) -> str:
    """JSON inside a page: no text in it can end the element, or begin a comment or another."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escape(key)}">{text}</script>'


def _cells(row: Sequence[Cell], numeric: Sequence[bool]) -> str:
    assert len(row) == len(numeric), "a cell for each column"
    first, *others = (
        f"{_kind(right)}>{cell(value)}" for value, right in zip(row, numeric, strict=True)
    )
    return f'<th scope="row"{first}</th>' + "".join(f"<td{other}</td>" for other in others)


def _kind(right: bool) -> str:
    return ' class="number"' if right else ""
