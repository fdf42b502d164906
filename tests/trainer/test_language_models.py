"""The language models of the examples in small form: their scripts, as participants run them."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fedtrain import export
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
ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / name) for name in ("operator", "trainer"))
KINDS = ("docs", "headers", "licenses")
ROUNDS, STEPS = 5, 20
MARGIN = 0.97
"""Of the federation's mean perplexity to the best of the others."""

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

    def run(self, task: ParticipantTask, *arguments: str) -> dict[str, Any]:
        """What the script has in the end."""
        self._patch.setenv(TASK_ENV, encode_task(task))
        self._patch.setattr(sys, "argv", [str(self._script), *arguments])
        return runpy.run_path(str(self._script), run_name="__main__")

    def begin(self, *arguments: str) -> None:
        self.run(self._task(Role.INIT, 0, "a", global_folder(0, 1), model=None), *arguments)
        manifest = engine.Manifest.from_json((self.root / "global/0/1/manifest.json").read_text())
        self.start = self.model = ModelRef(path=global_folder(0, 1), digest=manifest.digest)

    def train(self, number: int, participant: str, *arguments: str) -> Receipt:
        folder = update_folder(participant, number, 1)
        self.run(self._task(Role.TRAIN, number, participant, folder), *arguments)
        return self._receipt(folder)

    def evaluate(
        self, number: int, participant: str, *arguments: str
    ) -> tuple[dict[str, float], Any]:
        """Its metrics, and the global model as the script has it."""
        folder = evaluation_folder(participant, number, 1)
        had = self.run(self._task(Role.EVALUATE, number, participant, folder), *arguments)
        return dict(self._receipt(folder).metrics), had["model"]

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

    def adapter_names(self, model: ModelRef) -> set[str]:
        return set(load_file(self.root / model.path / "model.safetensors"))

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


def test_the_federated_adapter_beats_the_base_and_every_participants_own(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BASE_ENV, str(base))
    script = EXAMPLES / "02-lora-llm" / "train.py"
    adapters = {"aggregation": "Product", "rank": 4}
    training = Training(tmp_path / "exchange", monkeypatch, script, adapters)
    training.begin(*SMALL)

    def perplexity(number: int) -> float:
        """Mean over the participants, of the global model on their held-out text."""
        told = [training.evaluate(number, kind, "--text", kind, *SMALL)[0] for kind in KINDS]
        return sum(metrics["perplexity"] for metrics in told) / len(told)

    of_base = perplexity(0)
    for number in range(1, ROUNDS + 1):
        for kind in KINDS:
            training.train(number, kind, "--text", kind, *SMALL)
        measured = training.aggregate(number, KINDS)
        assert 0 < measured["residual"] < 0.5
    of_federation, federated = perplexity(ROUNDS), training.model

    own = {}
    for number, kind in enumerate(KINDS, start=ROUNDS + 1):  # as many steps, by itself
        training.model = training.start
        steps = ["--steps", str(ROUNDS * STEPS)]
        training.train(number, kind, "--text", kind, *SMALL, *steps)
        training.aggregate(number, [kind])
        own[kind] = perplexity(number)
    assert of_federation < MARGIN * min(of_base, *own.values()), (of_base, of_federation, own)

    whole = (base / "model.safetensors").stat().st_size
    sent = [file.stat().st_size for file in training.root.rglob("update.safetensors")]
    assert len(sent) == len(KINDS) * (ROUNDS + 1)
    names = training.adapter_names(federated)
    assert all("lora_" in name for name in names)
    assert max(sent) < whole / 4

    training.model = federated
    _, model = training.evaluate(ROUNDS + 9, "a", *SMALL)
    export.export(training.root / federated.path, tmp_path / "out")
    opened = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        tmp_path / "out",
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("def f(x):", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits, expected = opened.eval()(ids).logits, model.eval()(ids).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_diloco_runs_by_fedtrain_run_and_its_result_opens_in_transformers(tmp_path: Path) -> None:
    example = EXAMPLES / "03-diloco"
    document = yaml.safe_load((example / "federation.yaml").read_text())
    spec = document["spec"]
    spec["rounds"], spec["participants"] = 1, spec["participants"][:2]
    tiny = ["--length", "32", "--kilobytes", "40", "--batch", "2", "--every", "2", "--steps", "2"]
    spec["trainer"]["command"] = ["python", "train.py", *tiny]
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "train.py").write_text((example / "train.py").read_text())
    for command in (["run", "federation.yaml", "--out", "run"], ["export", "run", "model"]):
        ended = subprocess.run(
            [sys.executable, "-m", "fedoperator.cli", *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    status = yaml.safe_load((tmp_path / "run" / "status.yaml").read_text())
    assert status["metrics"]["loss"] > 0

    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    published = load_file(tmp_path / "run" / "exchange" / status["globalModel"]["path"])
    state = opened.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in published.items())
    assert opened.lm_head.weight is opened.transformer.wte.weight
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.decode(tokenizer("naïve")["input_ids"]) == "naïve"
