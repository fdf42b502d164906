"""A federation of adapters in processes: ranks of one's own, a base model, texts, an export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

pytestmark = pytest.mark.processes

SCRIPT = """
import numpy as np
from fedtrain import adapter_rank, base_model, rounds

rank, base = adapter_rank(1), np.loadtxt(base_model() / "weights.txt")
rng = np.random.default_rng(0)
model = {
    "q.lora_A.weight": rng.normal(size=(rank, 6)).astype(np.float32),
    "q.lora_B.weight": np.zeros((5, rank), np.float32),
}
texts = {"adapter_config.json": '{"r": 4, "lora_alpha": 8}'}
for rnd in rounds(model, files=texts, evaluate=lambda m: {"rank": len(m["q.lora_A.weight"])}):
    model["q.lora_B.weight"] += (base[:, :rank] * rank).astype(np.float32)
    rnd.submit(samples=rank)
"""


@pytest.fixture
def adapters(federation: Any) -> Any:
    """Three participants; c's adapter is of rank 2, and it has a copy of the base of its own."""
    (federation.folder / "train.py").write_text(SCRIPT)
    for name in ("base", "copy"):
        (federation.folder / name).mkdir()
        weights = np.random.default_rng(1).normal(size=(5, 6))
        np.savetxt(federation.folder / name / "weights.txt", weights)
    federation.of(
        {"a": [], "b": [], "c": []},
        rounds=2,
        adapters={"aggregation": "Product", "rank": 4},
        model={"init": {}, "base": {"claimName": "llama"}},
        evaluation={"by": "a"},
        keep={"last": 10, "updates": 10},
        participants=[
            {"name": "a"},
            {"name": "b"},
            {"name": "c", "adapterRank": 2, "base": {"claimName": "own"}},
        ],
    )
    return federation


def claims(federation: Any) -> list[str]:
    given = {"llama": federation.folder / "base", "own": federation.folder / "copy"}
    return [word for name, path in given.items() for word in ("--claim", f"{name}={path}")]


def test_ranks_a_base_model_and_an_export(adapters: Any) -> None:
    refused = adapters.run()
    assert refused.returncode == 1
    assert "--claim llama=FOLDER" in refused.stderr
    assert "participants[2].base.claimName: own" in refused.stderr
    result = adapters.run(*claims(adapters))
    assert result.returncode == 0, result.stderr
    exchange = next((adapters.out / "exchange").iterdir())
    shapes = {
        name: safetensors.load_file(exchange / f"updates/{name}/2/1/update.safetensors")[
            "q.lora_B.weight"
        ].shape
        for name in "abc"
    }
    assert shapes == {"a": (5, 4), "b": (5, 4), "c": (5, 2)}
    measured = adapters.records[2]["status"]["measured"]
    assert 0 <= measured["residual"] < 1
    digest = adapters.status["globalModel"]["baseModel"]
    assert digest.startswith("sha256:")
    manifest = json.loads((adapters.model.parent / "manifest.json").read_text())
    assert manifest["base_model"] == digest
    assert json.loads((adapters.model.parent / "adapter_config.json").read_text()) == {
        "alpha_pattern": {},
        "lora_alpha": 4,
        "r": 4,
        "use_rslora": False,
    }
    assert adapters.status["metrics"] == {"rank": 4}


def test_a_participant_with_another_base_model_is_out_and_says_why(adapters: Any) -> None:
    path: Path = adapters.folder / "copy" / "weights.txt"
    path.write_text(path.read_text() + "\n")
    adapters.change(quorum={"minimum": 2}, rounds=1)
    result = adapters.run(*claims(adapters))
    assert result.returncode == 0, result.stderr
    found = {p["name"]: p for p in adapters.records[1]["status"]["participants"]}
    assert found["a"]["state"] == found["b"]["state"] == "Accepted"
    assert (found["c"]["state"], found["c"]["reason"]) == ("Failed", "BaseModelMismatch")
    assert found["c"]["attempt"] == 1, "no retry cures it"
