"""A model as named tensors: names, ties, kinds, and deltas against a naive twin."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedtrain import weights as weights_module
from fedtrain.errors import ContractError
from fedtrain.models import weights_of
from fedtrain.schema import TensorSpec
from fedtrain.weights import Array, Weights


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def specs(weights: Weights) -> Mapping[str, TensorSpec]:
    return {spec.name: spec for spec in weights.schema.tensors}


def whole(tiles: Any) -> Array:
    parts = [tile for _, tile in tiles]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def test_a_tied_weight_travels_once_and_both_names_lead_to_it() -> None:
    weights = weights_of(Tied())
    assert specs(weights)["embed.weight"].aliases == ("head.weight",)
    assert "head.weight" not in specs(weights)
    assert weights.names()["head.weight"] == "embed.weight"


def test_kinds_tell_parameters_buffers_and_integers_apart() -> None:
    kinds = {name: spec.kind for name, spec in specs(weights_of(Tied())).items()}
    assert kinds == {
        "embed.weight": "parameter",
        "norm.weight": "parameter",
        "norm.bias": "parameter",
        "norm.running_mean": "buffer",
        "norm.running_var": "buffer",
        "norm.num_batches_tracked": "integer",
    }


def test_names_are_those_that_state_dict_gives_a_plain_module() -> None:
    model = Tied()
    assert set(weights_of(model).names()) == set(model.state_dict())


class Wrapper(nn.Module):
    """The shape of torch.compile's: the user's module under `_orig_mod`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner


def test_wrappers_leave_no_trace_in_names_wherever_they_are() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    wrapped = nn.DataParallel(Wrapper(nn.Sequential(nn.Linear(2, 2), Wrapper(nn.Linear(2, 1)))))
    assert weights_of(wrapped).schema == weights_of(plain).schema


def test_really_compiled_and_data_parallel_modules_have_plain_names() -> None:
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1
    )
    try:
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        plain = weights_of(model).schema
        assert weights_of(torch.compile(model)).schema == plain
        ddp = nn.parallel.DistributedDataParallel(model)
        assert weights_of(ddp).schema == plain
        assert weights_of(torch.compile(ddp)).schema == plain
    finally:
        dist.destroy_process_group()


def test_a_submodule_that_a_user_calls_module_keeps_its_name() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(1, 1)

    assert set(weights_of(Net()).names()) == {"module.weight", "module.bias"}
    assert set(weights_of(nn.DataParallel(Net())).names()) == {"module.weight", "module.bias"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_delta_is_local_minus_what_was_loaded(
    dtype: torch.dtype, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "TILE", 7)  # several tiles, the last one shorter
    model = nn.Conv2d(3, 4, 3, bias=False).to(dtype).to(memory_format=layout)
    weights = weights_of(model)
    base = np.random.RandomState(0).randn(model.weight.numel()).astype(np.float32)
    tiles = [(start, base[start : start + 7]) for start in range(0, base.size, 7)]

    weights.fill("weight", tiles)
    assert model.weight.dtype == dtype
    assert model.weight.is_contiguous(memory_format=layout)
    loaded = torch.from_numpy(base).to(dtype).view(model.weight.shape)
    assert torch.equal(model.weight, loaded)
    assert not whole(weights.deltas("weight", tiles)).any()  # untouched: zero, not rounding

    with torch.no_grad():
        model.weight += 0.25
    twin = (model.weight.detach().double() - loaded.double()).float().reshape(-1).numpy()
    assert np.array_equal(whole(weights.deltas("weight", tiles)), twin)
    assert whole(weights.values("weight")).dtype == np.float32


def test_a_mapping_of_arrays_is_a_model_changed_in_place() -> None:
    model = {"w": np.ones((2, 2), np.float32), "n": np.array(3), "mask": np.array([True, False])}
    weights = weights_of(model)
    assert {name: spec.kind for name, spec in specs(weights).items()} == {
        "w": "parameter",
        "n": "integer",
        "mask": "integer",
    }
    base = np.arange(4, dtype=np.float32)
    weights.fill("w", [(0, base)])
    weights.fill("n", [(0, np.array([9]))])
    assert (model["w"].tolist(), int(model["n"])) == ([[0, 1], [2, 3]], 9)
    model["w"] *= 2
    assert whole(weights.deltas("w", [(0, base)])).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (42, "a int is neither a torch module nor a mapping"),
        ({"w": [1.0]}, "'w' holds a list"),
        ({"w": np.zeros(2, np.complex64)}, "'w' is complex64"),
        ({"w": np.zeros(2, np.uint16)}, "'w' is uint16"),
        ({"w": np.zeros((2, 3), np.float32).T}, "'w' is float32"),
        (nn.LazyLinear(2), "is lazy: run one forward pass"),
        (nn.Linear(2, 2, device="meta"), "is on the meta device"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_by_name(model: Any, sentence: str) -> None:
    with pytest.raises(ContractError, match="rounds") as refused:
        weights_of(model)
    assert sentence in str(refused.value)
    assert refused.value.reason == "ModelUnsupported"
