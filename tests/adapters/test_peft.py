"""PEFT models: the adapter travels alone, under PEFT's names, at a rank and scaling of its own."""

import math
import os

import numpy as np
import peft
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

from fedtrain import adapter_rank, rounds
from fedtrain.contract import TASK_ENV, encode_task
from fedtrain.errors import ContractError
from fedtrain.models import weights_of
from tests.adapters.conftest import best
from tests.aggregation.conftest import read_tensors


class Base(nn.Module):
    """A quarter of a million frozen numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 512)
        self.q = nn.Linear(512, 256, bias=False)
        self.v = nn.Linear(256, 384)
        self.head = nn.Linear(384, 4)

    def forward(self, tokens):
        return self.head(self.v(self.q(self.embed(tokens)).relu()))


def a_model(rank=8, alpha=16, **config):
    targets = {"target_modules": ["q", "v"], "modules_to_save": ["head"], **config}
    return get_peft_model(Base(), LoraConfig(r=rank, lora_alpha=alpha, **targets))


def moved(model, seed):
    """Change whatever is trainable."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def product(model, layer):
    """(α/r)·B·A as PEFT itself computes it, in fp64."""
    module = getattr(model.base_model.model, layer)
    return module.get_delta_weight("default").double().detach().numpy()


def test_what_travels_has_the_names_that_peft_saves():
    model = a_model()
    saved = get_peft_model_state_dict(model)
    schema = weights_of(model).schema
    assert {spec.name: spec.shape for spec in schema.tensors} == {
        name: tuple(tensor.shape) for name, tensor in saved.items()
    }
    assert "base_model.model.head.weight" in saved, "modules_to_save, under their plain names"


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_wrapped_model_is_the_same_model(wrap):
    assert weights_of(wrap(a_model())).schema == weights_of(a_model()).schema


@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["q", "v"], feedforward_modules=["v"]),
        LoraConfig(target_modules=["q", "v"], use_dora=True, lora_bias=False),
        LoraConfig(target_modules=["embed", "q"]),
        LoraConfig(target_modules=["q"], bias="lora_only"),
    ],
    ids=["ia3", "dora", "embedding", "bias"],
)
def test_other_adapters_that_lie_in_the_layers_travel_too(config, a_training):
    training, model = a_training(), get_peft_model(Base(), config)
    training.begin(model)
    training.train("north", model, lambda: moved(model, 1))
    trained = {k: v.clone() for k, v in get_peft_model_state_dict(model).items()}
    training.aggregate()
    other = get_peft_model(Base(), config)
    training.load(other)
    for name, tensor in get_peft_model_state_dict(other).items():
        torch.testing.assert_close(tensor, trained[name], msg=name)


def test_the_frozen_base_never_crosses_the_volume(a_training):
    training, model = a_training(), a_model()
    training.begin(model)
    training.train("north", model, lambda: moved(model, 1))
    training.aggregate()
    adapter = sum(tensor.nbytes for tensor in get_peft_model_state_dict(model).values())
    whole = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert whole > 20 * adapter
    files = [path for path in training.exchange.root.rglob("*.safetensors") if path.is_file()]
    assert sorted(path.name for path in files) == [
        "model.safetensors",
        "model.safetensors",
        "update.safetensors",
    ]
    for path in files:
        assert adapter <= path.stat().st_size <= adapter + 2048, path
    everything = sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(training.exchange.root)
        for name in names
    )
    assert everything < 3 * (adapter + 4096)


ADAPTERS = {"east": (8, 8.0), "north": (4, 16.0), "south": (2, 3.0)}
"""Participant → rank, α: scalings of 1, 4 and 1.5."""


def test_participants_of_other_ranks_and_scalings_average_their_products(a_training):
    training = a_training(aggregation="Product")
    training.begin(a_model(8, 16), 8)
    trained, samples = {}, {"east": 1, "north": 2, "south": 3}
    for seed, (name, (rank, alpha)) in enumerate(ADAPTERS.items()):
        model = a_model(rank, alpha)
        training.train(
            name,
            model,
            lambda model=model, seed=seed: moved(model, seed),
            rank=rank,
            samples=samples[name],
        )
        trained[name] = model
    ranks = {name: rank for name, (rank, _) in ADAPTERS.items()}
    message = training.aggregate(ranks)
    assert 0 < message.result["residual"] < 1
    for layer in ("q", "v"):
        exact = sum(samples[n] / 6 * product(trained[n], layer) for n in ADAPTERS)
        for rank, alpha in ((8, 16.0), (8, 1.0), (4, 12.0), (2, 2.0)):
            model = a_model(rank, alpha)
            training.load(model, rank)
            found, expected = product(model, layer), best(best(exact, 8), rank)
            np.testing.assert_allclose(found, expected, atol=2e-6 * np.linalg.norm(expected))


def test_an_adapter_that_was_loaded_and_not_trained_is_an_update_of_zeros(a_training):
    training = a_training(aggregation="Product")
    training.begin(a_model(8, 16), 8)
    first = a_model(8, 12)
    training.train("north", first, lambda: moved(first, 1), rank=8)
    training.aggregate()
    training.candidates.clear()
    again = a_model(4, 3)
    update = training.train("south", again, lambda: None, rank=4, round=2)
    for name, array in read_tensors(update / "update.safetensors").items():
        assert not array.any(), name


