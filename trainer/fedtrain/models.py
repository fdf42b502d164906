"""Which kind of model a script brought: the only place that knows all kinds."""

from collections.abc import Mapping
from typing import Any

from fedtrain.adapters import adapting
from fedtrain.arrays import ArrayWeights
from fedtrain.collective import Ranks
from fedtrain.errors import ContractError
from fedtrain.proximal import ArrayProximal, Proximal
from fedtrain.weights import Weights


def weights_of(
    model: Any, ranks: Ranks | None = None, adapters: Mapping[str, Any] | None = None
) -> Weights:
    """The tensors of a torch module, of a PeftModel's adapter or of a mapping of numpy arrays.

    ranks: those that hold the model with this one, if there are any. adapters: as the task has
    them. Raises ContractError.
    """
    return adapting(_weights_of(model, ranks), adapters)


def _weights_of(model: Any, ranks: Ranks | None) -> Weights:
    if isinstance(model, Mapping):
        return ArrayWeights(model)
    if hasattr(model, "named_parameters"):
        from fedtrain.checkpoint import ModuleWeights
        from fedtrain.peftmodel import PeftWeights, peft_model

        adapted = peft_model(model)
        if adapted is not None:
            return PeftWeights(adapted, ranks)
        return ModuleWeights(model, ranks)
    kind = type(model).__name__
    raise ContractError(
        "ModelUnsupported",
        f"rounds(model): a {kind} is neither a torch module nor a mapping of numpy arrays",
    )


def without_term(model: Any) -> Proximal:
    """The proximal term of a plain local run: zero, and nothing is asked of the model for it."""
    if hasattr(model, "named_parameters"):
        from fedtrain.checkpoint import TensorProximal

        return TensorProximal([], mu=0)
    return ArrayProximal(model if isinstance(model, Mapping) else {}, mu=0, begin={})
