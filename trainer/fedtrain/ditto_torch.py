"""Ditto's pull for a torch optimizer: λ (v_k − w_t) is added to the gradients before each step.

In a step pre-hook, so that it comes after unscaling, clipping and accumulation, and once per step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fedtrain.checkpoint import named_tensors
from fedtrain.errors import ContractError
from fedtrain.weights import Weights

Hook = Callable[[torch.optim.Optimizer, tuple[Any, ...], dict[str, Any]], None]


def drawing(module: nn.Module, names: Iterable[str], loaded: Weights, strength: float) -> Hook:
    """The hook; it holds a copy of w_t, of the parameters that are trained, where they are."""
    own = {name: tensor for name, tensor, _ in named_tensors(module)}
    around: list[tuple[Tensor, Tensor]] = []
    for name in names:
        parameter = own[name]
        if not parameter.requires_grad:
            continue
        flat = torch.empty(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
        for start, tile in loaded.values(name):
            flat[start : start + tile.size].copy_(torch.from_numpy(tile))
        around.append((parameter, flat.view(parameter.shape)))

    @torch.no_grad()
    def draw(_: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(args[1:]) or kwargs.get("closure") is not None:
            sentence = "personal_optimizer.step(closure) computes its gradients after we could "
            raise ContractError("OptimizerUnsupported", f"{sentence}add to them; step without one")
        for parameter, begin in around:
            if parameter.grad is not None:
                parameter.grad.add_(parameter - begin.to(parameter.device), alpha=strength)

    return draw
