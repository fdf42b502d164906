"""Ditto: a personal model v_k beside the global one, drawn to what the federation found.

    min over v_k of  F_k(v_k) + λ/2 ‖v_k − w*‖²          v_k ← v_k − η (∇F_k(v_k) + λ (v_k − w_t))

Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", Algorithm 1:
each round the participant trains the global model as in any strategy, and v_k with the term above
around the w_t that the round began with. v_k is never sent. With λ = 0 it is a model that only
this participant's data ever saw. Only what travels has a w_t: own layers of v_k are not drawn.
The term is FedProx's, around w_t instead of what v_k began with, and takes place where that does:
in the optimizer's steps, see `fedtrain.stephook`.
"""

from collections.abc import Mapping
from typing import Any

from fedtrain.collective import Alone
from fedtrain.correction import Correction, NoCorrection
from fedtrain.errors import ContractError
from fedtrain.kept import Kept
from fedtrain.models import weights_of
from fedtrain.proximal import Proximal
from fedtrain.schema import Schema
from fedtrain.weights import Weights


class Personal:
    """The script's personal model and the optimizer that trains it (None for arrays)."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self.model = model
        self.weights: Weights = weights_of(model)
        self._optimizer = optimizer
        self._arrays = isinstance(model, Mapping)
        self._kept = Kept(model, optimizer, Alone())
        self._term: Proximal | None = None
        self._correction: Correction = NoCorrection()
        if self._arrays and optimizer is not None:
            sentence = "rounds(personal_optimizer=): for arrays use rnd.personal_gradients()"
            raise ContractError("ModelUnsupported", sentence)

    def check(self, travelling: Schema) -> None:
        """Raises ContractError (PersonalMismatch) if it is not the same kind of model."""
        own = {spec.name: spec for spec in self.weights.schema.tensors}
        for spec in travelling.tensors:
            mine = own.get(spec.name)
            if mine is None or mine.shape != spec.shape:
                here = "lacks it" if mine is None else f"has it as {list(mine.shape)}"
                sentence = (
                    f"the model has {spec.name!r} {list(spec.shape)}, the personal one {here}"
                )
                raise ContractError("PersonalMismatch", f"{sentence}: build two alike")

    def begin_as(self, model: Weights) -> None:
        """v_k in its first round: the model as this participant loaded it."""
        own = {spec.name for spec in self.weights.schema.tensors}
        for spec in model.schema.tensors:
            if spec.name in own:
                self.weights.fill(spec.name, model.values(spec.name))

    def pull(self, loaded: Weights, strength: float) -> None:
        """From now on every step of the optimizer is drawn to what is `loaded`, by λ."""
        self.end()
        self._kept.reset()
        if not strength:
            return
        drawn = {spec.name for spec in loaded.schema.tensors if spec.kind == "parameter"}
        self._term = self.weights.proximal(strength, drawn, around=loaded)
        if self._arrays:
            return
        if self._optimizer is None:
            sentence = "pass rounds(..., personal_optimizer=): the torch optimizer of the personal "
            raise ContractError("NoPersonalOptimizer", f"{sentence}model, which draws it to w_t")
        self._correction = self.weights.correction("Ditto", self._term, ())
        self._correction.attach(self._optimizer)

    def gradients(self) -> dict[str, Any]:
        """For arrays: λ (v_k − w_t) by name; zeros if λ is."""
        if not self._arrays:
            sentence = "rnd.personal_gradients() is for arrays; torch has personal_optimizer="
            raise ContractError("ModelUnsupported", sentence)
        term = self._term if self._term is not None else self.weights.proximal(0)
        return term.gradients()

    def end(self) -> None:
        """Nothing of the round is left in the optimizer."""
        self._correction.detach()
        self._term, self._correction = None, NoCorrection()
