"""What a script hands over to be remembered, as the contents of a snapshot and back.

A torch model and its optimizers become tensors by name, which each rank writes and reads its own
shards of; everything else (arrays, what has a state_dict) is each rank's own.
"""

import copy
import sys
from collections.abc import Mapping
from typing import Any

from fedtrain.collective import Ranks
from fedtrain.errors import ContractError
from fedtrain.snapshot import Snapshot, SnapshotError, on_every_rank


class Contents:
    """parts: by name, torch optimizers of the model or anything with state_dict, load_state_dict.

    with_model: whether the model itself belongs to it. groups: whether the optimizers' learning
    rates and other hyperparameters do.
    """

    def __init__(
        self, model: Any, parts: Mapping[str, Any], *, with_model: bool = True, groups: bool = True
    ) -> None:
        for name, part in parts.items():
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                kind = type(part).__name__
                sentence = f"{name}: a {kind} has no state_dict() and load_state_dict()"
                raise ContractError("ResumeUnsupported", sentence)
        self._model = model
        self._with_model = with_model
        self._groups = groups
        self._arrays = isinstance(model, Mapping)
        torch = None if self._arrays else sys.modules.get("torch")
        self._optimizers: dict[str, Any] = {}
        if torch is not None:
            from fedtrain.optimizers import NamedOptimizer

            self._optimizers = {
                name: NamedOptimizer(name, part, model)
                for name, part in parts.items()
                if isinstance(part, torch.optim.Optimizer)
            }
        self._parts = {n: part for n, part in parts.items() if n not in self._optimizers}

    def now(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(tensors by name, what this rank keeps for itself): what `snapshot.write` wants."""
        tensors = self._model_tensors()
        own: dict[str, Any] = {"arrays": None, "optimizers": {}, "parts": {}}
        if self._with_model and self._arrays:
            own["arrays"] = dict(self._model)
        for name, optimizer in self._optimizers.items():
            tensors |= optimizer.tensors()
            own["optimizers"][name] = optimizer.rest()
        for name, part in self._parts.items():
            own["parts"][name] = part.state_dict()
        return tensors, own

    def fill(self, found: Snapshot, own: Mapping[str, Any], ranks: Ranks) -> None:
        """Make everything what it was; collective.

        Raises SnapshotError if the snapshot does not fit; the parts are what they were then, the
        model and the optimizers may be anything.
        """
        if own["optimizers"].keys() != self._optimizers.keys() or (
            own["parts"].keys() != self._parts.keys()
        ):
            before = ", ".join([*own["optimizers"], *own["parts"]]) or "nothing"
            raise SnapshotError(f"it holds other things than the script hands over: {before}")
        tensors = self._model_tensors()
        known = found.tensors() if self._optimizers else {}
        for name, optimizer in self._optimizers.items():
            tensors |= optimizer.empty(own["optimizers"][name], known)
        found.load(tensors, ranks)
        for name, optimizer in self._optimizers.items():
            optimizer.assign(own["optimizers"][name], tensors, groups=self._groups)
        if self._with_model and self._arrays:
            _fill_arrays(self._model, own["arrays"])
        on_every_rank(ranks, lambda: self._load_parts(own["parts"]))

    def _model_tensors(self) -> dict[str, Any]:
        if self._arrays or not self._with_model:
            return {}
        from fedtrain.optimizers import model_tensors

        return model_tensors(self._model)

    def _load_parts(self, states: Mapping[str, Any]) -> None:
        before = {name: copy.deepcopy(part.state_dict()) for name, part in self._parts.items()}
        try:
            for name, part in self._parts.items():
                part.load_state_dict(states[name])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            for name, part in self._parts.items():
                part.load_state_dict(before[name])
            raise SnapshotError(f"a load_state_dict() refused it: {error}") from error


def _fill_arrays(model: Mapping[str, Any], saved: Mapping[str, Any] | None) -> None:
    def kinds(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: (array.dtype, array.shape) for name, array in arrays.items()}

    if saved is None or kinds(model) != kinds(saved):
        raise SnapshotError("the script's model has other arrays")
    for name, array in model.items():
        array[...] = saved[name]