def test_small_steps_of_a_bf16_adapter_are_not_lost(a_training):
    training = a_training(aggregation="Product")
    training.begin(a_model(4, 12), 4)
    model = a_model(4, 12).to(torch.bfloat16)
    b = model.base_model.model.q.lora_B["default"].weight

    def step():
        with torch.no_grad():
            b.add_(2.0**-12)

    update = training.train("north", model, step, rank=4)
    arrays = read_tensors(update / "update.safetensors")
    changed = {name for name, array in arrays.items() if array.any()}
    assert changed == {"base_model.model.q.lora_B.weight"}
    np.testing.assert_allclose(arrays[changed.pop()], 3 * 2.0**-12, rtol=1e-6)


def test_a_frozen_a_is_not_trained_not_sent_and_the_same_for_everybody(a_training):
    training = a_training(aggregation="FrozenA")
    first = a_model()
    training.begin(first)
    a = first.base_model.model.q.lora_A["default"].weight
    expected = a.detach().clone()
    models = {name: a_model() for name in ("north", "south")}
    for seed, (name, model) in enumerate(models.items()):
        mine = model.base_model.model.q.lora_A["default"].weight
        update = training.train(name, model, lambda m=model, s=seed: moved(m, s))
        assert not mine.requires_grad
        assert torch.equal(mine, expected)
        assert not any("lora_A" in key for key in read_tensors(update / "update.safetensors"))
    exact = sum(product(model, "q") / 2 for model in models.values())
    message = training.aggregate(strategy={"name": "FedAvg"})
    assert message.result["residual"] < 1e-6
    after = a_model()
    training.load(after)
    np.testing.assert_allclose(product(after, "q"), exact, atol=1e-6)


def test_whoever_trains_a_frozen_a_all_the_same_is_told(a_training):
    training = a_training(aggregation="FrozenA")
    arrays = {
        "q.lora_A.weight": np.ones((2, 3), np.float32),
        "q.lora_B.weight": np.zeros((4, 2), np.float32),
    }
    training.begin(arrays)

    def train():
        arrays["q.lora_A.weight"] += 1

    with pytest.raises(ContractError, match="was trained, but") as raised:
        training.train("north", arrays, train)
    assert raised.value.reason == "FrozenChanged"


def test_products_of_arrays_need_no_torch_and_no_scaling(a_training):
    training = a_training(aggregation="Product")
    arrays = {
        "q.lora_A.weight": np.eye(2, 3, dtype=np.float32),
        "q.lora_B.weight": np.zeros((4, 2), np.float32),
    }
    training.begin(arrays, 2)

    def train():
        arrays["q.lora_B.weight"] += 2

    training.train("north", arrays, train, rank=2)
    expected = arrays["q.lora_B.weight"] @ arrays["q.lora_A.weight"]
    training.aggregate()
    training.load(arrays, 2)
    np.testing.assert_allclose(
        arrays["q.lora_B.weight"] @ arrays["q.lora_A.weight"], expected, atol=1e-5
    )


def test_a_script_asks_for_the_rank_that_it_has_to_have(a_training, monkeypatch):
    monkeypatch.delenv(TASK_ENV, raising=False)
    assert adapter_rank(5) == 5
    training = a_training(aggregation="Product")
    for task, rank in (
        (training.exchange.init(adapters={"aggregation": "Product", "rank": 8}), 8),
        (training.exchange.init(adapters={"aggregation": "Factors", "rank": None}), 5),
        (training.exchange.init(), 5),
    ):
        monkeypatch.setenv(TASK_ENV, encode_task(task))
        assert adapter_rank(5) == rank


@pytest.mark.parametrize(
    ("model", "adapters", "reason"),
    [
        (lambda: a_model(4), {"aggregation": "Product", "rank": 8}, "RankMismatch"),
        (Base, {"aggregation": "Factors"}, "NoAdapter"),
        (lambda: a_model(use_dora=True), {"aggregation": "Product"}, "AdapterUnsupported"),
        (a_model, {"aggregation": "Sum"}, "BadTask"),
    ],
)
def test_a_model_that_the_federation_cannot_use_is_refused(model, adapters, reason):
    with pytest.raises(ContractError) as raised:
        weights_of(model(), adapters=adapters)
    assert raised.value.reason == reason


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_what_is_made_only_when_it_is_saved_is_refused():
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=9, num_hidden_layers=1, **small))
    prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(ContractError, match="is made when it is saved") as raised:
        weights_of(get_peft_model(base, prefix))
    assert raised.value.reason == "AdapterUnsupported"


def test_a_plain_run_of_a_peft_model_needs_no_federation(monkeypatch, capsys):
    monkeypatch.delenv(TASK_ENV, raising=False)
    for rnd in rounds(a_model()):
        rnd.submit(samples=1)
    assert "trained on 1 samples" in capsys.readouterr().err


def test_rslora_and_patterns_scale_each_layer_by_its_own():
    model = a_model(4, 8, use_rslora=True, rank_pattern={"v": 9}, alpha_pattern={"v": 6})
    scaling = weights_of(model).scaling
    assert scaling["base_model.model.q.lora_B.weight"] == pytest.approx(8 / math.sqrt(4))
    assert scaling["base_model.model.v.lora_B.weight"] == pytest.approx(6 / math.sqrt(9))
