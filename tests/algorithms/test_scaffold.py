"""SCAFFOLD through the SDK and the aggregator, against the algorithm as it is printed."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain import Round
from fedtrain.control import CONTROL_FILE, LOST
from fedtrain.errors import ContractError
from tests.strategies import naive

pytestmark = pytest.mark.processes

NAMES = ("a", "b", "c", "d")
STEPS = {"a": 2, "b": 5, "c": 1, "d": 3}
RATE = 0.1
ROUNDS = (("a", "b"), ("b", "c", "d"), ("a", "d"), ("a", "b", "c", "d"), ("c",))
"""Who takes part; four in all."""

Make = Callable[..., Any]


def curvature(name: str) -> np.ndarray:
    """Of a quadratic (y − o)ᵀ A (y − o) / 2, a participant's own."""
    root = np.random.default_rng(NAMES.index(name)).normal(size=(6, 6)) / 2
    return root @ root.T + np.eye(6)


def optimum(name: str) -> np.ndarray:
    return np.random.default_rng(100 + NAMES.index(name)).normal(size=6)


def gradient(name: str, y: np.ndarray) -> np.ndarray:
    return curvature(name) @ (y - optimum(name))


def numpy_round(name: str, model: dict[str, np.ndarray], spoil: float = 0) -> Callable[..., None]:
    def body(rnd: Round) -> None:
        for _ in range(STEPS[name]):
            flat = gradient(name, np.concatenate([model["u"], model["v"]]))
            terms = rnd.gradient_terms()
            for key, part in (("u", flat[:4]), ("v", flat[4:])):
                model[key] -= np.float32(RATE) * (part.astype(np.float32) + terms[key])
        model["v"] += np.float32(spoil)
        rnd.submit(samples=7, steps=STEPS[name], learning_rate=RATE)

    return body


def zeros() -> dict[str, np.ndarray]:
    return {"u": np.zeros(4, np.float32), "v": np.zeros(2, np.float32)}


def flat(tensors: dict[str, np.ndarray], prefix: str = "") -> np.ndarray:
    return np.concatenate([tensors[f"{prefix}{key}"].reshape(-1) for key in ("u", "v")])


class Twin:
    """The printed algorithm for these participants."""

    def __init__(self, eta: float = 1.0) -> None:
        self.printed = naive.Scaffold(np.zeros(6), len(NAMES), eta)

    def round(self, there: Any) -> None:
        numbers = [NAMES.index(name) for name in there]
        gradients = {n: (lambda y, n=n: gradient(NAMES[n], y)) for n in numbers}
        steps = {n: STEPS[NAMES[n]] for n in numbers}
        self.printed.round(gradients, steps, RATE, numbers)


@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_round_by_round_it_is_algorithm_1_with_option_ii(a_training: Make, eta: float) -> None:
    training = a_training(NAMES, name="SCAFFOLD", learningRate=eta).begin(zeros())
    twin, last = Twin(eta), {}
    for number, there in enumerate(ROUNDS, start=1):
        for name in there:
            model = zeros()
            training.train(name, model, numpy_round(name, model))
            last[name] = number
        training.aggregate(there)
        twin.round(there)
        assert flat(training.tensors()) == pytest.approx(twin.printed.x, abs=2e-5)
        server = flat(training.tensors("server.safetensors"), "control/")
        assert server == pytest.approx(twin.printed.c, abs=2e-5)
        own = {
            name: flat(training.kept(name, CONTROL_FILE, number)) for name, number in last.items()
        }
        for name, control in own.items():
            assert control == pytest.approx(twin.printed.own[NAMES.index(name)], abs=2e-5)
        assert server == pytest.approx(sum(own.values()) / len(NAMES), abs=1e-5)


class Quadratic(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(2))
        self.register_buffer("seen", torch.zeros(3))
        self._name = name

    def forward(self) -> torch.Tensor:
        way = torch.cat([self.u, self.v]).double() - torch.from_numpy(optimum(self._name))
        self.seen += 1
        return way @ torch.from_numpy(curvature(self._name)) @ way / 2


def test_of_a_torch_module_the_optimizer_does_it_and_buffers_stay_out_of_it(
    a_training: Make,
) -> None:
    begin = Quadratic("a")
    with torch.no_grad():
        begin.u.zero_()
        begin.v.zero_()
    training = a_training(NAMES, name="SCAFFOLD", learningRate=1.0).begin(begin)
    twin = Twin()
    for there in ROUNDS[:3]:
        for name in there:
            model = Quadratic(name)
            optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

            def body(rnd: Round, name: str = name, model: Any = model, o: Any = optimizer) -> None:
                for _ in range(STEPS[name]):
                    o.zero_grad()
                    model().backward()
                    o.step()
                rnd.submit(samples=7)

            receipt = training.train(name, model, body, optimizer=optimizer)
            assert (receipt.steps, receipt.norm) == (STEPS[name], pytest.approx(STEPS[name]))
            assert receipt.learning_rate == pytest.approx(RATE)
            assert not optimizer._optimizer_step_pre_hooks
        training.aggregate(there)
        twin.round(there)
        assert flat(training.tensors()) == pytest.approx(twin.printed.x, abs=2e-5)
    assert set(training.tensors("server.safetensors")) == {"control/u", "control/v"}


