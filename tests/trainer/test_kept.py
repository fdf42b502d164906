"""`spec.optimizerState`: one process for many rounds and a process for each do the same."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedtrain import rounds
from fedtrain.collective import Alone
from fedtrain.contract import SCRATCH_ENV
from fedtrain.errors import ContractError, TryAgain
from fedtrain.home import Home
from fedtrain.kept import Kept
from fedtrain.meeting import Meeting
from fedtrain.models import weights_of
from fedtrain.optimizers import hyperparameters
from fedtrain.session import Session
from fedtrain.store import Store

pytestmark = pytest.mark.processes


class Site:
    """Participant north with a model and an optimizer: as long as it lives, one process."""

    def __init__(
        self, federation: Any, kind: str = "AdamW", state: str = "Keep", resident: bool = False
    ) -> None:
        torch.manual_seed(0)
        self.federation, self.state = federation, state
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1, dtype=torch.float32))
        options = {"momentum": 0.9} if kind == "SGD" else {}
        self.optimizer = getattr(torch.optim, kind)(self.model.parameters(), lr=0.1, **options)
        # A resident process enters `rounds` once, whatever becomes of its optimizer afterwards.
        self.kept = Kept(self.model, self.optimizer, Alone()) if resident else None

    def enter(self, number: int, attempt: int = 1) -> Iterator[Any]:
        task = self.federation.exchange.train(
            round=number, attempt=attempt, optimizer_state=self.state
        )
        if self.kept is None:
            self.federation.perform(task)
            yield from rounds(self.model, optimizer=self.optimizer)
            return
        weights = weights_of(self.model)
        store = Store(root=self.federation.exchange.root, task=task)
        session = Session(
            store=store,
            ranks=Meeting(Alone()),
            home=Home(whole=weights),
            done=lambda task, receipt: None,
            model=self.model,
            kept=self.kept,
        )
        store.load(weights)
        yield from session.train()

    def train(self, number: int, attempt: int = 1) -> str:
        """Take part in a round, and decay the learning rate in it; the update's digest."""
        for rnd in self.enter(number, attempt):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(rnd.seed))
            for _ in range(3):
                loss = functional.mse_loss(self.model(x), x.sum(1, keepdim=True))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.optimizer.param_groups[0]["lr"] *= 0.5
            rnd.submit(samples=8)
        exchange = self.federation.exchange
        return str(exchange.receipt(exchange.train(round=number, attempt=attempt)).digest)

    def began(self, number: int, attempt: int) -> dict[str, torch.Tensor]:
        """The state that a round begins with: of that attempt, which then is not submitted."""
        loop = self.enter(number, attempt)
        next(loop)
        slots = self.optimizer.state.get(self.model[0].weight, {})
        found = {name: value.clone() for name, value in slots.items()}
        loop.close()
        return found


@pytest.fixture
def federation(federation: Any) -> Any:
    torch.manual_seed(0)
    federation.begin(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)))
    return federation


def play(federation: Any, site: Any) -> list[str]:
    """Three rounds, of which the second is tried twice and its first attempt accepted."""
    digests = [site().train(1)]
    federation.accept(1, {"north": (1, 1)})
    digests += [site().train(2, attempt=1), site().train(2, attempt=2)]
    federation.accept(2, {"north": (2, 1)})
    return [*digests, site().train(3)]


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
@pytest.mark.parametrize("state", ["Keep", "Reset"])
def test_many_rounds_in_one_process_are_those_of_a_process_each(
    federation: Any, kind: str, state: str
) -> None:
    before = federation.exchange.model
    resident = Site(federation, kind, state, resident=True)
    in_one = play(federation, lambda: resident)
    for folder in ("updates", "global/1", "global/2"):
        shutil.rmtree(federation.exchange.root / folder)
    shutil.rmtree(federation.scratch, ignore_errors=True)
    federation.exchange.model = before
    in_many = play(federation, lambda: Site(federation, kind, state))
    assert in_one == in_many
    assert in_one[1] == in_one[2]  # the same round again, from the same state


