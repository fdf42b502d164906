"""What could not be made, and when to try it again; in memory, for a restart just tries again."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedoperator.rounds.observed import Trouble

LIMIT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class _Entry:
    trouble: Trouble
    tries: int
    not_before: datetime


class Troubles:
    """Of one training: names of workloads → why they could not be made."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def known(self) -> Mapping[str, Trouble]:
        return {name: entry.trouble for name, entry in self._entries.items()}

    def may_try(self, name: str, now: datetime) -> bool:
        """Whether the back-off of this one is over; always, if it has none."""
        entry = self._entries.get(name)
        return entry is None or now >= entry.not_before

    def add(self, name: str, trouble: Trouble, now: datetime) -> bool:
        """Remember a failed try; whether that is news."""
        old = self._entries.get(name)
        tries = old.tries + 1 if old else 1
        wait = min(LIMIT, timedelta(seconds=2.0 ** min(tries, 10)))
        self._entries[name] = _Entry(trouble, tries, now + wait)
        return old is None or old.trouble != trouble

    def made(self, name: str) -> None:
        self._entries.pop(name, None)

    def keep(self, names: Collection[str]) -> None:
        """Drop those that nobody asks for any more."""
        for name in self._entries.keys() - set(names):
            del self._entries[name]

    def wake_at(self) -> datetime | None:
        """When the next one may be tried again."""
        return min((entry.not_before for entry in self._entries.values()), default=None)
