"""`rnd`: one round as the script sees it."""

import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedtrain import memory, midround
from fedtrain.correction import Correction, NoCorrection, Steps
from fedtrain.ditto import Personal
from fedtrain.errors import ContractError, FedtrainError
from fedtrain.midround import Midround
from fedtrain.proximal import Proximal
from fedtrain.state import State
from fedtrain.store import Submission
from fedtrain.told import checked_metrics, samples_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of training that this process takes part in.

    number: counts from 1. parameters: `spec.parameters`, read-only. deadline: seconds that the
    operator allows from the pods' readiness on, or None. seed: the same on all ranks, different
    for each round and participant; use it for the order of the data. state: a mapping of names to
    arrays, tensors or JSON values, given back from this participant's last *accepted* round; every
    rank may set it, rank 0's is saved with the submit, and all ranks begin with the same. unit:
    what `samples` is to count: "Samples", "Tokens", or "Uniform" (then nobody looks). final:
    True after the last round, where a participant trains the global model for itself alone.
    """

    number: int
    participant: str
    parameters: Mapping[str, Any]
    seed: int
    deadline: float | None
    state: State
    unit: str = "Samples"
    _midround: Midround = field(repr=False)
    final: bool = False
    _proximal: Proximal = field(repr=False)
    _personal: Personal | None = field(repr=False, default=None)
    _submit: Callable[[Submission | FedtrainError], None] = field(repr=False)
    _correction: Correction = field(repr=False, default_factory=NoCorrection)
    _entered: float = field(repr=False, default_factory=time.monotonic)

    def submit(
        self,
        *,
        samples: int,
        metrics: Mapping[str, Any] | None = None,
        steps: int = 0,
        learning_rate: float | None = None,
        momentum: float = 0.0,
    ) -> None:
        """Hand in what was trained: once, by all ranks together.

        samples: the *participant's* total over all ranks, in the unit of `spec.weight`. steps:
        optimizer steps taken. learning_rate, momentum: of SGD, where a script of numpy arrays is
        part of SCAFFOLD or FedNova; of a torch optimizer they are counted. Raises ContractError or
        DataError, on every rank the same.
        """
        self._midround.submitting()
        seconds = time.monotonic() - self._entered
        try:
            count = samples_of(samples)
            said = Steps(steps=operator.index(steps), learning_rate=learning_rate)
            took = self._correction.counted(said, momentum)
            told: Submission | FedtrainError = Submission(
                samples=count,
                steps=took.steps,
                learning_rate=took.learning_rate,
                norm=took.norm,
                seconds=seconds,
                metrics=checked_metrics(metrics or {}),
            )
        except FedtrainError as error:
            told = error
        self._submit(told)

    def attach(self, optimizer: Any) -> None:
        """As `rounds(optimizer=optimizer)`, for one that is made in the body of the loop.

        What the strategy adds to gradients (FedProx, SCAFFOLD) is added in its steps, and the steps
        are counted (SCAFFOLD, FedNova), until the round is over; with other strategies nothing
        happens. Raises ContractError for an optimizer that the strategy is not defined for.
        """
        self._correction.attach(optimizer)

    def gradient_terms(self) -> dict[str, Any]:
        """What the strategy adds to the gradients of numpy arrays, by name; zeros if nothing.

        As the arrays are now: w −= learning_rate · (gradient + rnd.gradient_terms()["w"]).
        """
        return self._correction.added_to(self._proximal.gradients())

    @property
    def scratch(self) -> Path:
        """A folder of the participant's own for caches; what is in it may be gone at any time."""
        return memory.cache(self._midround.task)

    def resume(
        self, *, every: int | timedelta = midround.DEFAULT_EVERY, **parts: Any
    ) -> dict[str, Any]:
        """Go on where an earlier attempt at this round was interrupted; once, by all ranks.

            progress = rnd.resume(optimizer=optimizer, scheduler=scheduler)
            for epoch in range(progress.get("epoch", 0), epochs):

        parts: whatever else than the model must be as it was: torch optimizers, and anything with
        state_dict() and load_state_dict(). If a checkpoint of this round is on the scratch, model,
        parts and generators are restored, and the answer is what `step` was told last; else {}.
        From here on `step` saves: every so many steps (int) or so much time, and on SIGTERM.
        """
        return self._midround.resume(every, parts)

    def step(self, **progress: Any) -> None:
        """Say that an optimizer step is done: after each one, on all ranks alike.

        progress: JSON values, the same on all ranks, that say where to go on from here. Costs
        microseconds, but where it saves. After a SIGTERM it saves and ends the process (exit 75).
        """
        self._midround.step(progress)

    def alive(self) -> None:
        """Where something takes longer than trainer.hangTimeout: say that it goes on, as `step`."""
        self._midround.alive()

    def proximal_term(self) -> Any:
        """FedProx's μ/2·‖w − w_t‖² over the trainable parameters of a torch model, for the loss:

            loss = criterion(model(x), y) + rnd.proximal_term()

        For those who step without a torch.optim.Optimizer: where one is attached, the gradient is
        added in its steps, and this is zero. A scalar tensor with a gradient; zero, and free,
        unless the strategy is FedProx (Li et al. 2020, see `fedtrain.proximal`). Under DDP every
        rank adds the whole of it.
        """
        return self._proximal.term()

    def personal_gradients(self) -> dict[str, Any]:
        """Ditto's pull for a personal model of numpy arrays: {name: λ (v_k − w_t)}, to be added
        to its gradients; zeros without `spec.personalization.ditto`."""
        if self._personal is None:
            sentence = "rnd.personal_gradients() needs rounds(..., personal=a second model)"
            raise ContractError("NoPersonalModel", sentence)
        return self._personal.gradients()
