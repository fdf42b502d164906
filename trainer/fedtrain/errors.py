"""What can go wrong in a participant's process, by who must act on it; standard library only.

`reason` is the CamelCase word that conditions, events and metric labels use; `exit` is the code
that `fedtrain.launch` ends with, which the Job's podFailurePolicy reads.
"""

from typing import Any, ClassVar

from fedtrain.contract import Exit


class FedtrainError(Exception):
    """One sentence for whoever must act, with the reason and the exit code that go with it."""

    exit: ClassVar[Exit] = Exit.TRY_AGAIN

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as `of(...)`, for errors travel between ranks and have two arguments."""
        return of, (int(self.exit), self.reason, str(self))


class ContractError(FedtrainError):
    """The script and the federation disagree; no retry can cure it."""

    exit = Exit.CONTRACT


class DataError(FedtrainError):
    """The participant's data or numbers cannot be used; a script may raise it, too."""

    exit = Exit.DATA

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__(reason if message is not None else "BadData", message or reason)


class ExchangeError(FedtrainError):
    """The exchange is full or cannot be written; charged to nobody."""

    exit = Exit.EXCHANGE


class TryAgain(FedtrainError):
    """A passing failure, counted against the retries."""


KINDS: tuple[type[FedtrainError], ...] = (ContractError, DataError, ExchangeError, TryAgain)


def of(exit_code: int, reason: str, message: str) -> FedtrainError:
    """The error that another rank met, made again from what it told."""
    for kind in KINDS:
        if kind.exit == exit_code:
            return kind(reason, message)
    return TryAgain(reason, message)
