"""What stays at home: layers that never travel, and who gives them back."""

import json
import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from fedtrain import partial, rounds
from fedtrain.contract import ImportTask, ModelRef
from fedtrain.errors import ContractError, DataError, TryAgain
from fedtrain.home import Home, KeptTensors
from fedtrain.memory import Memory
from fedtrain.models import weights_of
from fedtrain.weights import Array

pytestmark = pytest.mark.processes

OWN = {"exclude": ("head.*",)}
MARK = 12345.678


def a_model(head: float = MARK) -> dict[str, Array]:
    return {
        "body.w": np.zeros(4, np.float32),
        "head.w": np.full((2, 3), head, np.float64),
        "head.n": np.array([7], np.int64),
    }


def everything_in(folder: Path) -> Iterator[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


class AtHome:
    """Participant north of a training that keeps its head at home."""

    def __init__(self, federation: Any, **patterns: Any) -> None:
        self.federation, self.patterns = federation, patterns or OWN

    def begin(self, model: Any) -> None:
        exchange = self.federation.exchange
        self.federation.perform(exchange.init(**self.patterns))
        assert list(rounds(model)) == []
        manifest = json.loads((exchange.root / "global/0/1/manifest.json").read_text())
        exchange.model = ModelRef(path="global/0/1", digest=manifest["digest"])

    def train(self, model: Any, number: int, by: float, attempt: int = 1, **changes: Any) -> Any:
        """One round in which `by` is added to everything; the head that the body was given."""
        task = self.federation.exchange.train(round=number, attempt=attempt, **self.patterns)
        self.federation.perform(replace(task, **changes))
        began = None
        for rnd in rounds(model):
            began = model["head.w"].copy(), model["head.n"].copy()
            for array in model.values():
                array += np.asarray(by, array.dtype)
            rnd.submit(samples=1)
        return began


@pytest.fixture
def north(federation: Any) -> AtHome:
    made = AtHome(federation)
    made.begin(a_model())
    return made


def test_what_is_excluded_never_crosses_the_volume(north: AtHome) -> None:
    north.train(a_model(), 1, by=1.0)
    root = north.federation.exchange.root
    held = dict(everything_in(root))
    assert any(path.name == "update.safetensors" for path in held)
    for value in (np.float64(MARK), np.float32(MARK), np.float64(MARK + 1), np.float32(MARK + 1)):
        assert not [path for path, data in held.items() if value.tobytes() in data]
    assert not [path for path, data in held.items() if b"head" in data]
    kept = dict(everything_in(north.federation.scratch))
    assert [path.name for path, data in kept.items() if np.float64(MARK + 1).tobytes() in data] == [
        "layers.safetensors"
    ]


def test_own_layers_are_those_of_the_last_accepted_attempt(north: AtHome) -> None:
    accept = north.federation.accept
    head, count = north.train(a_model(), 1, by=1.0)
    assert (head[0, 0], count[0]) == (MARK, 7)  # the first time: as the script built them
    accept(1, {"north": (1, 1)})
    head, count = north.train(a_model(), 2, by=10.0)
    assert (head[0, 0], count[0]) == (MARK + 1, 8)
    accept(2, {"north": (1, 1)})  # the second one was refused
    head, _ = north.train(a_model(), 3, by=100.0, attempt=1)
    assert head[0, 0] == MARK + 1
    north.train(a_model(), 3, by=200.0, attempt=2)
    accept(3, {"north": (3, 1)})
    head, _ = north.train(a_model(), 4, by=0.0)
    assert head[0, 0] == MARK + 101


def test_a_process_that_lives_on_begins_as_a_new_one_would(north: AtHome) -> None:
    """Where nothing was accepted yet that is what the script built, not what it trained since."""
    task = north.federation.exchange.train(**OWN)
    model = a_model()
    home = Home(whole=weights_of(model), **OWN)
    memory = Memory.of(task, None)
    home.begin(memory, lambda act: act())
    model["head.w"] += 5
    model["head.n"] += 5
    home.begin(memory, lambda act: act())
    assert (model["head.w"][0, 0], model["head.n"][0]) == (MARK, 7)
    model["body.w"] += 5
    home.begin(memory, lambda act: act())
    assert model["body.w"][0] == 5  # the rest is the global model's business


def test_an_evaluation_sees_the_global_model_with_the_own_layers(north: AtHome) -> None:
    north.train(a_model(), 1, by=1.0)
    north.federation.accept(1, {"north": (1, 1)})
    seen = {}

    def evaluate(model: Any) -> dict[str, float]:
        seen.update({name: array.reshape(-1)[0] for name, array in model.items()})
        return {"head": float(model["head.w"][0, 0])}

    north.federation.perform(north.federation.exchange.evaluate(round=1, **OWN))
    assert list(rounds(a_model(head=0.0), evaluate=evaluate)) == []
    assert seen == {"body.w": 0.0, "head.w": MARK + 1, "head.n": 8}


def test_another_head_than_was_kept_is_refused_and_a_broken_file_tried_again(
    north: AtHome,
) -> None:
    north.train(a_model(), 1, by=1.0)
    north.federation.accept(1, {"north": (1, 1)})
    wider = a_model() | {"head.w": np.zeros((2, 4))}
    with pytest.raises(ContractError, match=r"layers\.safetensors was kept of another model"):
        north.train(wider, 2, by=1.0)
    (file,) = north.federation.scratch.rglob("layers.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(TryAgain) as failed:
        north.train(a_model(), 2, by=1.0)
    assert failed.value.reason == "StateUnreadable"


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        ({"exclude": ("tail.*",)}, r"spec\.exchange\.exclude: 'tail\.\*' matches no tensor"),
        ({"include": ("body.*", "neck")}, r"spec\.exchange\.include: 'neck' matches no tensor"),
        ({"exclude": ("*",)}, "all tensors would stay at home"),
        ({"include": ("head.*",), "exclude": ("head.?",)}, "all tensors would stay at home"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(
    federation: Any, patterns: Any, says: str
) -> None:
    with pytest.raises(ContractError, match=says):
        AtHome(federation, **patterns).begin(a_model())


def test_include_names_what_travels_and_exclude_takes_from_it() -> None:
    weights, home = partial.parted(weights_of(a_model()), ("body.*", "head.*"), ("*.n",))
    assert [spec.name for spec in weights.schema.tensors] == ["body.w", "head.w"]
    assert home == ("head.n",)
    whole, nothing = partial.parted(weights_of(a_model()), (), ())
    assert nothing == ()
    assert len(whole.schema.tensors) == 3


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_a_tie_across_the_border_is_refused_and_one_on_either_side_is_not() -> None:
    with pytest.raises(ContractError, match="are one tensor, of which one would travel"):
        partial.parted(weights_of(Tied()), (), ("head.*",))
    weights, home = partial.parted(weights_of(Tied()), (), ("head.*", "embed.*"))
    assert home == ("embed.weight",)
    assert "head.weight" not in weights.names()
    weights, home = partial.parted(weights_of(Tied()), (), ("norm.*",))  # FedBN
    assert weights.names()["head.weight"] == "embed.weight"
    assert len(home) == 5


def test_the_proximal_term_is_over_what_travels() -> None:
    model = a_model()
    weights, _ = partial.parted(weights_of(model), (), OWN["exclude"])
    term = weights.proximal(2.0)
    for array in model.values():
        array += np.asarray(1, array.dtype)
    gradients = term.gradients()
    assert gradients.pop("body.w").tolist() == [2.0] * 4
    # Zeros for what stays at home: a script adds the terms of all its arrays in one loop.
    assert gradients.keys() == {n for n, a in model.items() if a.dtype.kind == "f"} - {"body.w"}
    assert not any(gradient.any() for gradient in gradients.values())


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_is_kept_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    wanted = data.draw(st.lists(st.tuples(shapes, st.sampled_from(DTYPES)), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))

    def built() -> nn.Module:
        module = nn.Module()
        for index, (shape, dtype) in enumerate(wanted):
            values = torch.randn(shape, dtype=torch.float64, generator=generator) * 3
            module.register_buffer(f"t{index}", values.to(dtype))
        return module

    before, after = built(), built()
    names = [f"t{index}" for index in range(len(wanted))]
    folder = tmp_path_factory.mktemp("kept")
    KeptTensors(weights_of(before), names, "layers.safetensors").write(folder)

    class Kept:
        def tensors(self, file: str) -> Any:
            from fedtrain.tensorfile import TensorFile

            return TensorFile.open(folder / file)

        def read(self, file: Any, name: str, start: int, stop: int) -> Array:
            return np.asarray(file.read(name, start, stop))

    kept = KeptTensors(weights_of(after), names, "layers.safetensors")
    memory: Any = Kept()
    assert kept.restore(memory, lambda act: act())
    for name in names:
        one, other = getattr(before, name), getattr(after, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_an_imported_checkpoint_leaves_at_home_what_does_not_travel(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from fedtrain.aggregation.importing import import_model

    save_file(a_model(), tmp_path / "all.safetensors")
    task = ImportTask(
        training="digits",
        uid="u",
        round=0,
        attempt=1,
        source=str(tmp_path / "all.safetensors"),
        output="global/0/1",
        **OWN,
    )
    import_model(task, tmp_path)
    schema = json.loads((tmp_path / "global/0/1/schema.json").read_text())
    assert [tensor["name"] for tensor in schema["tensors"]] == ["body.w"]
    with pytest.raises(DataError, match="no floating tensor that is exchanged"):
        import_model(replace(task, output="global/0/2", include=("head.n",)), tmp_path)


def test_every_rank_is_given_the_layers_that_rank_0_kept(north: AtHome) -> None:
    north.train(a_model(), 1, by=1.0)
    north.federation.accept(1, {"north": (1, 1)})
    task = north.federation.exchange.train(round=2, **OWN)
    memory = Memory.of(task, (1, 1))
    elsewhere = replace(memory, folder=memory.folder / "another node's", accepted=None)
    told: queue.Queue[Any] = queue.Queue()
    models = a_model(head=0.0), a_model(head=0.0)

    def first(act: Any) -> Any:
        told.put(act())
        return told.queue[-1]

    Home(whole=weights_of(models[0]), **OWN).begin(memory, first)
    Home(whole=weights_of(models[1]), **OWN).begin(elsewhere, lambda _: told.get(timeout=1))
    assert told.empty()
    for model in models:
        assert (model["head.w"][0, 0], model["head.n"][0]) == (MARK + 1, 8)
