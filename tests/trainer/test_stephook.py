"""A strategy's terms in the optimizer's step: whatever comes before it, and only until the end."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedtrain.correction import Correction, Steps
from fedtrain.errors import ContractError, DataError
from fedtrain.models import weights_of
from fedtrain.weights import Tiles

MU = 0.7
X = torch.linspace(-1, 1, 24).reshape(8, 3)
Y = X.sum(1, keepdim=True) ** 2


def a_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def loss_of(model: nn.Module, x: Tensor = X, y: Tensor = Y) -> Tensor:
    return nn.functional.mse_loss(model(x), y)


def a_drift(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {name: 0.1 * torch.randn_like(p) for name, p in model.named_parameters()}


def correction_of(model: nn.Module, strategy: str, mu: float = 0.0) -> tuple[Correction, Any]:
    """With the drift of `a_drift` for SCAFFOLD."""
    weights = weights_of(model)
    drift = a_drift(model) if strategy == "SCAFFOLD" else {}
    tiles: list[tuple[str, Tiles]] = [
        (name, [(0, term.reshape(-1).numpy())]) for name, term in drift.items()
    ]
    proximal = weights.proximal(mu)
    return weights.correction(strategy, proximal, tiles), proximal


@contextlib.contextmanager
def corrected(
    model: nn.Module, optimizer: torch.optim.Optimizer, strategy: str, mu: float = 0.0
) -> Iterator[Correction]:
    correction, _ = correction_of(model, strategy, mu)
    correction.attach(optimizer)
    try:
        yield correction
    finally:
        correction.detach()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def by_hand(
    steps: int,
    rate: float,
    strategy: str,
    gradient: Callable[[nn.Module], list[Tensor]] | None = None,
) -> Tensor:
    """Plain SGD with the strategy's terms, written out."""
    model = a_model()
    begin = [p.detach().clone() for p in model.parameters()]
    drift = list(a_drift(model).values())
    for _ in range(steps):
        model.zero_grad()
        if gradient is None:
            loss_of(model).backward()
            gradients = [p.grad for p in model.parameters()]
        else:
            gradients = gradient(model)
        with torch.no_grad():
            for p, w, c, g in zip(model.parameters(), begin, drift, gradients, strict=True):
                assert g is not None
                p -= rate * (g + (c if strategy == "SCAFFOLD" else MU * (p - w)))
    return weights(model)


@pytest.mark.parametrize("strategy", ["FedProx", "SCAFFOLD"])
def test_the_terms_are_added_in_the_step(strategy: str) -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with corrected(model, optimizer, strategy, MU if strategy == "FedProx" else 0):
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
    torch.testing.assert_close(weights(model), by_hand(3, 0.1, strategy))


