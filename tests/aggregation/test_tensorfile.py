"""The file format: what we write, the reference library reads, and the other way round."""

import contextlib
import hashlib
import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain import tensorfile
from fedtrain.contract import TILE_BYTES
from fedtrain.tensorfile import (
    TensorFile,
    TensorFileError,
    TensorInfo,
    TensorWriter,
    digest_file,
    plan,
)

DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


@st.composite
def some_tensors(draw: st.DrawFn) -> dict[str, tuple[str, np.ndarray]]:
    """By name: a dtype and an array of random bits of it."""
    names = draw(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=6))
    tensors = {}
    for name in names:
        if name == "__metadata__" or any("\ud800" <= letter <= "\udfff" for letter in name):
            continue
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        count = int(np.prod(shape, dtype=int))
        bits = rng.integers(0, 2 if dtype == "BOOL" else 256, count * 8, np.uint8)
        array = bits.view(tensorfile.numpy_dtype(dtype))[:count].reshape(shape)
        tensors[name] = dtype, array
    return tensors


def as_bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@settings(deadline=None, max_examples=60)
@given(some_tensors())
def test_the_reference_library_reads_what_we_write(
    tensors: dict[str, tuple[str, np.ndarray]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        layout = plan((name, dtype, array.shape) for name, (dtype, array) in tensors.items())
        with TensorWriter(path, layout, {"format": "pt"}) as writer:
            for name, (_, array) in tensors.items():
                writer.write(name, 0, array)
        theirs = dict(safetensors.deserialize(path.read_bytes()))
    assert theirs.keys() == tensors.keys()
    for name, (dtype, array) in tensors.items():
        assert (theirs[name]["dtype"], theirs[name]["shape"]) == (dtype, list(array.shape))
        assert bytes(theirs[name]["data"]) == as_bytes(array)


@settings(deadline=None, max_examples=60)
@given(some_tensors())
def test_we_read_what_the_reference_library_writes(
    tensors: dict[str, tuple[str, np.ndarray]],
) -> None:
    ours = {n: a for n, (dtype, a) in tensors.items() if dtype != "BF16"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        safetensors.numpy.save_file(ours, path)
        with TensorFile.open(path) as file:
            assert list(file.tensors) == sorted(ours)
            for name, array in ours.items():
                assert file.tensors[name].shape == array.shape
                assert as_bytes(file.read(name)) == as_bytes(array)


def naive_digest(tensors: dict[str, tuple[str, np.ndarray]]) -> str:
    """The digest, as its documentation says it."""
    lines = []
    for name, (dtype, array) in sorted(tensors.items()):
        data = as_bytes(array)
        tiles = [data[at : at + TILE_BYTES] for at in range(0, len(data), TILE_BYTES)] or [b""]
        hashes = [hashlib.sha256(tile).hexdigest() for tile in tiles]
        lines.append(json.dumps([name, dtype, list(array.shape), hashes], separators=(",", ":")))
    return "sha256:" + hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


@settings(deadline=None, max_examples=60)
@given(some_tensors(), st.randoms())
def test_a_digest_is_the_naive_one_whatever_the_order_in_the_file(
    tensors: dict[str, tuple[str, np.ndarray]], random: object
) -> None:
    order = sorted(tensors)
    random.shuffle(order)  # type: ignore[attr-defined]
    layout, begin = [], 0
    for name in order:
        dtype, array = tensors[name]
        layout.append(TensorInfo(name, dtype, array.shape, begin, begin + array.nbytes))
        begin += array.nbytes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shuffled.safetensors"
        with TensorWriter(path, tuple(layout)) as writer:
            for name in order:
                writer.write(name, 0, tensors[name][1])
            written = writer.digest()
        with TensorFile.open(path) as file:
            assert digest_file(file) == written == naive_digest(tensors)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_a_digest_of_many_tiles_does_not_depend_on_the_order_of_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setattr("fedtrain.digest.TILE_BYTES", 4096)
    monkeypatch.setattr("fedtrain.tensorfile.TILE_BYTES", 4096)
    monkeypatch.setattr("fedtrain.tensorfile.PIECE_BYTES", 1024)
    array = np.random.default_rng(1).normal(size=10_000).astype(np.float32)
    data = array.tobytes()
    hashes = [hashlib.sha256(data[at : at + 4096]).hexdigest() for at in range(0, len(data), 4096)]
    line = json.dumps(["w", "F32", [10_000], hashes], separators=(",", ":")) + "\n"
    expected = "sha256:" + hashlib.sha256(line.encode()).hexdigest()
    cuts = np.linspace(0, array.size, pieces + 1).astype(int)
    for order in (range(pieces), reversed(range(pieces))):
        path = tmp_path / "w.safetensors"
        with TensorWriter(path, plan([("w", "F32", (10_000,))])) as writer:
            for k in order:
                writer.write("w", cuts[k], array[cuts[k] : cuts[k + 1]])
            assert writer.digest() == expected
        path.unlink()


def test_a_tile_written_twice_has_the_digest_of_what_was_written_last(tmp_path: Path) -> None:
    layout = plan([("w", "I32", (8,))])
    digests = []
    for name, writes in {
        "once": [(0, [1, 2, 3, 4, 9, 9, 7, 8])],
        "twice": [(0, [1, 2, 3, 4, 5, 6, 7, 8]), (4, [9, 9])],
    }.items():
        with TensorWriter(tmp_path / name, layout) as writer:
            for start, values in writes:
                writer.write("w", start, np.array(values, np.int32))
            digests.append(writer.digest())
    assert digests[0] == digests[1]


def test_a_digest_is_refused_while_a_tile_is_missing(tmp_path: Path) -> None:
    layout = plan([("w", "F32", (3,)), ("v", "F32", (3,))])
    with TensorWriter(tmp_path / "x", layout) as writer:
        writer.write("w", 0, np.zeros(3, np.float32))
        with pytest.raises(ValueError, match="v: elements from 0 on were never written"):
            writer.digest()


def test_a_writer_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def fail_midway() -> None:
        with TensorWriter(path, plan([("w", "F32", (3,))])):
            assert path.exists()
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_midway()
    assert not path.exists()


def test_a_writer_refuses_what_does_not_fit_the_plan(tmp_path: Path) -> None:
    with TensorWriter(tmp_path / "x", plan([("w", "F32", (3,))])) as writer:
        for start, array in ((0, np.zeros(3)), (1, np.zeros(3, "f4")), (-1, np.zeros(1, "f4"))):
            with pytest.raises(ValueError, match="do not fit"):
                writer.write("w", start, array)


def test_every_planned_tensor_is_aligned_to_its_item(tmp_path: Path) -> None:
    layout = plan([("a", "BOOL", (3,)), ("b", "F32", (5,)), ("c", "I8", (1,)), ("d", "I64", (1,))])
    assert [info.name for info in layout] == ["a", "b", "c", "d"]
    with TensorWriter(tmp_path / "x", layout) as writer:
        pass
    with TensorFile.open(tmp_path / "x") as file:
        assert file.data_begin % 8 == 0
        assert writer.size == file.size
        for info in file.tensors.values():
            assert info.begin % tensorfile.numpy_dtype(info.dtype).itemsize == 0


def a_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[object], begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


W = entry("F32", [1], 0, 4)
HOSTILE = {
    "nothing": (b"", "HeaderInvalid"),
    "seven bytes": (b"1234567", "HeaderInvalid"),
    "a header longer than the file": (struct.pack("<Q", 100) + b"{}", "SizeMismatch"),
    "a header of 2^63 bytes": (struct.pack("<Q", 2**63) + b"{}", "HeaderTooLarge"),
    "a header of 101 MB": (struct.pack("<Q", 101_000_000) + b"{}", "HeaderTooLarge"),
    "no JSON": (a_file(b"{nonsense"), "HeaderInvalid"),
    "a list": (a_file(b"[]"), "HeaderInvalid"),
    "no UTF-8": (a_file(b'{"\xff": 1}'), "HeaderInvalid"),
    "deep nesting": (a_file(b'{"a":' + b"[" * 100_000), "HeaderInvalid"),
    "an endless number": (a_file(b'{"a":' + b"9" * 5000 + b"}"), "HeaderInvalid"),
    "truncated data": (a_file({"w": W}, bytes(3)), "SizeMismatch"),
    "trailing bytes": (a_file({"w": W}, bytes(5)), "SizeMismatch"),
    "a hole": (a_file({"w": entry("F32", [1], 4, 8)}, bytes(8)), "LayoutInvalid"),
    "an overlap": (a_file({"w": W, "v": entry("F32", [1], 2, 6)}, bytes(6)), "LayoutInvalid"),
    "the same bytes twice": (a_file({"w": W, "v": W}, bytes(4)), "LayoutInvalid"),
    "a negative shape": (a_file({"w": entry("F32", [-1], 0, 4)}, bytes(4)), "HeaderInvalid"),
    "a fractional shape": (a_file({"w": entry("F32", [1.0], 0, 4)}, bytes(4)), "HeaderInvalid"),
    "a true shape": (a_file({"w": entry("F32", [True], 0, 4)}, bytes(4)), "HeaderInvalid"),
    "offsets backwards": (a_file({"w": entry("F32", [1], 4, 0)}, bytes(4)), "LayoutInvalid"),
    "a shape that overflows": (
        a_file({"w": entry("F32", [2**62, 4], 0, 0)}),
        "LayoutInvalid",
    ),
    "a dtype of another world": (
        a_file({"w": entry("F8_E4M3", [4], 0, 4)}, bytes(4)),
        "DtypeUnsupported",
    ),
    "a dtype that is a list": (a_file({"w": {**W, "dtype": []}}, bytes(4)), "DtypeUnsupported"),
    "an extra field": (a_file({"w": {**W, "x": 1}}, bytes(4)), "HeaderInvalid"),
    "an entry that is a string": (a_file({"w": "F32"}), "HeaderInvalid"),
    "metadata that is a number": (a_file({"__metadata__": {"a": 1}}), "HeaderInvalid"),
    "half a surrogate": (
        a_file(b'{"\\ud800":' + json.dumps(W).encode() + b"}", bytes(4)),
        "HeaderInvalid",
    ),
    "a name twice": (
        a_file(b'{"w":%s,"w":%s}' % (json.dumps(W).encode(), json.dumps(W).encode()), bytes(4)),
        "DuplicateName",
    ),
    "a dtype twice": (
        a_file(b'{"w":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "DuplicateName",
    ),
}


@pytest.mark.parametrize(("data", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_with_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(TensorFileError) as refused, TensorFile.open(path):
        pass
    assert refused.value.reason == reason
    assert 0 < len(str(refused.value)) <= 300


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(data: bytes, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(struct.pack("<Q", length) + b"{" + data)
        with contextlib.suppress(TensorFileError), TensorFile.open(path) as file:
            for name in file.tensors:
                file.read(name)


def test_bytes_that_are_no_booleans_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(a_file({"w": entry("BOOL", [2], 0, 2)}, b"\x01\x02"))
    with TensorFile.open(tmp_path / "x") as file:
        assert file.read("w", 0, 1).tolist() == [True]
        with pytest.raises(TensorFileError) as refused:
            file.read("w")
    assert refused.value.reason == "NotBoolean"


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(a_file({"w": entry("U8", [100_000], 0, 100_000)}, bytes(100_000)))
    with TensorFile.open(path) as file:
        with open(path, "r+b") as other:
            other.truncate(1000)
        with pytest.raises(TensorFileError) as refused:
            file.read("w")
    assert refused.value.reason == "FileTruncated"


def test_a_range_is_the_slice_of_the_flattened_tensor(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    with TensorWriter(tmp_path / "x", plan([("w", "I16", array.shape)])) as writer:
        writer.write("w", 0, array)
    with TensorFile.open(tmp_path / "x") as file:
        assert file.read("w", 5, 17).tolist() == list(range(5, 17))
        with pytest.raises(ValueError, match="are not in"):
            file.read("w", 20, 25)