def test_a_control_variate_never_runs_ahead_of_the_accepted_rounds(a_training: Make) -> None:
    """b's second round is refused, its third is tried twice: what was lost leaves no trace."""
    training = a_training(NAMES, name="SCAFFOLD", learningRate=1.0).begin(zeros())
    twin = Twin()

    def train(name: str, **spoil: float) -> None:
        model = zeros()
        training.train(name, model, numpy_round(name, model, **spoil))

    for names in (("a", "b"), ("a",), ("a", "b")):
        train("a")
        if training.round == 1:
            train("b", spoil=1e20)  # TooLarge
            training.aggregate(["a", "b"])
        elif training.round == 2:
            train("b", spoil=3.0)  # an attempt that does not count
            train("b")
            training.aggregate(["a", "b"])
        else:
            train("b")
            training.aggregate(["a", "b"])
        twin.round(names)
        assert flat(training.tensors()) == pytest.approx(twin.printed.x, abs=2e-5)


def test_shards_of_the_server_are_read_as_one_file_is(a_training: Make) -> None:
    from fedtrain.contract import SERVER_FILE
    from fedtrain.modelfiles import INDEX_SUFFIX, index_text, shard_name
    from fedtrain.tensorfile import TensorWriter, plan

    training = a_training(NAMES, name="SCAFFOLD", learningRate=1.0).begin(zeros())
    for name in ("a", "b"):
        model = zeros()
        training.train(name, model, numpy_round(name, model))
    training.aggregate(["a", "b"])
    whole = zeros()
    training.train("c", whole, numpy_round("c", whole))
    folder = training.root / "exchange" / training.model.path
    parts = {}
    for number, (name, array) in enumerate(training.tensors(SERVER_FILE).items()):
        file = shard_name(number, 2, SERVER_FILE)
        parts[file] = plan([(name, "F32", array.shape)])
        with TensorWriter(folder / file, parts[file]) as writer:
            writer.write(name, 0, array.reshape(-1))
    (folder / SERVER_FILE).unlink()
    (folder / (SERVER_FILE + INDEX_SUFFIX)).write_text(index_text(parts))
    sharded = zeros()
    training.train("c", sharded, numpy_round("c", sharded))
    assert np.array_equal(flat(sharded), flat(whole))


def test_a_lost_control_variate_is_said_and_begins_anew(
    a_training: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    training = a_training(NAMES, name="SCAFFOLD", learningRate=1.0).begin(zeros())
    for _ in range(2):
        model = zeros()
        training.train("a", model, numpy_round("a", model))
        training.aggregate(["a"])
        shutil.rmtree(training.root / "scratch")
    assert LOST in capsys.readouterr().err


def test_a_server_state_that_is_not_what_its_digest_says_is_not_trained_on(
    a_training: Make,
) -> None:
    training = a_training(NAMES, name="SCAFFOLD", learningRate=1.0).begin(zeros())
    model = zeros()
    training.train("a", model, numpy_round("a", model))
    training.aggregate(["a"])
    path = training.root / "exchange" / training.model.path / "server.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Exception, match="has not the digest"):
        training.train("b", model, numpy_round("b", model))


BODIES: list[tuple[dict[str, Any], bool, str]] = [
    ({"samples": 1}, True, "pass steps= and learning_rate="),
    ({"samples": 1, "steps": 3}, True, "pass steps= and learning_rate="),
    ({"samples": 1, "steps": 3, "learning_rate": 0.1}, False, r"add rnd.gradient_terms\(\)"),
    (
        {"samples": 1, "steps": 3, "learning_rate": 0.1, "momentum": 0.5},
        True,
        "not for a momentum of 0.5",
    ),
]


@pytest.mark.parametrize(("said", "asked", "sentence"), BODIES)
def test_a_script_of_arrays_that_forgets_its_part_is_told(
    a_training: Make, said: dict[str, Any], asked: bool, sentence: str
) -> None:
    training = a_training(NAMES, name="SCAFFOLD", learningRate=1.0).begin(zeros())
    model = zeros()

    def body(rnd: Round) -> None:
        if asked:
            rnd.gradient_terms()
        model["u"] += 1
        rnd.submit(**said)

    with pytest.raises(ContractError, match=sentence):
        training.train("a", model, body)


def test_it_finds_the_common_optimum_where_fedavg_does_not(a_training: Make) -> None:
    """The participants' optima lie apart, and they take different numbers of steps."""
    best = np.linalg.solve(
        sum(curvature(name) for name in NAMES),
        sum(curvature(name) @ optimum(name) for name in NAMES),
    )
    twin = Twin()
    for _ in range(300):
        twin.round(NAMES)
    fedavg = np.zeros(6)
    for _ in range(300):
        moves = [
            naive.sgd(lambda y, n=name: gradient(n, y), fedavg, STEPS[name], RATE) - fedavg
            for name in NAMES
        ]
        fedavg = fedavg + np.mean(moves, axis=0)
    assert np.linalg.norm(twin.printed.x - best) < 1e-6
    assert np.linalg.norm(fedavg - best) > 0.1
