"""A strategy's part in the training: what it adds to a participant's gradients, what it counts.

    FedProx     μ (w − w_t)                 see `fedtrain.proximal`
    SCAFFOLD    c − c_i                     see `fedtrain.control`
    FedNova     nothing, or FedProx's term

SCAFFOLD and FedNova also have to know how far a participant went, see `fedtrain.length`. For a
torch module all of it is done in the optimizer's step, see `fedtrain.stephook`; a script of numpy
arrays adds `rnd.gradient_terms()` to its gradients and says what it did in `rnd.submit(...)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedtrain.errors import ContractError, DataError
from fedtrain.length import LENGTHS, Length
from fedtrain.proximal import Proximal

COUNTING = ("SCAFFOLD", "FedNova")
"""Strategies for which a receipt must say how far the participant went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How many steps were taken, as receipts say it; see `fedtrain.length`."""

    steps: int
    learning_rate: float | None = None
    norm: float | None = None


class Correction(Protocol):
    """Of one round; made when the model holds w_t, and over with it."""

    def attach(self, optimizer: Any) -> None:
        """Do it in this optimizer's steps, until `detach`. Raises ContractError."""

    def detach(self) -> None:
        """Leave the optimizer as it was."""

    def added_to(self, terms: dict[str, Any]) -> dict[str, Any]:
        """By name, of a mapping of arrays."""

    def counted(self, told: Steps, momentum: float = 0.0) -> Steps:
        """What was counted, or else told by the script. Raises ContractError, DataError."""


class NoCorrection:
    """Of strategies that leave the training alone."""

    def attach(self, optimizer: Any) -> None:
        pass

    def detach(self) -> None:
        pass

    def added_to(self, terms: dict[str, Any]) -> dict[str, Any]:
        return terms

    def counted(self, told: Steps, momentum: float = 0.0) -> Steps:
        return told


class ArrayCorrection:
    """For numpy arrays: the script adds the terms, and says how it stepped.

    control: c − c_i by name, without those that are zero.
    """

    def __init__(self, strategy: str, proximal: Proximal, control: Mapping[str, Any]) -> None:
        self._strategy = strategy
        self._proximal = proximal
        self._control = control

    def attach(self, optimizer: Any) -> None:
        """Whatever steps arrays has no gradients to add to: the script adds them."""

    def detach(self) -> None:
        pass

    def added_to(self, terms: dict[str, Any]) -> dict[str, Any]:
        for name, control in self._control.items():
            np.add(terms[name], control, out=terms[name])
        return terms

    def counted(self, told: Steps, momentum: float = 0.0) -> Steps:
        if self._strategy not in COUNTING:
            return told
        if told.steps < 1 or told.learning_rate is None:
            raise ContractError(
                "StepsMissing",
                f"{self._strategy} has to know how far a participant went: pass steps= and "
                "learning_rate= to rnd.submit(...)",
            )
        if self._strategy == "SCAFFOLD" and momentum:
            raise momentum_refused(momentum)
        if (self._proximal.mu or self._strategy == "SCAFFOLD") and not self._proximal.asked:
            raise ContractError(
                "TermsUnused",
                f"the strategy is {self._strategy}: add rnd.gradient_terms() to the gradients",
            )
        length = Length(self._proximal.mu)
        for _ in range(told.steps):
            length.step(told.learning_rate, momentum)
        return counted(length)


def counted(length: Length) -> Steps:
    """As a receipt says it. Raises DataError for what no receipt may say."""
    low, high = LENGTHS
    if not low <= length.total <= high:
        raise DataError(
            "LengthUnusable",
            f"{length.steps} steps with a learning rate of {length.learning_rate:g} come to "
            f"{length.total:g}, which is not between {low:g} and {high:g}; change the rate",
        )
    return Steps(steps=length.steps, learning_rate=length.learning_rate, norm=length.norm)


def momentum_refused(momentum: float) -> ContractError:
    """Option II's control variate is the mean of a round's gradients, of plain SGD alone."""
    return ContractError(
        "OptimizerUnsupported",
        f"SCAFFOLD is for plain SGD, whose update is a mean of gradients, not for a momentum of "
        f"{momentum:g}; use torch.optim.SGD without momentum, or another strategy",
    )
