"""How far a participant went: what gradients of one come to, in torch's own SGD."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.length import Length

RATES = st.lists(st.floats(1e-3, 0.3), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(
    rates=RATES,
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    dampening=st.sampled_from([0.0, 0.3]),
    nesterov=st.booleans(),
    mu=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_the_length_is_the_way_that_gradients_of_one_take_a_weight(
    rates: list[float], momentum: float, dampening: float, nesterov: bool, mu: float
) -> None:
    nesterov = nesterov and momentum > 0
    dampening = 0.0 if nesterov else dampening
    weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.SGD(
        [weight], lr=1.0, momentum=momentum, dampening=dampening, nesterov=nesterov
    )
    length = Length(mu)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = 1 + mu * weight.detach()
        optimizer.step()
        length.step(rate, momentum, dampening, nesterov)
    assert length.total == pytest.approx(-weight.item())
    assert length.steps == len(rates)
    assert length.learning_rate * length.norm == pytest.approx(length.total)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_norms_of_the_paper(steps: int) -> None:
    """Wang et al. 2020, section 4: of plain SGD, momentum ρ, and a proximal term with α = η μ."""
    plain, heavy, pulled = Length(), Length(), Length(mu=2.0)
    for _ in range(steps):
        plain.step(0.1)
        heavy.step(0.1, momentum=0.9)
        pulled.step(0.1)
    assert plain.norm == pytest.approx(steps)
    rho, alpha = 0.9, 0.2
    assert heavy.norm == pytest.approx(
        (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho), rel=1e-12
    )
    assert pulled.norm == pytest.approx((1 - (1 - alpha) ** steps) / alpha)