def test_what_is_given_back_is_of_the_last_accepted_round_to_the_bit(federation: Any) -> None:
    site = Site(federation)
    site.train(1)
    kept = {n: v.clone() for n, v in site.optimizer.state[site.model[0].weight].items()}
    federation.accept(1, {"north": (1, 1)})
    site.train(2)  # is refused
    federation.accept(2, {"north": (1, 1)})
    again = Site(federation).began(3, 1)
    assert sorted(again) == ["exp_avg", "exp_avg_sq", "step"]
    for name, value in kept.items():
        assert torch.equal(again[name], value), name
        assert again[name].dtype == value.dtype
    assert again["step"].item() == 3


def test_reset_begins_with_nothing_and_the_learning_rate_is_the_scripts(federation: Any) -> None:
    site = Site(federation, state="Reset")
    site.train(1)
    federation.accept(1, {"north": (1, 1)})
    assert site.optimizer.param_groups[0]["lr"] == 0.1 * 0.5**3
    assert site.began(2, 1) == {}
    keeping = Site(federation)
    keeping.train(2, attempt=2)
    federation.accept(2, {"north": (2, 2)})
    other = Site(federation)
    assert other.began(3, 1) != {}
    assert other.optimizer.param_groups[0]["lr"] == 0.1


def test_what_rounds_begin_with_is_what_the_optimizer_was_given_by_the_script() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.5))
    kept = Kept(model, optimizer, Alone())
    place = optimizer.param_groups[0]["lr"]
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    place.fill_(0.1)
    kept.reset()
    assert optimizer.param_groups[0]["lr"] is place
    assert place.item() == 0.5
    assert "initial_lr" not in hyperparameters(optimizer)[0]


def test_keep_without_an_optimizer_is_refused(federation: Any) -> None:
    federation.perform(federation.exchange.train(optimizer_state="Keep"))
    with pytest.raises(ContractError, match="pass optimizer= to rounds") as refused:
        next(rounds(Site(federation).model))
    assert refused.value.reason == "NoOptimizer"


def test_what_has_no_state_dict_cannot_be_kept(federation: Any) -> None:
    federation.perform(federation.exchange.train(optimizer_state="Keep"))
    with pytest.raises(ContractError, match="no state_dict") as refused:
        next(rounds(Site(federation).model, optimizer=object()))
    assert refused.value.reason == "ResumeUnsupported"


def test_a_lost_scratch_begins_anew_and_a_spoilt_one_is_told(
    federation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Site(federation).train(1)
    federation.accept(1, {"north": (1, 1)})
    folder = Path(federation.scratch) / "digits-0123-456/north/optimizer/1-1"
    file = next(folder.glob("*.distcp"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] + bytes(20))
    with pytest.raises(TryAgain, match="is not what was written there") as failed:
        Site(federation).began(2, 1)
    assert failed.value.reason == "StateUnreadable"
    shutil.rmtree(folder)
    assert Site(federation).began(2, 1) == {}
    assert "is not on this scratch: it begins anew" in capsys.readouterr().err


def test_states_that_can_never_be_given_back_are_removed(federation: Any) -> None:
    for number in (1, 2, 3):
        Site(federation).train(number)
        federation.accept(number, {"north": (1, 1)})
    folder = Path(federation.scratch) / "digits-0123-456/north/optimizer"
    assert sorted(entry.name for entry in folder.iterdir()) == ["1-1", "3-1"]


def test_without_scratch_a_process_for_many_rounds_keeps_it_all_the_same(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SCRATCH_ENV)
    site = Site(federation)
    site.train(1)
    federation.accept(1, {"north": (1, 1)})
    assert site.began(2, 1)["step"].item() == 3


class Momentum:
    """An optimizer for arrays, of the script's own."""

    def __init__(self) -> None:
        self.velocity = np.zeros(4, np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.velocity[...] = state["velocity"]


def test_an_optimizer_for_arrays_is_kept_too(
    exchange: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.trainer.conftest import Federation

    federation = Federation(exchange, tmp_path, monkeypatch)
    federation.begin()
    for number, began in ((1, 0.0), (2, 1.0)):
        model, momentum = {"w": np.zeros(4, np.float32)}, Momentum()
        federation.perform(exchange.train(round=number, optimizer_state="Keep"))
        for rnd in rounds(model, optimizer=momentum):
            assert momentum.velocity[0] == began
            momentum.velocity += 1
            model["w"] += momentum.velocity
            rnd.submit(samples=1)
        federation.accept(number, {"north": (number, 1)})
