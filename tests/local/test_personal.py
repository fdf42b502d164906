"""Whole federations in processes: layers and models that stay at home, an evaluator apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

pytestmark = pytest.mark.processes

SCRIPT = '''
"""The same slope everywhere, another offset at each participant; no torch."""

import argparse
import sys

import numpy as np
from fedtrain import rounds

parser = argparse.ArgumentParser()
parser.add_argument("--part", type=int, default=0)
parser.add_argument("--ditto", action="store_true")
args = parser.parse_args()

rng = np.random.default_rng(args.part)
x = rng.normal(size=(40, 3))
y = x @ np.array([1.0, -2.0, 3.0]) + 4.0 * args.part


def zeros():
    return {"w": np.zeros(3, np.float32), "head": np.zeros(1, np.float32)}


def evaluate(model):
    error = x @ model["w"] + model["head"] - y
    return {"loss": float((error**2).mean()), "samples": len(y)}


def step(model, pull):
    error = x @ model["w"] + model["head"] - y
    model["w"] -= 0.1 * ((2 * x.T @ error / len(y)).astype(np.float32) + pull.get("w", 0))
    model["head"] -= 0.1 * (np.float32(2 * error.mean()) + pull.get("head", 0))


model, twin = zeros(), zeros() if args.ditto else None
for rnd in rounds(model, evaluate=evaluate, personal=twin):
    for _ in range(rnd.parameters["steps"]):
        step(model, {})
        if twin is not None:
            step(twin, rnd.personal_gradients())
    rnd.submit(samples=len(y))
assert "torch" not in sys.modules
'''


@pytest.fixture
def apart(federation: Any) -> Any:
    """Participants a and b, whose offsets are 0 and 4."""
    (federation.folder / "train.py").write_text(SCRIPT)
    return federation


def with_scratch(*args: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "trainer": {"args": ["--part", str(part), *args]},
            "scratch": {"claimName": f"{name}-scratch"},
        }
        for part, name in enumerate("ab")
    ]


def tensors_below(folder: Path) -> set[str]:
    files = [path for path in folder.rglob("*.safetensors") if path.is_file()]
    return {name for file in files for name in safetensors.load_file(file)}


def test_layers_stay_at_home_and_the_last_phase_reports_both_metrics(apart: Any) -> None:
    apart.of({}, rounds=2, evaluation={}, parameters={"steps": 5})
    apart.change(
        participants=with_scratch(),
        exchange={"size": "1Gi", "exclude": ["head"]},
        personalization={"fineTune": {"parameters": {"steps": 40}}},
    )
    result = apart.run()
    assert result.returncode == 0, result.stderr
    assert tensors_below(apart.out / "exchange") == {"w"}
    status, last = apart.status, apart.records[-1]["status"]
    summed = status["personalized"]["loss"]
    assert summed["after"] < 0.1 * summed["before"]
    assert summed["before"] == pytest.approx(status["metrics"]["loss"])  # own layers included
    assert {t["name"] for t in last["personalization"]} == {"a", "b"}
    assert {status["spread"]["loss"][end]["name"] for end in ("worst", "best")} == {"a", "b"}
    assert f"worst {last['worst']}" in result.stdout
    assert "fine-tuned by its participants: loss" in result.stdout
    for name, offset in (("a", 0.0), ("b", 4.0)):
        (folder,) = (apart.out / "scratch" / name).rglob("personal/*")
        model = safetensors.load_file(folder / "model.safetensors")
        assert model["head"][0] == pytest.approx(offset, abs=0.1)
        assert not np.allclose(model["w"], safetensors.load_file(apart.model)["w"], atol=1e-9)


def test_a_personal_model_is_better_at_home_than_the_global_one(apart: Any) -> None:
    apart.of({}, rounds=2, evaluation={}, parameters={"steps": 20})
    apart.change(participants=with_scratch("--ditto"), personalization={"ditto": {"pull": 0.05}})
    result = apart.run()
    assert result.returncode == 0, result.stderr
    metrics = apart.status["metrics"]
    assert metrics["personal_loss"] < 0.1 * metrics["loss"]
    for name in "ab":
        assert list((apart.out / "scratch" / name).rglob("personal.safetensors"))
    sent = {path.name for path in (apart.out / "exchange").rglob("*.safetensors")}
    assert sent == {"model.safetensors", "update.safetensors"}


def test_an_evaluator_apart_decides_which_models_are_kept(apart: Any) -> None:
    evaluator = {"name": "held-out", "trainer": {"args": ["--part", "0"]}}
    apart.of({"b": ["--part", "1"]}, rounds=4, parameters={"steps": 3})
    apart.change(
        evaluation={"evaluator": evaluator},
        keep={"last": 2, "best": 1, "metric": "loss"},
    )
    result = apart.run()
    assert result.returncode == 0, result.stderr
    measured = [record["status"]["metrics"]["loss"] for record in apart.records[1:]]
    assert {e["name"] for r in apart.records[1:] for e in r["status"]["evaluation"]} == {"held-out"}
    (kept,) = apart.status["kept"]
    assert kept["round"] == 1 + int(np.argmin(measured))
    assert (apart.out / "exchange" / kept["model"]["path"]).exists()
    (root,) = (apart.out / "exchange").glob("*/global")
    assert {path.name for path in root.iterdir()} == {"3", "4"} | {str(kept["round"])}
