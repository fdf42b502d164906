"""What `fedtrain plan` said before a run, and what there was after it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedoperator.api.training import TrainingSpec
from fedoperator.cli import logs, main, modelsize
from fedoperator.rounds import forecast, rehearsal
from fedoperator.rounds.forecast import Forecast
from fedtrain.contract import Role

pytestmark = pytest.mark.processes

SCRIPT = '''
"""A model that is larger than its receipts, of which somebody learns nothing but noise."""

import numpy as np
from fedtrain import rounds

model = {
    "body.weight": np.zeros((400, 250), np.float32),
    "body.bias": np.zeros(250, np.float32),
    "head.weight": np.zeros((250, 40), np.float32),
    "steps": np.zeros(1, np.int64),
}
for rnd in rounds(model, evaluate=lambda m: {"loss": float(m["head.weight"].mean())}):
    generator = np.random.default_rng(rnd.seed)
    for name in ("body.weight", "head.weight"):
        model[name] += generator.standard_normal(model[name].shape, dtype=np.float32)
    rnd.submit(samples=10, metrics={"loss": 1.0})
'''
EVERYTHING = {"last": 100, "updates": 100}


def people(names: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": n, "scratch": {"claimName": f"{n}-scratch"}, **fields} for n in names]


TRAINER = {"image": "x", "command": ["python", "train.py"]}
FEDERATIONS: dict[str, dict[str, Any]] = {
    "a random half, pruned, evaluated by all now and then": {
        "rounds": 3,
        "participants": people("abcd"),
        "selection": {"fraction": 0.5, "minimum": 2, "seed": 3},
        "keep": {"last": 2, "updates": 1},
        "evaluation": {"every": 2},
    },
    "int8, server state, shards and a layer at home, all kept": {
        "rounds": 2,
        "participants": people("ab"),
        "keep": EVERYTHING,
        "strategy": {"name": "FedAdam"},
        "compression": {"codec": "Int8"},
        "aggregation": {"shards": 2},
        "exchange": {"size": "1Gi", "exclude": ["head.*"]},
        "evaluation": {},
    },
    "pods that stay, bf16, one who evaluates": {
        "rounds": 2,
        "participants": people("abc"),
        "keep": {"last": 2, "updates": 2},
        "pods": "Resident",
        "compression": {"codec": "BFloat16"},
        "selection": {"fraction": 0.6},
        "evaluation": {"by": "b"},
    },
    "two nodes, topk, and a personal model in the end": {
        "rounds": 1,
        "participants": people("ab"),
        "trainer": {**TRAINER, "nodes": 2},
        "compression": {"codec": "TopK", "fraction": 0.1},
        "evaluation": {"evaluator": {"name": "judge"}},
        "personalization": {"fineTune": {}},
    },
}


class Finished:
    """A run, and the plan for it."""

    def __init__(self, federation: Any, spec: dict[str, Any]) -> None:
        (federation.folder / "train.py").write_text(SCRIPT)
        federation.of(**{"trainer": TRAINER, "parameters": {}, **spec})
        result = federation.run()
        assert result.returncode == 0, result.stderr
        self.federation = federation
        training = federation.out / "training.yaml"
        self.spec = TrainingSpec.model_validate(_yaml(training)["spec"])
        model = modelsize.read(federation.out, self.spec)
        self.model = model
        self.play = rehearsal.rehearsed(self.spec, "linear")
        self.plan: Forecast = forecast.forecast(self.spec, "linear", model)

    @property
    def root(self) -> Path:
        (found,) = (self.federation.out / "exchange").iterdir()
        return found

    @property
    def pods(self) -> Counter[str]:
        """By role; each pod has a log, and each Job that took pods a name."""
        written = sorted(path.name for path in (self.federation.out / "logs").glob("*.log"))
        names = [site.name for site in self.spec.sites]
        parsed = [logs.parsed(name, "linear", names) for name in written]
        assert None not in parsed
        return Counter(one.role for one in parsed if one is not None)


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


@pytest.fixture(scope="module", params=FEDERATIONS)
def finished(
    request: pytest.FixtureRequest, a_federation: Any, tmp_path_factory: Any
) -> Iterator[Finished]:
    made = a_federation(tmp_path_factory.mktemp("planned"))
    try:
        yield Finished(made, FEDERATIONS[request.param])
    finally:
        made.close()


def test_the_pods_are_exactly_those_of_the_plan(finished: Finished) -> None:
    assert finished.pods == Counter({str(r): n for r, n in finished.plan.pods.items()})


def test_the_volume_holds_what_the_plan_says(finished: Finished) -> None:
    assert finished.plan.end == pytest.approx(_size(finished.root, "**/*"), rel=0.05)


def test_the_most_there_is_comes_before_the_last_pruning(finished: Finished) -> None:
    """Models of the rounds that are kept and one more, and so for updates: of a run that keeps
    everything, all that it has left after two rounds."""
    spec = finished.spec
    if spec.keep.last <= spec.rounds or spec.keep.updates < spec.rounds:
        assert finished.plan.peak > finished.plan.end
        return
    keep = spec.keep.model_copy(update={"last": 2, "updates": 1})
    pruned = forecast.forecast(spec.model_copy(update={"keep": keep}), "linear", finished.model)
    assert pruned.peak == pytest.approx(_size(finished.root, "**/*"), rel=0.05)
    assert spec.rounds == 1 or pruned.end < pruned.peak


def test_each_round_moves_the_bytes_of_the_plan(finished: Finished) -> None:
    spec, play = finished.spec, finished.play
    for number in play.invited:
        moved = forecast.moved_in(spec, play, finished.model, number)
        updates = _size(finished.root, f"updates/*/{number}/[0-9]*/*")
        if number > spec.rounds - spec.keep.updates:
            assert moved.written[Role.TRAIN] == pytest.approx(updates, rel=0.05)
        if number > spec.rounds - spec.keep.last:
            written = _size(finished.root, f"global/{number}/*/*")
            assert moved.written[Role.AGGREGATE] == pytest.approx(written, rel=0.05)
        record = _yaml(finished.federation.out / "rounds" / f"linear-{number:05d}.yaml")["status"]
        assert [p["name"] for p in record["participants"]] == list(play.invited[number])
        read = record["measured"]["bytes"] + _base(finished, number)
        assert moved.read[Role.AGGREGATE] == pytest.approx(read, rel=0.05)


def _base(finished: Finished, number: int) -> int:
    """Bytes of the model that the round starts from; all models of a run are as large."""
    last = finished.spec.rounds
    whole = _size(finished.root, f"global/{last}/*/model*.safetensors")
    return whole + (
        _size(finished.root, f"global/{last}/*/server*.safetensors") if number > 1 else 0
    )


def test_what_the_command_prints_is_the_plan(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = str(finished.federation.out), str(finished.federation.file)
    assert main.main(["plan", file, "--model", out, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pods"] == finished.pods
    assert told["end"] == finished.plan.end
    assert finished.plan.moved is not None
    assert told["moved"]["read"]["aggregate"] == finished.plan.moved.read[Role.AGGREGATE]
    assert told["missing"] == []
