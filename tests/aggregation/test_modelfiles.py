"""A model in one file or in shards is one model, and an index is not believed blindly."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from fedtrain import modelfiles
from fedtrain.modelfiles import index_text, open_model, shard_name
from fedtrain.tensorfile import TensorFile, TensorFileError, plan

INDEX = "model.safetensors.index.json"
Model = dict[str, np.ndarray[Any, Any]]
SHARDS: tuple[Model, ...] = (
    {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.empty((0, 2), np.float32)},
    {"b": np.array(7), "c.weight": np.linspace(0, 1, 5).astype(np.float16)},
    {"mask": np.array([True, False])},
)


def described(shard: Model) -> Any:
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64", "bool": "BOOL"}
    return plan((name, kinds[str(one.dtype)], one.shape) for name, one in shard.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sharded model, written by the safetensors library, with our index."""
    files = {}
    for number, shard in enumerate(SHARDS):
        name = shard_name(number, len(SHARDS))
        safetensors.numpy.save_file(shard, tmp_path / name, {"format": "pt"})
        files[name] = described(shard)
    (tmp_path / INDEX).write_text(index_text(files))
    return tmp_path


def test_shards_are_read_as_one_model(folder: Path) -> None:
    whole = {name: array for shard in SHARDS for name, array in shard.items()}
    with open_model(folder) as model:
        assert list(model.tensors) == sorted(whole)
        assert model.metadata == {"format": "pt"}
        assert model.size == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        for name, array in whole.items():
            assert np.array_equal(model.read(name).reshape(array.shape), array)
        out = np.empty(2, np.float32)
        model.read_into("a", 3, out)
        assert out.tolist() == [3, 4]
        assert model.read("c.weight", 1, 3).tolist() == whole["c.weight"][1:3].tolist()


def test_an_index_can_be_opened_by_its_own_path(folder: Path) -> None:
    with open_model(folder / INDEX) as model:
        assert len(model.tensors) == 5


@pytest.mark.parametrize("path", [".", "model.safetensors"])
def test_a_single_file_is_a_model_too(tmp_path: Path, path: str) -> None:
    safetensors.numpy.save_file(SHARDS[0], tmp_path / "model.safetensors")
    with (
        open_model(tmp_path / path) as model,
        TensorFile.open(tmp_path / "model.safetensors") as file,
    ):
        assert (model.tensors, model.size, model.metadata) == (
            file.tensors,
            file.size,
            file.metadata,
        )


def test_the_index_is_what_hugging_face_writes_and_always_the_same_bytes(folder: Path) -> None:
    text = (folder / INDEX).read_text()
    assert json.loads(text) == {
        "metadata": {"total_size": 24 + 0 + 8 + 10 + 2},
        "weight_map": {
            "a": "model-00001-of-00003.safetensors",
            "b": "model-00002-of-00003.safetensors",
            "c.weight": "model-00002-of-00003.safetensors",
            "empty": "model-00001-of-00003.safetensors",
            "mask": "model-00003-of-00003.safetensors",
        },
    }
    files = {shard_name(number, 3): described(shard) for number, shard in enumerate(SHARDS)}
    assert index_text(dict(reversed(files.items()))) == text


def test_a_tensor_cannot_be_put_into_two_files() -> None:
    tensors = plan([("w", "F32", (2,))])
    with pytest.raises(ValueError, match=r"'w' lies in one.safetensors and in two.safetensors"):
        index_text({"one.safetensors": tensors, "two.safetensors": tensors})


def test_nothing_is_left_open_after_a_refusal(folder: Path) -> None:
    (folder / shard_name(2, 3)).write_bytes(b"no tensors")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(TensorFileError):
            open_model(folder)
    assert len(os.listdir("/proc/self/fd")) == before


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / INDEX).read_text())
        change(document)
        (folder / INDEX).write_text(json.dumps(document))

    return edit


def mapped(tensor: str, file: Any) -> Callable[[Path], None]:
    return edited(lambda document: document["weight_map"].update({tensor: file}))


def written(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / INDEX).write_text(text) and None


def linked(folder: Path) -> None:
    shard = folder / shard_name(0, 3)
    shard.rename(folder / "elsewhere")
    shard.symlink_to("elsewhere")


def many(document: dict[str, Any]) -> None:
    document["weight_map"] = {f"t{k}": f"{k}.safetensors" for k in range(513)}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / INDEX).unlink(), "FileMissing"),
        (lambda folder: (folder / shard_name(1, 3)).unlink(), "FileMissing"),
        (linked, "NotARegularFile"),
        (lambda folder: os.link(folder / shard_name(0, 3), folder / "two"), "HardLinked"),
        (written("{"), "IndexInvalid"),
        (written("[" * 100_000), "IndexInvalid"),
        (written("[]"), "IndexInvalid"),
        (written("{}"), "IndexInvalid"),
        (written('{"weight_map": {}}'), "IndexInvalid"),
        (written('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}'), "DuplicateName"),
        (written("\x00" * (modelfiles.INDEX_LIMIT + 1)), "SizeMismatch"),
        (edited(many), "IndexInvalid"),
        (mapped("a", 1), "IndexInvalid"),
        (mapped("a", None), "IndexInvalid"),
        (mapped("a", "/etc/x.safetensors"), "IndexInvalid"),
        (mapped("a", "../x.safetensors"), "IndexInvalid"),
        (mapped("a", "..\\x.safetensors"), "IndexInvalid"),
        (mapped("a", ".."), "IndexInvalid"),
        (mapped("a", ""), "IndexInvalid"),
        (mapped("a", "x\x00.safetensors"), "IndexInvalid"),
        (mapped("a", "\ud800.safetensors"), "IndexInvalid"),
        (mapped("a", "x" * 300 + ".safetensors"), "IndexInvalid"),
        (mapped("a", "weights.bin"), "IndexInvalid"),
        (mapped("a", shard_name(1, 3)), "IndexMismatch"),
        (mapped("new", shard_name(1, 3)), "IndexMismatch"),
        (edited(lambda document: document["weight_map"].pop("b")), "IndexMismatch"),
    ],
)
def test_an_index_that_is_not_true_is_refused(
    folder: Path, damage: Callable[[Path], Any], reason: str
) -> None:
    damage(folder)
    with pytest.raises(TensorFileError) as refused:
        open_model(folder)
    assert refused.value.reason == reason


def test_a_tensor_that_two_shards_hold_is_refused(folder: Path) -> None:
    safetensors.numpy.save_file({**SHARDS[2], "a": np.zeros(2)}, folder / shard_name(2, 3))
    with pytest.raises(TensorFileError, match="holds 'a', which the index does not put there"):
        open_model(folder)


def test_links_are_followed_only_where_it_is_asked_for(folder: Path) -> None:
    linked(folder)
    with open_model(folder, links=True) as model:
        assert "a" in model.tensors
