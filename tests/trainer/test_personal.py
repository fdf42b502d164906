"""A personal model beside the global one (Ditto), and the last phase that fine-tunes."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain import rounds
from fedtrain.contract import ParticipantTask, Receipt, Role, personalization_folder
from fedtrain.ditto import Personal
from fedtrain.errors import ContractError
from fedtrain.models import weights_of
from fedtrain.weights import Array

pytestmark = pytest.mark.processes

PULL = 0.5
X = np.random.default_rng(0).normal(size=(12, 4))
Y = X @ np.array([1.0, -2.0, 3.0, 0.5])


def zeros() -> dict[str, Array]:
    return {"w": np.zeros(4, np.float32)}


def gradient(model: dict[str, Array]) -> Array:
    return (2 * X.T @ (X @ model["w"] - Y) / len(Y)).astype(np.float32)


def loss(model: Any) -> dict[str, float]:
    return {"loss": float(((X @ model["w"] - Y) ** 2).mean()), "samples": len(Y)}


@pytest.fixture
def begun(federation: Any) -> Any:
    federation.begin(zeros())
    return federation


def ditto(federation: Any, number: int, attempt: int = 1, pull: float | None = PULL) -> Any:
    """A round of three steps for both models; (the personal model as it began, as it ended)."""
    task = federation.exchange.train(round=number, attempt=attempt, pull=pull)
    federation.perform(task)
    model, twin = zeros(), {"w": np.full(4, 99, np.float32)}
    began = None
    for rnd in rounds(model, personal=twin):
        began = twin["w"].copy()
        for _ in range(3):
            model["w"] -= 0.1 * gradient(model)
            twin["w"] -= 0.1 * (gradient(twin) + rnd.personal_gradients()["w"])
        rnd.submit(samples=1)
    return began, twin["w"]


def naive(began: Array, around: Array) -> Array:
    """v ← v − η (∇F(v) + λ (v − w_t)), Li et al. 2021, Algorithm 1."""
    v = began.copy()
    for _ in range(3):
        v = v - np.float32(0.1) * (gradient({"w": v}) + np.float32(PULL) * (v - around))
    return v


def test_a_personal_model_follows_the_paper_and_begins_as_the_global_one(begun: Any) -> None:
    began, ended = ditto(begun, 1)
    assert began.tolist() == [0, 0, 0, 0]
    assert np.allclose(ended, naive(began, np.zeros(4, np.float32)), rtol=1e-5)


def test_it_is_kept_from_accepted_rounds_and_never_sent(begun: Any) -> None:
    _, first = ditto(begun, 1)
    begun.accept(1, {"north": (1, 1)})
    began, _ = ditto(begun, 2)
    assert began.tolist() == first.tolist()
    begun.accept(2, {"north": (1, 1)})  # the second one was lost
    began, _ = ditto(begun, 3)
    assert began.tolist() == first.tolist()
    sent = [path for path in begun.exchange.root.rglob("*") if path.is_file()]
    assert {path.name for path in sent} == {
        *("model.safetensors", "schema.json", "manifest.json"),
        *("update.safetensors", "receipt.json"),
    }
    assert not [path for path in sent if first.tobytes() in path.read_bytes()]


def test_without_a_pull_it_is_a_model_of_this_data_alone(begun: Any) -> None:
    began, ended = ditto(begun, 1, pull=None)
    alone = {"w": began.copy()}
    for _ in range(3):
        alone["w"] -= 0.1 * gradient(alone)
    assert np.array_equal(alone["w"], ended)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.b = nn.Linear(3, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.frozen(torch.tanh(self.a(x))))
        return out


def test_steps_of_a_torch_optimizer_are_drawn_as_if_the_term_stood_in_the_loss(
    federation: Any,
) -> None:
    torch.manual_seed(1)
    start = Net()
    federation.begin(start)
    begin = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    model, twin, by_hand = Net(), Net(), Net()
    by_hand.load_state_dict(begin)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.01)
    other = torch.optim.AdamW(by_hand.parameters(), lr=0.01)
    federation.perform(federation.exchange.train(pull=PULL))
    x = torch.as_tensor(X, dtype=torch.float32)
    y = torch.as_tensor(Y, dtype=torch.float32)[:, None]
    for rnd in rounds(model, personal=twin, personal_optimizer=optimizer):
        for _ in range(5):
            for half in (slice(0, 6), slice(6, 12)):  # accumulated: the pull counts once a step
                ((twin(x[half]) - y[half]) ** 2).mean().div(2).backward()
            optimizer.step()
            optimizer.zero_grad()
            term = sum(
                (parameter - begin[name]).square().sum()
                for name, parameter in by_hand.named_parameters()
                if parameter.requires_grad
            )
            (((by_hand(x) - y) ** 2).mean() + PULL / 2 * term).backward()
            other.step()
            other.zero_grad()
        rnd.submit(samples=1)
    for name, tensor in by_hand.state_dict().items():
        assert torch.allclose(twin.state_dict()[name], tensor, atol=1e-6), name
    assert not optimizer._optimizer_step_pre_hooks  # nothing of ours is left in it


def test_a_pull_is_around_what_travels_and_zero_elsewhere(begun: Any) -> None:
    begun.perform(begun.exchange.train(pull=PULL))
    for rnd in rounds(zeros(), personal={**zeros(), "own": np.ones(2)}):
        assert rnd.personal_gradients()["own"].tolist() == [0, 0]
        rnd.submit(samples=1)


def drawn_alone(federation: Any, make: Any, step: Any) -> dict[str, Array]:
    """The twin of a net of ones with an optimizer that `make` makes; the global model is zero."""
    model, twin = nn.Linear(4, 1), nn.Linear(4, 1)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    federation.begin(model)
    federation.perform(federation.exchange.train(pull=PULL))
    for rnd in rounds(model, personal=twin, personal_optimizer=(optimizer := make(twin))):
        for parameter in twin.parameters():
            nn.init.ones_(parameter)
        step(twin, optimizer)
        rnd.submit(samples=1)
    return {name: tensor.numpy() for name, tensor in twin.state_dict().items()}


def test_a_fused_optimizer_under_a_scaler_is_drawn_as_much(federation: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(twin: nn.Module, optimizer: Any) -> None:
        scaler.scale(twin(torch.ones(1, 4)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    own = drawn_alone(federation, lambda m: torch.optim.SGD(m.parameters(), 0.1, fused=True), step)
    expected = np.full((1, 4), 1 - 0.1 * (1 + PULL * 1), np.float32)
    assert np.allclose(own["weight"], expected)


def test_an_optimizer_that_maximizes_is_drawn_and_not_pushed(federation: Any) -> None:
    def step(twin: nn.Module, optimizer: Any) -> None:
        (0 * twin(torch.ones(1, 4)).sum()).backward()
        optimizer.step()

    def make(twin: nn.Module) -> Any:
        return torch.optim.SGD(twin.parameters(), 0.1, maximize=True)

    own = drawn_alone(federation, make, step)
    assert np.allclose(own["weight"], 1 - 0.1 * PULL)


def test_a_step_with_a_closure_is_drawn(federation: Any) -> None:
    def step(twin: nn.Module, optimizer: Any) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = twin(torch.ones(1, 4)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    own = drawn_alone(federation, lambda m: torch.optim.SGD(m.parameters(), 0.1), step)
    assert np.allclose(own["weight"], 1 - 0.1 * (1 + PULL))


def test_the_learning_rate_of_a_round_before_is_no_longer_that_of_the_personal_optimizer(
    federation: Any,
) -> None:
    model, twin = nn.Linear(4, 1), nn.Linear(4, 1)
    federation.begin(model)
    own = torch.optim.SGD(twin.parameters(), lr=0.1)
    personal = Personal(twin, own)
    own.param_groups[0]["lr"] = 1e-9  # by a scheduler, in a round of this same process
    personal.pull(weights_of(model), PULL)
    assert own.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"pass rounds\(\.\.\., personal=a second model"),
        ({"personal": {"w": np.zeros(5, np.float32)}}, r"'w' \[4\], the personal one has it as"),
        ({"personal": {"v": np.zeros(4, np.float32)}}, "the personal one lacks it"),
        ({"personal": zeros(), "personal_optimizer": object()}, "use rnd.personal_gradients"),
    ],
)
def test_a_personal_model_that_cannot_be_used_is_refused(
    begun: Any, options: Any, says: str
) -> None:
    begun.perform(begun.exchange.train(pull=PULL))
    with pytest.raises(ContractError, match=says):
        list(rounds(zeros(), **options))


def test_a_torch_model_with_a_pull_needs_its_optimizer(federation: Any) -> None:
    federation.begin(Net())
    federation.perform(federation.exchange.train(pull=PULL))
    with pytest.raises(ContractError, match="personal_optimizer="):
        list(rounds(Net(), personal=Net()))


def test_an_evaluation_measures_both_models(begun: Any) -> None:
    _, twin = ditto(begun, 1)
    begun.accept(1, {"north": (1, 1)})
    task = begun.exchange.evaluate(round=1)
    begun.perform(task)
    assert list(rounds(zeros(), personal=zeros(), evaluate=loss)) == []
    metrics = begun.exchange.receipt(task).metrics
    assert metrics == {
        "loss": pytest.approx(loss(zeros())["loss"]),
        "personal_loss": pytest.approx(loss({"w": twin})["loss"]),
    }


def fine_tuning(federation: Any, **changes: Any) -> ParticipantTask:
    task = federation.exchange.train(round=3, **changes)
    output = personalization_folder("north", 3, task.attempt)
    return replace(task, role=Role.PERSONALIZE, output=output)


def test_the_last_phase_measures_trains_and_measures_and_sends_no_model(begun: Any) -> None:
    task = fine_tuning(begun, parameters={"lr": 0.1})
    begun.perform(task)
    model = zeros()
    for rnd in rounds(model, evaluate=loss):
        assert (rnd.final, rnd.number) == (True, 4)
        for _ in range(5):
            model["w"] -= rnd.parameters["lr"] * gradient(model)
        rnd.submit(samples=1, metrics={"ignored": 1.0})
    receipt = begun.exchange.receipt(task)
    assert (receipt.before, receipt.metrics) == (
        {"loss": pytest.approx(loss(zeros())["loss"])},
        {"loss": pytest.approx(loss(model)["loss"])},
    )
    assert (receipt.samples, receipt.digest) == (len(Y), None)
    published = Path(begun.exchange.root / task.output)
    assert [entry.name for entry in published.iterdir()] == ["receipt.json"]


def test_the_fine_tuned_model_stays_on_the_scratch_with_its_metrics(begun: Any) -> None:
    from safetensors.numpy import load_file

    for attempt in (1, 2):
        begun.perform(fine_tuning(begun, attempt=attempt))
        model = zeros()
        for rnd in rounds(model, evaluate=loss):
            model["w"] += attempt
            rnd.submit(samples=1)
    (folder,) = (begun.scratch / "digits-0123-456/north/personal").iterdir()
    assert folder.name == "3-2"
    assert load_file(folder / "model.safetensors")["w"].tolist() == [2, 2, 2, 2]
    told = json.loads((folder / "metrics.json").read_text())
    receipt = (begun.exchange.root / personalization_folder("north", 3, 2)) / "receipt.json"
    assert told == {
        "before": dict(Receipt.from_json(receipt.read_text()).before),
        "after": dict(Receipt.from_json(receipt.read_text()).metrics),
    }


def test_the_last_phase_has_the_own_layers_and_the_personal_model(begun: Any) -> None:
    ditto(begun, 1)
    begun.accept(1, {"north": (1, 1)})
    begun.perform(fine_tuning(begun, pull=PULL))
    twin = zeros()
    for rnd in rounds(zeros(), personal=twin, evaluate=loss):
        assert rnd.personal_gradients()["w"].any()
        rnd.submit(samples=1)
    (folder,) = (begun.scratch / "digits-0123-456/north/personal").iterdir()
    assert sorted(entry.name for entry in folder.iterdir()) == [
        *("metrics.json", "model.safetensors", "personal.safetensors")
    ]
    assert set(json.loads((folder / "metrics.json").read_text())["after"]) == {
        *("loss", "personal_loss")
    }


def test_the_last_phase_leaves_signals_as_they_were_and_no_snapshot(begun: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    begun.perform(fine_tuning(begun))
    for rnd in rounds(zeros(), evaluate=loss):
        rnd.resume(every=1)
        rnd.step(step=1)
        rnd.submit(samples=1)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list((begun.scratch / "digits-0123-456/north/midround").glob("*"))


def test_the_last_phase_without_evaluate_or_submit_says_so(begun: Any) -> None:
    begun.perform(fine_tuning(begun))
    with pytest.raises(ContractError, match="pass evaluate="):
        list(rounds(zeros()))
    with pytest.raises(ContractError, match=r"without rnd\.submit"):
        list(rounds(zeros(), evaluate=loss))
