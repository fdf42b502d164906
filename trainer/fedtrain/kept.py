"""`spec.optimizerState`: what a round does with the optimizer of the round before.

Reset begins each round with an empty state. Keep begins with the state that this participant's
last *accepted* update was submitted with:

    $FEDTRAIN_SCRATCH/<training>-<uid8>/<participant>/optimizer/<round>-<attempt>/

a snapshot written before the update is published, as `rnd.state` is (`fedtrain.memory`): a round
that was lost or refused leaves a folder that nobody reads. Kept are the tensors and counters;
learning rates and other hyperparameters are the script's, and each round begins with those that the
optimizer had when `rounds(...)` was entered. So a process for each round and one process for many
do the same.
"""

from collections.abc import Mapping
from typing import Any

from fedtrain import memory, snapshot
from fedtrain.collective import Ranks
from fedtrain.contents import Contents
from fedtrain.contract import ParticipantTask
from fedtrain.errors import ContractError, TryAgain
from fedtrain.log import say
from fedtrain.memory import Memory
from fedtrain.snapshot import SNAPSHOT_FILE, SnapshotError

KEEP = "Keep"


class Kept:
    """The optimizer that `rounds` was given, for all rounds of this process; may be None."""

    def __init__(self, model: Any, optimizer: Any, ranks: Ranks) -> None:
        self._model = model
        self._optimizer = optimizer
        self._ranks = ranks
        self._groups: Any = None
        if _is_torch(optimizer):
            from fedtrain import optimizers

            self._groups = optimizers.hyperparameters(optimizer)

    def reset(self) -> None:
        """Empty the state, and undo what became of the hyperparameters."""
        if hasattr(self._optimizer, "state"):
            self._optimizer.state.clear()
        if self._groups is not None:
            from fedtrain import optimizers

            optimizers.set_hyperparameters(self._optimizer, self._groups)

    def begin(self, task: ParticipantTask, accepted: tuple[int, int] | None) -> None:
        """What the round begins with; collective. accepted: of `Memory`, the same on all ranks.

        Raises ContractError (NoOptimizer), TryAgain (StateUnreadable) for a spoilt one.
        """
        self.reset()
        if task.optimizer_state != KEEP:
            return
        if self._optimizer is None:
            sentence = (
                "spec.optimizerState is Keep, and there is no optimizer to keep the state of: pass "
                "optimizer= to rounds(...), or use Reset"
            )
            raise ContractError("NoOptimizer", sentence)
        contents = self._contents()
        if accepted is None:
            return
        folder = _folder(task, accepted)
        if not self._ranks.tell((folder / SNAPSHOT_FILE).exists()):
            if self._ranks.rank == 0:
                say(LOST.format(*accepted))
            return
        try:
            found = snapshot.read(folder, self._ranks)
            contents.fill(found, found.own(self._ranks), self._ranks)
        except SnapshotError as error:
            sentence = f"the optimizer's state of round {accepted[0]}: {error}"
            raise TryAgain("StateUnreadable", sentence) from error

    def save(self, task: ParticipantTask, accepted: tuple[int, int] | None) -> None:
        """Keep the state under (round, attempt), before the update is published; collective."""
        if task.optimizer_state != KEEP:
            return
        tensors, own = self._contents().now()
        folder = _folder(task, (task.round, task.attempt))
        try:
            about = {"round": task.round, "attempt": task.attempt}
            snapshot.write(folder, self._ranks, tensors=tensors, own=own, about=about)
        except SnapshotError as error:
            raise TryAgain("StateNotSaved", f"the optimizer's state: {error}") from error
        if self._ranks.rank == 0:
            Memory(folder=folder.parent, task=task, accepted=accepted, lasting=True).prune()

    def _contents(self) -> Contents:
        parts: Mapping[str, Any] = {"optimizer": self._optimizer}
        return Contents(self._model, parts, with_model=False, groups=False)


LOST = "the optimizer's state of round {}, attempt {} is not on this scratch: it begins anew"


def _folder(task: ParticipantTask, attempt: tuple[int, int]) -> Any:
    return memory.home(task) / "optimizer" / "{}-{}".format(*attempt)


def _is_torch(optimizer: Any) -> bool:
    return hasattr(optimizer, "param_groups") and hasattr(optimizer, "state")
