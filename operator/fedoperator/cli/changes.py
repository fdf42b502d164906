"""What differs between two documents, a line per field, as apply and diff tell it."""

import json
from collections.abc import Iterator
from typing import Any

from fedoperator.local import visible


def between(old: Any, new: Any, path: str = "spec") -> Iterator[tuple[str, str, str]]:
    """(field, before, after) of every leaf that differs; "" where there is nothing.

    Entries of lists that have names are compared by name.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from between(old.get(key), new.get(key), f"{path}.{key}")
        return
    if _named(old) and _named(new) and (old or new):
        before, after = ({entry["name"]: entry for entry in part} for part in (old, new))
        for name in [*before, *(name for name in after if name not in before)]:
            yield from between(before.get(name), after.get(name), f"{path}[{name}]")
        return
    if old != new or isinstance(old, bool) != isinstance(new, bool):
        yield path, shown(old), shown(new)


def shown(value: Any) -> str:
    """On one line, cut where it would not fit one."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def line(field: str, before: str, after: str) -> str:
    """`spec.rounds: 10 → 20`; what is new or gone says so."""
    if not before:
        told = f"now {after}"
    else:
        told = f"{before} → {after}" if after else f"no longer {before}"
    return visible.line(f"{field}: {told}")


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and "name" in entry for entry in value
    )
