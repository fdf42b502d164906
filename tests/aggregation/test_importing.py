"""A checkpoint becomes a global model."""

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


def save(model: dict[str, Any]) -> Callable[[Path], None]:
    return lambda path: safetensors.numpy.save_file(model, path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"no model"), "has no header|is more than"),
        (lambda path: path.mkdir(), "is not a regular file"),
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
