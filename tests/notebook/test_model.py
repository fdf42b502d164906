"""Models as state dicts: tied names, other checkpoints, and what is no model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import torch as safetensors

from fedoperator.local.folder import Refused
from fedoperator.notebook import model
from fedtrain.schema import Schema, TensorSpec


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 3)
        self.head = torch.nn.Linear(3, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("steps", torch.tensor(5))


def test_tied_names_come_back_for_load_state_dict(tmp_path: Path) -> None:
    source, target = Tied(), Tied()
    weight = source.embedding.weight.detach()
    tensors = {"embedding.weight": weight, "steps": source.steps + 2}
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    specs = [
        TensorSpec(name="embedding.weight", dtype="F32", shape=(7, 3), aliases=("head.weight",)),
        TensorSpec(name="steps", dtype="I64", shape=(), kind="integer"),
    ]
    (tmp_path / "schema.json").write_text(Schema.of(specs).to_json())
    state = model.read(tmp_path / "model.safetensors")
    assert target.load_state_dict(state.torch(), strict=True)
    assert torch.equal(target.head.weight, weight)
    assert target.steps.item() == 7


def test_bf16_comes_widened_without_loss(tmp_path: Path) -> None:
    given = torch.randn(4, 5).to(torch.bfloat16)
    safetensors.save_file({"w": given}, tmp_path / "model.safetensors")
    (array,) = model.read(tmp_path).values()
    assert array.dtype == np.float32
    assert torch.equal(torch.from_numpy(array), given.float())


def test_arrays_and_tensors_are_the_same_memory(tmp_path: Path) -> None:
    safetensors.save_file({"w": torch.zeros(3)}, tmp_path / "model.safetensors")
    state = model.read(tmp_path)
    state.torch()["w"] += 1
    assert state["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_what_is_no_model_is_one_sentence(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused) as refused:
        model.read(path)
    assert str(refused.value).startswith(f"{path}: no model can be read there: ")
    assert "\n" not in str(refused.value)
