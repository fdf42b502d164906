"""What the ranks of a participant do together, each with its own part of it.

A rank that fails goes no further, while its peers wait for it to say the next thing. So whatever
is said in a meeting says first whether the speaker has failed: all others hear that instead of what
they waited for, and every rank ends with the same error.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from fedtrain.collective import Ranks
from fedtrain.errors import FedtrainError

T = TypeVar("T")


class Meeting:
    """`Ranks` that hear of each other's failures while they `act`."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self.rank = ranks.rank
        self.world = ranks.world
        self.group = getattr(ranks, "group", None)  # of torch.distributed, for its own collectives

    def gather(self, mine: Any) -> list[Any]:
        """As of `Ranks`. Raises what the first rank that failed has failed with."""
        return self._said((None, mine))

    def tell(self, value: Any) -> Any:
        """As of `Ranks`, but a failure of any rank is heard."""
        return self.gather(value if self.rank == 0 else None)[0]

    def act(self, act: Callable[[], T]) -> T:
        """Do it on every rank, whatever is gathered meanwhile; the same error on all or none."""
        own: FedtrainError | None = None
        try:
            try:
                result = act()
            except FedtrainError as error:
                own = error
            self._said((own, None))
        except _Heard as heard:
            if own is not None and heard.rank == self.rank:
                raise own from own.__cause__
            raise heard.error from None
        return result

    def _said(self, mine: tuple[FedtrainError | None, Any]) -> list[Any]:
        told = self._ranks.gather(mine)
        for rank, (error, _) in enumerate(told):
            if error is not None:
                raise _Heard(rank, error)
        return [value for _, value in told]


class _Heard(Exception):
    """Another rank's failure, on its way out of `act`: every rank knows of it already."""

    def __init__(self, rank: int, error: FedtrainError) -> None:
        super().__init__(str(error))
        self.rank = rank
        self.error = error