def test_fedprox_in_the_step_is_fedprox_in_the_loss_for_any_optimizer() -> None:
    ways = []
    for in_the_step in (True, False):
        model = a_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        correction, proximal = correction_of(model, "FedProx", MU)
        if in_the_step:
            correction.attach(optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            (loss_of(model) + proximal.term()).backward()  # zero once it is in the step
            optimizer.step()
        correction.detach()
        assert proximal.asked
        ways.append(weights(model))
    torch.testing.assert_close(ways[0], ways[1])


def test_accumulation_and_clipping_are_of_the_losses_own_gradients() -> None:
    def clipped(model: nn.Module) -> list[Tensor]:
        for half in (slice(0, 4), slice(4, 8)):
            (loss_of(model, X[half], Y[half]) / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        return [p.grad for p in model.parameters() if p.grad is not None]

    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with corrected(model, optimizer, "SCAFFOLD"):
        for _ in range(3):
            optimizer.zero_grad()
            clipped(model)
            optimizer.step()
    torch.testing.assert_close(weights(model), by_hand(3, 0.1, "SCAFFOLD", clipped))


def test_a_closure_is_corrected_inside() -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    with corrected(model, optimizer, "SCAFFOLD"):
        assert optimizer.step(closure).item() == pytest.approx(loss_of(a_model()).item())  # type: ignore[attr-defined]
        optimizer.step(closure=closure)
    torch.testing.assert_close(weights(model), by_hand(2, 0.1, "SCAFFOLD"))


@pytest.mark.parametrize("fused", [False, True])
def test_with_a_grad_scaler_the_terms_are_not_scaled_and_skipped_steps_are_not_counted(
    fused: bool,
) -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    correction, _ = correction_of(model, "SCAFFOLD")
    correction.attach(optimizer)
    for spoiled in (False, True, False):
        optimizer.zero_grad()
        scaler.scale(loss_of(model)).backward()
        if spoiled:
            next(model.parameters()).grad[0, 0] = float("inf")  # type: ignore[index]
        scaler.step(optimizer)
        scaler.update()
    assert correction.counted(Steps(steps=0)).steps == 2
    correction.detach()
    torch.testing.assert_close(weights(model), by_hand(2, 0.1, "SCAFFOLD"))


def test_maximizing_turns_the_terms_with_the_gradients() -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    with corrected(model, optimizer, "SCAFFOLD"):
        for _ in range(2):
            optimizer.zero_grad()
            (-loss_of(model)).backward()
            optimizer.step()
    torch.testing.assert_close(weights(model), by_hand(2, 0.1, "SCAFFOLD"))


def test_a_parameter_that_the_loss_did_not_see_is_corrected_and_a_frozen_one_is_not() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "idle": nn.Linear(3, 1)})
    model["used"].bias.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    drift = a_drift(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with corrected(model, optimizer, "SCAFFOLD"):
        model["used"](X).sum().backward()
        optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(
        after["idle.weight"].detach(), before["idle.weight"] - 0.1 * drift["idle.weight"]
    )
    assert torch.equal(after["used.bias"], before["used.bias"])


def test_sparse_gradients_become_dense() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    before, drift = model.weight.detach().clone(), a_drift(model)["weight"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with corrected(model, optimizer, "SCAFFOLD"):
        model(torch.tensor([1, 1])).sum().backward()
        optimizer.step()
    gradient = torch.zeros(5, 2)
    gradient[1] = 2
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * (gradient + drift))


def test_after_the_round_the_optimizer_is_as_it_was() -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with corrected(model, optimizer, "SCAFFOLD") as correction:
        correction.attach(optimizer)  # twice is once
        assert len(optimizer._optimizer_step_pre_hooks) == 1
    assert not optimizer._optimizer_step_pre_hooks
    before = weights(model)
    optimizer.step()
    assert torch.equal(weights(model), before)


def test_with_a_strategy_that_has_no_part_in_it_any_optimizer_is_left_alone() -> None:
    correction, _ = correction_of(a_model(), "FedAvg")
    correction.attach(object())
    assert correction.counted(Steps(steps=3)) == Steps(steps=3)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "mu", "norm"),
    [(0.0, False, 0.0, 3.0), (0.5, False, 0.0, 4.25), (0.5, True, 0.0, 5.125), (0, False, 1, 2.71)],
)
def test_fednova_counts_the_norm_of_the_coefficients(
    momentum: float, nesterov: bool, mu: float, norm: float
) -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, nesterov=nesterov)
    with corrected(model, optimizer, "FedNova", mu) as correction:
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        took = correction.counted(Steps(steps=99))
    assert took.steps == 3
    assert took.learning_rate == pytest.approx(0.1)
    assert took.norm == pytest.approx(norm)


class Wrapper:
    """As Accelerate's: no hooks of its own, and the optimizer within."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


def test_a_wrapped_optimizer_is_corrected_too() -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    correction, _ = correction_of(model, "SCAFFOLD")
    correction.attach(Wrapper(optimizer))
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    correction.detach()


def adam(model: nn.Module) -> Any:
    return torch.optim.Adam(model.parameters())


def heavy(model: nn.Module) -> Any:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def foreign(_: nn.Module) -> Any:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)


REFUSED: list[tuple[str, Callable[[nn.Module], Any], str]] = [
    ("SCAFFOLD", adam, "SCAFFOLD is defined for SGD: .*Adam"),
    ("FedNova", adam, "FedNova is defined for SGD: .*Adam"),
    ("SCAFFOLD", heavy, "not for a momentum of 0.9"),
    ("FedNova", lambda _: object(), "object is no torch.optim.Optimizer"),
    ("FedNova", foreign, "has no parameter of the model"),
]


@pytest.mark.parametrize(("strategy", "make", "sentence"), REFUSED)
def test_an_optimizer_that_the_strategy_is_not_defined_for_is_refused(
    strategy: str, make: Callable[[nn.Module], Any], sentence: str
) -> None:
    model = a_model()
    correction, _ = correction_of(model, strategy)
    with pytest.raises(ContractError, match=sentence):
        correction.attach(make(model))


def test_two_optimizers_are_for_fedprox_alone() -> None:
    model = a_model()
    halves = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model[0], model[2])]  # type: ignore[index]
    both, _ = correction_of(model, "FedProx", MU)
    one, _ = correction_of(model, "FedNova")
    for half in halves:
        both.attach(half)
    both.detach()
    one.attach(halves[0])
    with pytest.raises(ContractError, match="a second optimizer"):
        one.attach(halves[1])
    one.detach()


def test_groups_that_go_differently_far_have_no_one_norm() -> None:
    model = a_model()
    groups = [{"params": [p], "lr": 0.1 * n} for n, p in enumerate(model.parameters(), start=1)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with (
        corrected(model, optimizer, "FedNova"),
        pytest.raises(ContractError, match="different learning rates"),
    ):
        optimizer.step()


def test_who_never_stepped_has_no_length() -> None:
    model = a_model()
    with (
        corrected(model, torch.optim.SGD(model.parameters(), lr=0.1), "FedNova") as correction,
        pytest.raises(DataError, match="0 steps"),
    ):
        correction.counted(Steps(steps=0))
    missing, _ = correction_of(model, "FedNova")
    with pytest.raises(ContractError, match=r"pass optimizer= to rounds\(...\)"):
        missing.counted(Steps(steps=3))
