"""When the ranks look at each other, so that all of them save, or stop, after the same step.

A look is one small collective after a step on which the look before agreed: about a second later.
So no step pays for it, no rank can be beyond the step that is agreed on, and nothing is assumed of
how far ranks run ahead of each other: on a GPU that is many steps, with gradient accumulation any
number. A single process looks after every step.
"""

import sys
import time
from dataclasses import dataclass
from typing import Any

from fedtrain.collective import Ranks
from fedtrain.errors import ContractError

SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a rank shows the others. next: after which step to look again; rank 0's counts."""

    steps: int
    told: bool
    due: bool
    next: int


class Looks:
    """next: the step after which all ranks look; never, until `begin`."""

    def __init__(self, ranks: Ranks) -> None:
        self.next = sys.maxsize
        self._ranks = ranks
        self._last = 0, 0.0

    def begin(self, steps: int) -> None:
        self.next = steps + 1
        self._last = steps, time.monotonic()

    def look(self, steps: int, *, told: bool, due: bool) -> tuple[bool, bool]:
        """(whether anybody was told to stop, whether rank 0 says that a save is due); collective.

        Raises ContractError (StepsDisagree) if a rank is at another step, or submits.
        """
        now = time.monotonic()
        mine = Look(steps=steps, told=told, due=due, next=self._following(steps, now))
        shown = self._ranks.gather(mine)
        agree(shown)
        self.next, self._last = shown[0].next, (steps, now)
        return any(one.told for one in shown), shown[0].due

    def _following(self, steps: int, now: float) -> int:
        """About a second from here; at most twice as many steps as since the look before."""
        if self._ranks.world == 1:
            return steps + 1
        before, at = self._last
        made = max(1, steps - before)
        fitting = int(made * SECONDS / max(now - at, 1e-9))
        return steps + max(1, min(2 * made, fitting))


def agree(shown: list[Any]) -> None:
    """Raises ContractError unless the ranks show the same kind of thing after the same step.

    A rank that hands in its submission while others look has left the loop before them.
    """
    steps = [one.steps if isinstance(one, Look) else None for one in shown]
    for rank, count in enumerate(steps):
        if count != steps[0]:
            first, other = (
                f"rank {r} {'is done' if n is None else f'is at step {n}'}"
                for r, n in ((0, steps[0]), (rank, count))
            )
            raise ContractError(
                "StepsDisagree",
                f"{first}, {other}: every rank must call rnd.step(...) the same number of times",
            )
