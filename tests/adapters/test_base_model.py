"""The frozen base model: one digest for everybody, learned from the first or said by the spec."""

import numpy as np
import pytest

from fedtrain import base_model, basemodel
from fedtrain.contract import BASE_ENV, SCRATCH_ENV
from fedtrain.errors import ContractError, DataError
from fedtrain.manifest import Manifest


def a_folder(path, **changed):
    """A base model of two files and a tokenizer in a folder of its own."""
    texts = {"config.json": "{}", "model.safetensors": "tensors", "tok/tokenizer.json": "[]"}
    for name, text in (texts | changed).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    made = a_folder(tmp_path / "base")
    monkeypatch.setenv(BASE_ENV, str(made))
    return made


def test_a_digest_is_that_of_names_and_contents(folder, tmp_path):
    digest = basemodel.digest(folder)
    assert digest == basemodel.digest(a_folder(tmp_path / "copy"))
    assert digest.startswith("sha256:")
    for changed in ({"config.json": "{ }"}, {"README.md": ""}, {"tok/tokenizer.json": "[1]"}):
        other = a_folder(tmp_path / f"other-{len(list(tmp_path.iterdir()))}", **changed)
        assert basemodel.digest(other) != digest, changed


def test_hidden_files_do_not_count_and_links_to_files_do(folder, tmp_path):
    digest = basemodel.digest(folder)
    (folder / ".gitattributes").write_text("x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_text("x")
    blob = tmp_path / "blob"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert basemodel.digest(folder) == digest


def test_a_file_is_hashed_again_only_if_it_has_changed(folder, tmp_path, monkeypatch):
    hashed = []
    of_file = basemodel._sha256
    monkeypatch.setattr(basemodel, "_sha256", lambda p: hashed.append(p.name) or of_file(p))
    first = basemodel.digest(folder, tmp_path / "scratch")
    assert len(hashed) == 3
    assert basemodel.digest(folder, tmp_path / "scratch") == first
    assert len(hashed) == 3
    (folder / "config.json").write_text("[]")
    assert basemodel.digest(folder, tmp_path / "scratch") == basemodel.digest(folder) != first
    assert hashed.count("config.json") == 3


@pytest.mark.parametrize("damage", ["", "[]", '{"config.json": 1}', '{"config.json": [[1], "x"]}'])
def test_a_damaged_memory_of_hashes_costs_time_alone(folder, tmp_path, damage):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / basemodel.CACHE_FILE).write_text(damage)
    assert basemodel.digest(folder, scratch) == basemodel.digest(folder)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("")])
def test_a_folder_without_files_is_no_base_model(tmp_path, monkeypatch, make):
    make(tmp_path / "nothing")
    monkeypatch.setenv(BASE_ENV, str(tmp_path / "nothing"))
    monkeypatch.delenv(SCRATCH_ENV, raising=False)
    with pytest.raises(DataError) as raised:
        basemodel.check(None, None)
    assert raised.value.reason == "BaseModelMissing"


def test_scripts_have_the_folder_before_they_call_rounds(folder, monkeypatch):
    assert base_model("elsewhere") == folder
    monkeypatch.delenv(BASE_ENV)
    assert str(base_model("elsewhere")) == "elsewhere"
    assert basemodel.check("sha256:1", None) is None
    with pytest.raises(ContractError, match=r"give spec\.model\.base"):
        base_model()


def test_the_first_participant_s_digest_is_everybody_s(folder, tmp_path, a_training, monkeypatch):
    training, model = a_training(), {"w": np.zeros(3, np.float32)}
    start = training.begin(model)
    digest = basemodel.digest(folder)
    assert Manifest.from_json((start / "manifest.json").read_text()).base_model == digest
    training.train("north", model, lambda: None)
    a_folder(tmp_path / "other", **{"config.json": "{ }"})
    monkeypatch.setenv(BASE_ENV, str(tmp_path / "other"))
    with pytest.raises(DataError, match=f"that of the federation is {digest}") as raised:
        training.train("south", model, lambda: None)
    assert raised.value.reason == "BaseModelMismatch"
    training.candidates = [("north", 1)]
    training.aggregate()
    after = Manifest.from_json((training.folder / "manifest.json").read_text())
    assert after.base_model == digest, "and of every later model"


def test_the_spec_s_digest_counts_for_the_first_participant_too(folder, a_training):
    training = a_training()
    training.base = "sha256:" + "0" * 64
    with pytest.raises(DataError) as raised:
        training.begin({"w": np.zeros(3, np.float32)})
    assert raised.value.reason == "BaseModelMismatch"
    training.base = basemodel.digest(folder)
    training.begin({"w": np.zeros(3, np.float32)})
