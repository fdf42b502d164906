"""FedProx's client term: its value, its gradient, and what it costs when it is not asked for."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain import rounds
from fedtrain.contract import ROOT_ENV, TASK_ENV, encode_task
from fedtrain.errors import ContractError
from fedtrain.models import weights_of
from fedtrain.proximal import UNUSED

pytestmark = pytest.mark.processes


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last.weight = self.first.weight
        self.last.bias.requires_grad_(False)


def test_the_term_is_half_mu_times_the_square_of_the_way_with_its_gradient() -> None:
    model = Tied()
    proximal = weights_of(model).proximal(0.5)
    begin = [parameter.detach().clone() for parameter in model.parameters()]
    assert proximal.term().item() == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
        model.norm.running_mean += 5
    proximal.term().backward()
    expected = 0.0
    for parameter, old in zip(model.parameters(), begin, strict=True):
        if parameter.requires_grad:
            way = parameter.detach() - old
            expected += 0.25 * way.double().square().sum().item()
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, 0.5 * way)
    assert model.last.bias.grad is None
    assert proximal.term().item() == pytest.approx(expected, rel=1e-6)


def test_the_term_of_a_bf16_module_is_summed_in_fp32() -> None:
    model = nn.Linear(100, 100, bias=False).bfloat16()
    proximal = weights_of(model).proximal(2.0)
    with torch.no_grad():
        model.weight.zero_()
    begun = proximal._begin[0].double()
    assert proximal.term().dtype == torch.float32
    assert proximal.term().item() == pytest.approx(begun.square().sum().item(), rel=1e-3)


def test_without_mu_nothing_is_copied_and_the_term_is_zero() -> None:
    module, arrays = weights_of(nn.Linear(2, 2)), {"w": np.ones(3), "n": np.array([1])}
    proximal = module.proximal(0.0)
    assert (proximal.term().item(), proximal._begin) == (0, [])
    plain = weights_of(arrays).proximal(0.0)
    assert plain.gradients()["w"].tolist() == [0, 0, 0]
    assert plain._begin == {}


def test_of_arrays_the_gradients_are_given_by_name() -> None:
    arrays = {"w": np.ones(3, np.float32), "b": np.zeros((), np.float64), "n": np.array([1])}
    proximal = weights_of(arrays).proximal(0.5)
    arrays["w"] += 2
    arrays["b"] -= 1
    gradients = proximal.gradients()
    assert {name: value.tolist() for name, value in gradients.items()} == {"w": [1] * 3, "b": -0.5}
    assert {name: value.dtype for name, value in gradients.items()} == {
        "w": np.float32,
        "b": np.float64,
    }


def test_each_kind_of_model_says_which_term_it_has() -> None:
    with pytest.raises(ContractError, match="pass a torch optimizer"):
        weights_of(nn.Linear(2, 2)).proximal(1.0).gradients()
    with pytest.raises(ContractError, match="gradient_terms"):
        weights_of({"w": np.ones(2)}).proximal(1.0).term()


@pytest.mark.parametrize("asked", [True, False])
def test_a_round_pulls_towards_the_global_model_and_says_when_the_term_is_forgotten(
    exchange: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: bool,
) -> None:
    script = "import numpy as np\nfrom fedtrain import rounds\n"
    script += "list(rounds({'w': np.full(2, 3, np.float32)}))\n"
    exchange.publish_initial(script)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv(ROOT_ENV, str(exchange.root))
    monkeypatch.setenv(TASK_ENV, encode_task(exchange.train(proximal=0.5)))
    model = {"w": np.zeros(2, np.float32)}
    for rnd in rounds(model):
        model["w"] += 4
        if asked:
            assert rnd.gradient_terms()["w"].tolist() == [2, 2]  # from 3, not from 0
        rnd.submit(samples=1)
    assert (UNUSED in capsys.readouterr().err) == (not asked)


def test_a_plain_local_run_has_no_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TASK_ENV, raising=False)
    model = nn.Linear(2, 1)
    for rnd in rounds(model):
        loss = model(torch.ones(2)).sum() + rnd.proximal_term()
        loss.backward()
        rnd.state["x"] = 1
        rnd.submit(samples=1)
    assert model.weight.grad is not None
