"""A strategy's part in the training of a torch module: done in the optimizer's step.

A hook that runs before the step adds the strategy's terms to `.grad`: after accumulation, after
clipping (which is of the loss's own gradients), after DDP's or FSDP's reduction, on each rank's own
shard. With a GradScaler the gradients are unscaled by then, but for fused optimizers, which unscale
inside their step: what is added to theirs is scaled, too, and a step that will be skipped is not
counted. Of `step(closure)` the gradients come into being inside: so the closure is wrapped.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from fedtrain.correction import COUNTING, Steps, counted, momentum_refused
from fedtrain.errors import ContractError
from fedtrain.length import Length


class Pull(Protocol):
    """FedProx's term of a module, or Ditto's, see `fedtrain.checkpoint`."""

    asked: bool
    elsewhere: bool
    mu: float

    def pulls(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(parameter, μ (w − w_t)) of each trainable parameter; nothing if μ is zero."""


class TensorCorrection:
    """One round's terms, for the optimizers that are attached.

    parameters: the model's that are trained. control: (parameter, c − c_i), without those that are
    zero.
    """

    def __init__(
        self,
        strategy: str,
        parameters: Iterable[Tensor],
        pull: Pull,
        control: Iterable[tuple[Tensor, Tensor]],
    ) -> None:
        self._strategy = strategy
        self._parameters = {id(parameter) for parameter in parameters}
        self._pull = pull
        self._control = [list(pair) for pair in control]
        self._length = Length(pull.mu)
        self._handles: list[Any] = []
        self._attached: list[Any] = []

    def attach(self, optimizer: Any) -> None:
        while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
            optimizer = optimizer.optimizer  # as Accelerate wraps them
        nothing = not self._pull.mu and self._strategy not in COUNTING
        if nothing or any(optimizer is other for other in self._attached):
            return
        self._check(optimizer)
        self._attached.append(optimizer)
        self._pull.elsewhere = True
        self._handles.append(optimizer.register_step_pre_hook(self._before_step))

    def detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._attached.clear()

    def added_to(self, terms: dict[str, Any]) -> dict[str, Any]:
        return terms

    def counted(self, told: Steps, momentum: float = 0.0) -> Steps:
        if self._strategy not in COUNTING:
            return told
        if not self._attached:
            raise ContractError(
                "OptimizerMissing",
                f"{self._strategy} takes place in the optimizer's steps: pass optimizer= to "
                "rounds(...), or call rnd.attach(optimizer) before the first step",
            )
        return counted(self._length)

    def _check(self, optimizer: Any) -> None:
        """Raises ContractError if the strategy is not defined for it."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ContractError(
                "OptimizerUnsupported",
                f"{self._strategy} takes place in the steps of an optimizer, and a "
                f"{type(optimizer).__name__} is no torch.optim.Optimizer",
            )
        own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not any(id(parameter) in self._parameters for parameter in own):
            raise ContractError(
                "OptimizerUnsupported",
                "the optimizer has no parameter of the model that rounds(...) was given; wrap or "
                "shard the model, then make the optimizer, then call rounds(...)",
            )
        if self._strategy not in COUNTING:
            return
        if self._attached:
            raise _unsupported(self._strategy, "a second optimizer cannot be counted")
        if not isinstance(optimizer, torch.optim.SGD):
            kind = type(optimizer).__name__
            raise _unsupported(self._strategy, f"what {kind} makes of a gradient has no such norm")
        for group in optimizer.param_groups:
            if self._strategy == "SCAFFOLD" and group["momentum"]:
                raise momentum_refused(float(group["momentum"]))

    def _before_step(
        self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and bool(skipped):
            return None
        self._count(optimizer)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._add_terms(optimizer)
            return None
        return (args[0],), {**kwargs, "closure": self._wrapped(closure, optimizer)}

    def _wrapped(self, closure: Callable[[], Any], optimizer: Any) -> Callable[[], Any]:
        def corrected() -> Any:
            loss = closure()
            self._add_terms(optimizer)
            return loss

        return corrected

    def _count(self, optimizer: Any) -> None:
        if self._strategy not in COUNTING:
            return
        settings = [_settings(group) for group in optimizer.param_groups]
        if any(other != settings[0] for other in settings):
            raise _unsupported(
                self._strategy,
                "groups of different learning rates or momenta have no one norm",
            )
        self._length.step(*settings[0])

    @torch.no_grad()
    def _add_terms(self, optimizer: Any) -> None:
        scale = getattr(optimizer, "grad_scale", None)
        factor = 1.0 if scale is None else float(scale)
        factors = {
            id(parameter): -factor if group.get("maximize") else factor
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for parameter, term in self._terms():
            if id(parameter) not in factors or not parameter.requires_grad:
                continue
            if parameter.grad is None:  # the loss did not see it; the term does
                parameter.grad = torch.zeros_like(parameter)
            elif parameter.grad.layout is not torch.strided:
                parameter.grad = parameter.grad.to_dense()
            parameter.grad.add_(term, alpha=factors[id(parameter)])

    def _terms(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._pull.asked = True
        yield from self._pull.pulls()
        for pair in self._control:
            parameter, term = pair
            if term.device != parameter.device:
                pair[1] = term = term.to(parameter.device)
            yield parameter, term


def _settings(group: Mapping[str, Any]) -> tuple[float, float, float, bool]:
    """What `Length.step` takes."""
    return (
        float(group["lr"]),
        float(group["momentum"]),
        float(group["dampening"]),
        bool(group["nesterov"]),
    )


def _unsupported(strategy: str, why: str) -> ContractError:
    return ContractError(
        "OptimizerUnsupported",
        f"{strategy} is defined for SGD: {why}; use torch.optim.SGD, or another strategy",
    )
