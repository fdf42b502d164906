"""Small tables for notebooks. What participants and scripts said is text, never markup."""

from collections.abc import Iterable, Mapping
from html import escape

MOST = 20
"""Rows of one table."""


def table(
    name: str,
    title: str,
    heads: Iterable[str],
    rows: Iterable[Iterable[object]],
    left_out: tuple[int, str] = (0, ""),
) -> str:
    """left_out: how many more rows there would be, and of what."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    caption = f"<caption><b>{escape(name)}</b> {escape(title)}</caption>"
    count, what = left_out
    more = f"<p>and {count} more {escape(what)}</p>" if count > 0 else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def measured(metrics: Mapping[str, float]) -> str:
    """All of them in one cell."""
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))
