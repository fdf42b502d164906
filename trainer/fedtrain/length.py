"""How far a participant goes in a round: its steps, weighted by what each gradient came to.

An update is x − y = η Σ_k a_k g_k over the steps of the round; ‖a‖₁ is the norm of Wang et al. 2020
("Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", section 4),
and the *length* is η ‖a‖₁. It is what SGD would come to if every gradient were one, and is counted
as that: one number goes through the optimizer's arithmetic, so that momentum, Nesterov, dampening,
schedules and a proximal term count as they act. With plain SGD ‖a‖₁ is the number of steps K.
"""

from dataclasses import dataclass

LENGTHS = 1e-9, 1e9
"""The least and the greatest that a participant may say. What a delta is multiplied with stays far
below the end of fp32 then, whoever lies."""


@dataclass(slots=True)
class Length:
    """Counted step by step. mu: of a proximal term in the gradients.

    The coefficients are taken to be positive, as they are unless η μ is about one or more.
    """

    mu: float = 0.0
    steps: int = 0
    total: float = 0.0
    """η ‖a‖₁ so far."""

    _rates: float = 0.0
    _velocity: float = 0.0

    def step(
        self, rate: float, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False
    ) -> None:
        """One more step of SGD, in torch.optim's terms."""
        gradient = 1 - self.mu * self.total
        if self.steps == 0 or momentum == 0:
            self._velocity = gradient
        else:
            self._velocity = momentum * self._velocity + (1 - dampening) * gradient
        forward = gradient + momentum * self._velocity if nesterov else self._velocity
        self.total += rate * forward
        self._rates += rate
        self.steps += 1

    @property
    def learning_rate(self) -> float:
        """η: the mean over the steps, where a schedule changes it."""
        return self._rates / self.steps if self.steps else 0.0

    @property
    def norm(self) -> float:
        """‖a‖₁."""
        return self.total / self.learning_rate if self.learning_rate else 0.0
