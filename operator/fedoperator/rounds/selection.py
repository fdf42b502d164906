"""Which participants a round invites: a random subset, the same for the same seed and round."""

import hashlib
import math
from collections.abc import Iterable, Mapping

from fedoperator.api.training import Selection
from fedoperator.rounds import quarantine

_NOBODY: Mapping[str, int] = {}


def select(
    names: Iterable[str],
    selection: Selection,
    round_number: int,
    *,
    at_least: int = 1,
    quarantined: Mapping[str, int] = _NOBODY,
) -> tuple[str, ...]:
    """The invited, in order of name.

    Participants are ranked by sha256(seed/round/name), so that adding or removing one changes
    nothing in the order of the others. at_least: the quorum; inviting fewer could never reach it.
    quarantined: who is left out up to which round, unless fewer than both minimums are left.
    """
    ranked = quarantine.by_need(order(names, selection, round_number), quarantined, round_number)
    least = max(selection.minimum, at_least)
    wanted = max(math.ceil(selection.fraction * len(ranked) - 1e-9), least)
    free = sum(not quarantine.is_out(quarantined, name, round_number) for name in ranked)
    return tuple(sorted(ranked[: min(wanted, max(free, least))]))


def order(names: Iterable[str], selection: Selection, round_number: int) -> list[str]:
    """Everybody, in the order in which this round would invite them."""
    return sorted(names, key=lambda name: _rank(selection.seed, round_number, name))


def _rank(seed: int, round_number: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{round_number}/{name}".encode()).digest()
