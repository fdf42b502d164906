"""A checkpoint becomes a global model."""

import dataclasses
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.aggregation import importing
from fedtrain.contract import ImportTask
from fedtrain.errors import DataError
from fedtrain.manifest import Manifest
from fedtrain.schema import Schema
from fedtrain.tensorfile import TensorFile, TensorWriter, digest_file, plan


def a_task(source: Path) -> ImportTask:
    return ImportTask(
        training="digits", uid="u", round=0, attempt=1, source=str(source), output="global/0/1"
    )


def test_floating_tensors_become_fp32_and_others_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = {
        "half": rng.normal(size=(3, 2)).astype(np.float16),
        "double": rng.normal(size=5),
        "bn.running_mean": np.zeros(2, np.float32),
        "steps": np.array(3),
        "mask": np.array([True, False]),
    }
    safetensors.numpy.save_file(model, tmp_path / "model.safetensors")
    message = importing.import_model(a_task(tmp_path / "model.safetensors"), tmp_path)
    folder = tmp_path / "global/0/1"
    imported = safetensors.numpy.load_file(folder / "model.safetensors")
    for name, array in model.items():
        expected = array.astype(np.float32) if array.dtype.kind == "f" else array
        assert imported[name].dtype == expected.dtype
        assert np.array_equal(imported[name], expected)
    schema = Schema.from_json((folder / "schema.json").read_text())
    assert {spec.name: (spec.dtype, spec.kind) for spec in schema.tensors} == {
        "half": ("F32", "parameter"),
        "double": ("F32", "parameter"),
        "bn.running_mean": ("F32", "buffer"),
        "steps": ("I64", "integer"),
        "mask": ("BOOL", "integer"),
    }
    manifest = Manifest.from_json((folder / "manifest.json").read_text())
    with TensorFile.open(folder / "model.safetensors") as file:
        assert message.result == {"digest": digest_file(file), "size": file.size}
        assert manifest.digest == digest_file(file)
        assert schema.difference(file.tensors.values()) is None


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1))
def test_bfloat16_is_widened_exactly(bits: list[int]) -> None:
    ours = importing.widened(np.array(bits, np.uint16), "BF16")
    assert ours.tobytes() == b"".join(struct.pack("<HH", 0, value) for value in bits)


def test_importing_twice_is_importing_once(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(2, np.float32)}, source)
    first = importing.import_model(a_task(source), tmp_path)
    source.unlink()
    assert importing.import_model(a_task(source), tmp_path) == first


def test_the_links_of_a_model_cache_are_followed(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.zeros(2, np.float32)}, tmp_path / "blob")
    link = tmp_path / "model.safetensors"
    link.symlink_to("blob")
    assert importing.import_model(a_task(link), tmp_path).result["size"] > 0


def a_sharded_checkpoint(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Two shards and their index, as transformers' save_pretrained leaves them."""
    folder.mkdir(parents=True)
    first = {"embed.weight": np.random.default_rng(3).normal(size=(4, 3)).astype(np.float16)}
    second = {"head.weight": np.random.default_rng(4).normal(size=7), "steps": np.array(3)}
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, shard in zip(names, (first, second), strict=True):
        safetensors.numpy.save_file(shard, folder / name, {"format": "pt"})
    index = {
        "metadata": {"total_parameters": 20, "total_size": 88},
        "weight_map": dict.fromkeys(first, names[0]) | dict.fromkeys(second, names[1]),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return first | second


@pytest.mark.parametrize("source", ["", "model.safetensors.index.json"])
def test_shards_with_an_index_become_one_model(tmp_path: Path, source: str) -> None:
    model = a_sharded_checkpoint(tmp_path / "checkpoint")
    message = importing.import_model(a_task(tmp_path / "checkpoint" / source), tmp_path)
    imported = safetensors.numpy.load_file(tmp_path / "global/0/1/model.safetensors")
    assert imported.keys() == model.keys()
    for name, array in model.items():
        expected = array.astype(np.float32) if array.dtype.kind == "f" else array
        assert np.array_equal(imported[name], expected)
    with TensorFile.open(tmp_path / "global/0/1/model.safetensors") as file:
        assert message.result == {"digest": digest_file(file), "size": file.size}


def test_one_file_and_shards_of_the_same_tensors_have_the_same_digest(tmp_path: Path) -> None:
    whole = a_sharded_checkpoint(tmp_path / "shards")
    (tmp_path / "whole").mkdir()
    safetensors.numpy.save_file(whole, tmp_path / "whole" / "model.safetensors")
    tasks = [
        dataclasses.replace(a_task(tmp_path / name), output=f"global/0/{number}")
        for number, name in enumerate(("shards", "whole"))
    ]
    digests = [importing.import_model(task, tmp_path).result["digest"] for task in tasks]
    assert digests[0] == digests[1]


def test_the_links_of_a_sharded_model_in_a_cache_are_followed(tmp_path: Path) -> None:
    a_sharded_checkpoint(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots/main"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted((tmp_path / "blobs").iterdir())):
        blob = file.rename(tmp_path / "blobs" / f"sha256-{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    assert importing.import_model(a_task(snapshot), tmp_path).result["size"] > 0


def test_an_index_that_its_shards_do_not_bear_out_is_refused(tmp_path: Path) -> None:
    a_sharded_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DataError, match=r"00002.safetensors does not exist") as refused:
        importing.import_model(a_task(tmp_path / "checkpoint"), tmp_path)
    assert refused.value.reason == "ModelUnreadable"
    assert list(tmp_path.glob("global/0/*")) == []


def save(model: dict[str, Any]) -> Callable[[Path], None]:
    return lambda path: safetensors.numpy.save_file(model, path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"no model"), "has no header|is more than"),
        (lambda path: path.mkdir(), "model.safetensors and .*index.json do not exist"),
        (os.mkfifo, "is not a regular file"),
        (save({"w": np.array([np.inf])}), "tensor 'w' holds values that are not finite in fp32"),
        (save({"w": np.array([1e300])}), "tensor 'w' holds values that are not finite in fp32"),
        (save({"steps": np.array(3)}), "holds no floating tensor"),
    ],
)
def test_a_file_that_is_no_model_is_refused_naming_it_and_why(
    tmp_path: Path, write: Callable[[Path], Any], sentence: str
) -> None:
    source = tmp_path / "model.safetensors"
    write(source)
    with pytest.raises(DataError, match=sentence) as refused:
        importing.import_model(a_task(source), tmp_path)
    assert (refused.value.exit, refused.value.reason) == (65, "ModelUnreadable")
    assert str(source) in str(refused.value)
    assert list(tmp_path.glob("global/0/*")) == []


def test_a_model_of_more_than_a_piece_is_copied_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "PIECE_BYTES", 64)
    array = np.random.default_rng(1).normal(size=1001)
    with TensorWriter(tmp_path / "m", plan([("w", "F64", array.shape)])) as writer:
        writer.write("w", 0, array)
    importing.import_model(a_task(tmp_path / "m"), tmp_path)
    with TensorFile.open(tmp_path / "global/0/1/model.safetensors") as file:
        assert np.array_equal(file.read("w"), array.astype(np.float32))
