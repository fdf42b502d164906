"""What a run came to, what may never be, and how one end differs from another: in sentences."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.stage import NAME
from tests.faults.mirror import Object, View

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_MEASURED = frozenset({"durations", "accelerators"})
"""Seconds in a record: no two runs take the same time."""

_COUNTED = (
    "federatedrounds",
    "jobs",
    "services",
    "networkpolicies",
    "persistentvolumeclaims",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a run, without times and uids; what was ever made and deleted, by key."""

    training: Object | None
    rounds: Mapping[str, Object]
    created: Mapping[str, int]
    deleted: Mapping[str, int]


def end_of(view: View) -> End:
    training = view.get("federatedtrainings", NAME)
    uid = training["metadata"]["uid"][:8] if training else ""
    return End(
        training=_plain(training.get("status"), uid) if training else None,
        rounds={
            name: _plain(record.get("status"), uid)
            for name, record in sorted(view.of("federatedrounds").items())
        },
        created=_counts(view.created),
        deleted=_counts(view.deleted),
    )


def differences(undisturbed: End, here: End) -> list[str]:
    """Nothing where both came to the same."""
    found = []
    for part in ("training", "rounds", "created", "deleted"):
        found += _between(part, getattr(undisturbed, part), getattr(here, part))
    return found


def violations(view: View) -> list[str]:
    """What may not be, whatever happened."""
    return [*_orphans(view), *_counted_twice(view), *_models(view)]


def _orphans(view: View) -> Iterator[str]:
    there = view.uids()
    for (plural, name), it in view.objects.items():
        for owner in it["metadata"].get("ownerReferences", ()):
            if owner["uid"] not in there:
                yield f"{plural} {name} is owned by {owner['kind']} {owner['name']}, which is gone"


def _counted_twice(view: View) -> Iterator[str]:
    for name, record in view.of("federatedrounds").items():
        status = record.get("status") or {}
        for what in ("participants", "candidates"):
            for who, times in Counter(p["name"] for p in status.get(what) or ()).items():
                if times > 1:
                    yield f"{name} has {who} {times} times among its {what}"
        candidates = {(c["name"], c.get("attempt", 1)) for c in status.get("candidates") or ()}
        for p in status.get("participants") or ():
            if p["state"] == "Accepted" and (p["name"], p["attempt"]) not in candidates:
                yield f"{name} accepted {p['name']} in an attempt that was no candidate"


def _models(view: View) -> Iterator[str]:
    for (_, number), models in view.models.items():
        if len(models) > 1:
            yield f"round {number} had {len(models)} global models: {', '.join(sorted(models))}"


def _counts(counter: Counter[tuple[str, str]]) -> dict[str, int]:
    return {
        f"{plural} {name}": times
        for (plural, name), times in sorted(counter.items())
        if times and plural in _COUNTED
    }


def _plain(value: Any, uid: str) -> Any:
    """Without times and what was counted of them, and with the same uid in every run."""
    if isinstance(value, dict):
        parts = {key: _plain(part, uid) for key, part in value.items() if key not in _MEASURED}
        return {key: part for key, part in parts.items() if part is not None}
    if isinstance(value, list):
        return [_plain(part, uid) for part in value]
    if isinstance(value, str):
        return None if _TIME.match(value) else value.replace(uid, "<uid>") if uid else value
    return value


def _between(where: str, a: Any, b: Any) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from _between(f"{where}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _between(f"{where}[{number}]", one, other)
    elif a != b:
        yield f"{where} is {_short(b)} here and {_short(a)} undisturbed"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
