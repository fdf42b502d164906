"""What became of each candidate, in words that fit a termination message."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtrain.contract import MESSAGE_LIMIT, Exit, Message
from fedtrain.errors import FedtrainError
from fedtrain.manifest import Accepted, Rejected

_KEYS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST_DETAILS = 8
_SENTENCE = 160
_MARGIN = 400
"""Bytes left for the message's own words, so that `Message.encode` cuts nothing of the result."""


class VerdictsError(FedtrainError):
    """No aggregation of these candidates: the round is decided again, without the refused ones."""

    exit = Exit.VERDICTS

    def __init__(self, reason: str, message: str, result: Mapping[str, Any]) -> None:
        super().__init__(reason, message)
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """candidates: (participant, attempt) in the task's order, each accepted or rejected."""

    candidates: Sequence[tuple[str, int]]
    accepted: Sequence[Accepted]
    rejected: Sequence[Rejected]

    def result(self, measured: Mapping[str, Any], missing: Sequence[str]) -> dict[str, Any]:
        """A Message's result: verdicts and reasons whole, then as much as fits.

        missing: participants whose samples and digest the operator wants to learn.
        """
        refused = {(entry.participant, entry.attempt): entry for entry in self.rejected}
        reasons: dict[str, str] = {}
        keys: dict[str, str] = {}
        verdicts = ""
        for candidate in self.candidates:
            entry = refused.get(candidate)
            if entry is not None and entry.reason not in keys:
                keys[entry.reason] = _KEYS[len(keys) % len(_KEYS)]
                reasons[keys[entry.reason]] = entry.reason
            verdicts += "." if entry is None else keys[entry.reason]
        result = {**measured, "verdicts": verdicts, "reasons": reasons}
        known = {entry.participant: entry for entry in self.accepted}
        filled = {
            name: {"samples": known[name].samples, "digest": known[name].digest}
            for name in missing
            if name in known
        }
        details = {e.participant: e.sentence[:_SENTENCE] for e in self.rejected[:_MOST_DETAILS]}
        if measured:
            result = {**result, "spread": self._spread()}
        result = _fit(_fit(result, "filled", filled), "details", details)
        whole = {**result, **self._each()}
        return whole if measured and _room(whole) >= 0 else result

    def _each(self) -> dict[str, list[Any]]:
        """Norms and cosines of the accepted, in the task's order."""
        known = {(entry.participant, entry.attempt): entry for entry in self.accepted}
        ordered = [known[candidate] for candidate in self.candidates if candidate in known]
        cosines = [None if e.cosine is None else _short(e.cosine) for e in ordered]
        return {"norms": [_short(e.norm) for e in ordered], "cosines": cosines}

    def _spread(self) -> dict[str, list[float]]:
        """Least, median and most of each, of however many."""
        each = self._each()
        known = {key: [v for v in each[key] if v is not None] for key in ("norms", "cosines")}
        return {
            key: [min(values), _short(statistics.median(values)), max(values)]
            for key, values in known.items()
            if values
        }


def _room(result: Mapping[str, Any]) -> int:
    """Bytes that a termination message has left beside this result."""
    whole = {**json.loads(Message().encode()), "result": result}
    return MESSAGE_LIMIT - _MARGIN - len(json.dumps(whole, separators=(",", ":")))


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _fit(result: dict[str, Any], key: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """`result` with as many of the entries as a termination message has room for."""
    chosen: dict[str, Any] = {}
    room = _room({**result, key: {}})
    for name, entry in entries.items():
        room -= len(json.dumps({name: entry}, separators=(",", ":")))
        if room < 0:
            break
        chosen[name] = entry
    return {**result, key: chosen} if chosen else result
