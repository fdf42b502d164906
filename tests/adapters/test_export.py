"""What travels beside the tensors, and that Transformers and PEFT open what is exported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from fedoperator.cli import main
from fedtrain import export, modeltexts
from fedtrain.errors import ContractError
from fedtrain.manifest import Manifest
from tests.aggregation.conftest import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
TOKENS = torch.tensor([[1, 2, 3, 4]])


def a_language_model(seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=11, num_hidden_layers=2, tie_word_embeddings=True, **small)
    return LlamaForCausalLM(config).eval()


def an_adapter(base, rank=4, alpha=12):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"])
    return get_peft_model(base, config).eval()


def moved(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def config_of(model, tmp_path, name):
    model.save_pretrained(tmp_path / "saved")
    return {name: (tmp_path / "saved" / name).read_text()}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_whole_model_opens_in_transformers(a_training, tmp_path, dtype):
    from transformers import AutoModelForCausalLM

    training, model = a_training(), a_language_model()
    texts = config_of(model, tmp_path, "config.json") | {"tokenizer_config.json": '{"é": 1}'}
    training.begin(model, files=texts)
    training.train("north", model, lambda: moved(model))
    training.aggregate()
    out = tmp_path / "out"
    assert main.main(["export", str(training.folder), str(out), "--dtype", dtype]) == 0
    assert (out / "tokenizer_config.json").read_text(encoding="utf-8") == '{"é": 1}'
    opened = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tolerance = {"fp32": 1e-5, "bf16": 0.05}[dtype]
    torch.testing.assert_close(opened(TOKENS).logits, model(TOKENS).logits, rtol=0, atol=tolerance)
    with_file = AutoModelForCausalLM.from_pretrained(training.folder)
    assert with_file.state_dict().keys() == model.state_dict().keys(), "without an export, too"


@pytest.mark.parametrize("adapters", [{}, {"aggregation": "Product"}])
def test_an_adapter_opens_in_peft_with_the_scaling_that_it_had(a_training, tmp_path, adapters):
    from peft import PeftModel

    training, model = a_training(**adapters), an_adapter(a_language_model())
    rank = 4 if adapters else None
    texts = config_of(model, tmp_path, "adapter_config.json")
    training.begin(model, rank, files=texts)
    training.train("north", model, lambda: moved(model), rank=rank)
    training.aggregate()
    out = tmp_path / "out"
    export.main([str(training.folder), str(out)])
    assert (out / "adapter_model.safetensors").exists()
    alpha = json.loads((out / "adapter_config.json").read_text())["lora_alpha"]
    assert alpha == (4 if adapters else 12), "α/r is inside B on the exchange of products"
    opened = PeftModel.from_pretrained(a_language_model(), out).eval()
    torch.testing.assert_close(opened(TOKENS).logits, model(TOKENS).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(opened(TOKENS).logits, a_language_model()(TOKENS).logits, atol=1e-3)


def test_shards_are_merged_and_integers_stay_what_they_are(a_training, tmp_path):
    training = a_training()
    arrays = {"a": np.arange(6, dtype=np.float32), "n": np.array([7, 8]), "z": np.ones((2, 2))}
    arrays = {name: np.array(array) for name, array in arrays.items()}
    training.begin(arrays)
    folder = training.folder
    from safetensors.numpy import load_file, save_file

    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for name in whole:
        save_file({name: whole[name]}, folder / f"model-{name}.safetensors")
    index = {"weight_map": {name: f"model-{name}.safetensors" for name in whole}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    export.export(folder, tmp_path / "out")
    found = read_tensors(tmp_path / "out" / "model.safetensors")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found[name], array), name


def test_a_run_s_folder_stands_for_its_last_model(a_training, tmp_path, capsys):
    training = a_training()
    training.begin({"w": np.ones(3, np.float32)})
    run = training.exchange.root.parent
    (run / "status.yaml").write_text("globalModel: {path: global/0/1/model.safetensors}\n")
    assert main.main(["export", str(run), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
    (run / "status.yaml").write_text("phase: Pending\n")
    assert main.main(["export", str(run), str(tmp_path / "other")]) == 1
    assert "names no global model yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda out: (out.mkdir(), (out / "model.safetensors").touch()), "exists already"),
        (lambda out: None, "is not exported"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(a_training, tmp_path, capsys, prepare, says):
    training = a_training()
    training.begin({"w": np.ones(3, np.float32)})
    prepare(tmp_path / "out")
    given = training.folder if "exists" in says else tmp_path / "nothing"
    assert export.main([str(given), str(tmp_path / "out")]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"../evil.json": "{}"}, "use a plain name"),
        ({"a/b.json": "{}"}, "use a plain name"),
        ({".hidden.json": "{}"}, "use a plain name"),
        ({"model.bin": "x"}, "use a plain name"),
        ({"manifest.json": "{}"}, "uses itself"),
        ({"schema.json": "{}"}, "uses itself"),
        ({"model.safetensors.index.json": "{}"}, "uses itself"),
        ({"config.json": b"{}"}, "holds a bytes; use its text"),
        ({"config.json": "\ud800"}, "no text that UTF-8 can hold"),
        ({f"{n}.json": "" for n in range(33)}, "33 are too many"),
        ({"a.json": "x" * (40 << 20), "b.json": "x" * (40 << 20)}, "bytes are too much"),
    ],
)
def test_what_may_not_travel_with_a_model_is_refused(a_training, files, says):
    with pytest.raises(ContractError, match=says) as raised:
        a_training().begin({"w": np.ones(3, np.float32)}, files=files)
    assert raised.value.reason == "BadFiles"


def test_a_configuration_that_is_none_is_refused_where_it_has_to_be_read(a_training):
    arrays = {"lora_A": np.ones((2, 3), np.float32), "lora_B": np.ones((4, 2), np.float32)}
    with pytest.raises(ContractError, match="no configuration of a LoRA adapter"):
        a_training(aggregation="Product").begin(arrays, 2, files={"adapter_config.json": "[]"})


def test_a_text_that_was_changed_on_the_exchange_stops_the_aggregation(a_training):
    from fedtrain.errors import TryAgain

    training, arrays = a_training(), {"w": np.ones(3, np.float32)}
    training.begin(arrays, files={"config.json": "{}"})
    training.train("north", arrays, lambda: None)
    (training.folder / "config.json").write_text("{ }")
    with pytest.raises(TryAgain, match=r"config\.json has the sha256") as raised:
        training.aggregate()
    assert raised.value.reason == "BaseUnreadable"


def test_an_import_takes_what_lies_beside_the_checkpoint(tmp_path):
    from fedtrain.aggregation.importing import import_model
    from fedtrain.contract import ImportTask

    checkpoint = tmp_path / "checkpoint"
    a_language_model().save_pretrained(checkpoint)
    (checkpoint / "notes.txt").write_text("mine")
    (checkpoint / "vocab.json").write_bytes(b"\xff")
    task = ImportTask(
        training="t", uid="u", round=0, attempt=1, source=str(checkpoint), output="global/0/1"
    )
    import_model(task, tmp_path)
    folder = tmp_path / "global/0/1"
    manifest = Manifest.from_json((folder / "manifest.json").read_text())
    assert sorted(manifest.files) == ["config.json", "generation_config.json"]
    assert modeltexts.read(folder, manifest.files)["config.json"].startswith("{")


def test_the_export_needs_no_torch(tmp_path):
    code = "import sys, fedtrain.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
