"""Which kind of model a script brought: the only place that knows all kinds."""

from collections.abc import Mapping
from typing import Any

from fedtrain.arrays import ArrayWeights
from fedtrain.collective import Ranks
from fedtrain.errors import ContractError
from fedtrain.proximal import ArrayProximal, Proximal
from fedtrain.weights import Weights


def weights_of(model: Any, ranks: Ranks | None = None) -> Weights:
    """The tensors of a torch module or of a mapping of numpy arrays. Raises ContractError.

    ranks: those that hold the model with this one, if there are any.
    """
    if isinstance(model, Mapping):
        return ArrayWeights(model)
    if hasattr(model, "named_parameters"):
        from fedtrain.checkpoint import ModuleWeights

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
    return ArrayProximal(model if isinstance(model, Mapping) else {}, mu=0)
