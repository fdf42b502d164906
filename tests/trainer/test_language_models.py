"""The language models of the examples in small form: their scripts, as participants run them."""

import runpy
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedtrain.aggregation import engine
from fedtrain.contract import (
    BASE_ENV,
    ROOT_ENV,
    TASK_ENV,
    AggregateTask,
    ModelRef,
    ParticipantTask,
    Receipt,
    Role,
    encode_task,
    evaluation_folder,
    global_folder,
    update_folder,
)

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.processes,  # in this one, but for half a minute
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # by PEFT
]

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = ("docs", "headers", "licenses")
ROUNDS, STEPS = 3, 20
SMALL = ["--length", "64", "--kilobytes", "60", "--lr", "1e-2", "--steps", str(STEPS)]


class Training:
    """Its exchange, and this process in the role of whoever is asked for."""

    def __init__(
        self, root: Path, patch: pytest.MonkeyPatch, script: Path, adapters: Any = None
    ) -> None:
        self.root, self._patch, self._script, self._adapters = root, patch, script, adapters
        self.start = self.model = ModelRef(path="", digest="")
        patch.setenv(ROOT_ENV, str(root))
        patch.setattr(sys, "excepthook", sys.excepthook)

    def run(self, task: ParticipantTask, *arguments: str) -> None:
        self._patch.setenv(TASK_ENV, encode_task(task))
        self._patch.setattr(sys, "argv", [str(self._script), *arguments])
        runpy.run_path(str(self._script), run_name="__main__")

    def begin(self, *arguments: str) -> None:
        self.run(self._task(Role.INIT, 0, "a", global_folder(0, 1), model=None), *arguments)
        manifest = engine.Manifest.from_json((self.root / "global/0/1/manifest.json").read_text())
        self.start = self.model = ModelRef(path=global_folder(0, 1), digest=manifest.digest)

    def train(self, number: int, participant: str, *arguments: str) -> Receipt:
        folder = update_folder(participant, number, 1)
        self.run(self._task(Role.TRAIN, number, participant, folder), *arguments)
        return self._receipt(folder)

    def evaluate(self, number: int, participant: str, *arguments: str) -> dict[str, float]:
        folder = evaluation_folder(participant, number, 1)
        self.run(self._task(Role.EVALUATE, number, participant, folder), *arguments)
        return dict(self._receipt(folder).metrics)

    def aggregate(self, number: int, participants: Iterable[str], **strategy: Any) -> Any:
        """What the aggregation measured; its result is the global model from then on."""
        task = AggregateTask(
            training="small",
            uid="0123-4567",
            round=number,
            attempt=1,
            model=self.model,
            output=global_folder(number, 1),
            candidates=tuple((name, 1) for name in sorted(participants)),
            minimum=1,
            strategy=strategy or {"name": "FedAvg"},
            keep_globals=100,
            keep_updates=100,
            adapters=self._adapters and {"aggregation": self._adapters["aggregation"], "ranks": {}},
        )
        result = engine.aggregate(task, self.root, threads=1).result
        self.model = ModelRef(path=task.output, digest=result["digest"])
        return result

    def _task(self, role: Role, number: int, name: str, output: str, **changes: Any) -> Any:
        task = ParticipantTask(
            role=role,
            training="small",
            uid="0123-4567",
            round=number,
            participant=name,
            attempt=1,
            output=output,
            model=self.model,
            seed=1,
            adapters=self._adapters,
        )
        return replace(task, **changes)

    def _receipt(self, folder: str) -> Receipt:
        return Receipt.from_json((self.root / folder / "receipt.json").read_text())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, pre-trained for some seconds."""
    folder = tmp_path_factory.mktemp("pretrained") / "base"
    small = ["--width", "48", "--layers", "2", "--steps", "150", "--length", "64"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pretrain.py", "--save", str(folder), *small])
        runpy.run_path(str(EXAMPLES / "02-lora-llm" / "pretrain.py"), run_name="__main__")
    return folder


@pytest.mark.parametrize("aggregation", ["Product"])
def test_the_federated_adapter_beats_the_base_and_every_participants_own(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aggregation: str
) -> None:
    monkeypatch.setenv(BASE_ENV, str(base))
    script = EXAMPLES / "02-lora-llm" / "train.py"
    training = Training(tmp_path, monkeypatch, script, {"aggregation": aggregation, "rank": 4})
    training.begin(*SMALL)

    def perplexity(number: int) -> float:
        """Mean over the participants, of the global model on their held-out text."""
        found = [
            training.evaluate(number, kind, "--text", kind, *SMALL)["perplexity"] for kind in KINDS
        ]
        return sum(found) / len(found)

    of_base = perplexity(0)
    for number in range(1, ROUNDS + 1):
        for kind in KINDS:
            training.train(number, kind, "--text", kind, *SMALL)
        training.aggregate(number, KINDS)
    of_federation = perplexity(ROUNDS)

    own = {}
    for number, kind in enumerate(KINDS, start=50):
        training.model = training.start
        longer = [*SMALL[:-1], str(ROUNDS * STEPS)]
        training.train(number, kind, "--text", kind, *longer)
        training.aggregate(number, [kind])
        own[kind] = perplexity(number)
    print(of_base, of_federation, own)
    assert of_federation < 0.98 * min(of_base, *own.values())

    size = (base / "model.safetensors").stat().st_size
    for file in tmp_path.rglob("*.safetensors"):
        assert file.stat().st_size < size / 4, file
