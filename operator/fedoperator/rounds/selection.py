"""Which participants a round invites: a random subset, the same for the same seed and round."""

import hashlib
import math
from collections.abc import Iterable

from fedoperator.api.training import Selection


def select(
    names: Iterable[str], selection: Selection, round_number: int, *, at_least: int = 1
) -> tuple[str, ...]:
    """The invited, in order of name.

    Participants are ranked by sha256(seed/round/name), so that adding or removing one changes
    nothing in the order of the others. at_least: the quorum; inviting fewer could never reach it.
    """
    ranked = order(names, selection, round_number)
    count = max(math.ceil(selection.fraction * len(ranked) - 1e-9), selection.minimum, at_least)
    return tuple(sorted(ranked[:count]))


def order(names: Iterable[str], selection: Selection, round_number: int) -> list[str]:
    """Everybody, in the order in which this round would invite them."""
    return sorted(names, key=lambda name: _rank(selection.seed, round_number, name))


def _rank(seed: int, round_number: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{round_number}/{name}".encode()).digest()
