"""Whatever one participant sends can cost that participant its round, and nothing else."""

import faulthandler
import json
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.aggregation import engine, inspection
from fedtrain.aggregation.verdicts import VerdictsError
from fedtrain.contract import MODEL_FILE, RECEIPT_FILE, UPDATE_FILE, Message
from fedtrain.tensorfile import TensorWriter, plan

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
MIB = 1024 * 1024


def honest(a_federation: Make, a_delta: Make) -> Any:
    return a_federation().with_update("a", a_delta(1)).with_update("c", a_delta(3), samples=5)


@pytest.fixture(scope="module")
def model_without_the_hostile(a_federation: Make, a_delta: Make) -> bytes:
    federation = honest(a_federation, a_delta)
    federation.aggregate()
    return bytes((federation.root / "global/1/1" / MODEL_FILE).read_bytes())


def header_of(document: bytes, data: bytes = b"") -> Callable[[Path], None]:
    return lambda path: (
        path.write_bytes(struct.pack("<Q", len(document)) + document + data) and None
    )


def empty_tensors(path: Path) -> None:
    entries = (
        b'"%06d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % k for k in range(900_000)
    )
    header_of(b"{" + b",".join(entries) + b"}")(path)


def sparse(path: Path) -> None:
    document = {
        "fc.weight": {"dtype": "F32", "shape": [8 * 10**8], "data_offsets": [0, 32 * 10**8]}
    }
    header_of(json.dumps(document).encode())(path)
    os.truncate(path, path.stat().st_size + 32 * 10**8)


def linked(path: Path) -> None:
    os.symlink("/etc/passwd", path)


def hard_linked(path: Path) -> None:
    original = path.parents[3] / "another"
    original.parent.mkdir(parents=True, exist_ok=True)
    original.write_bytes(b"x" * 100)
    os.link(original, path)


SCHEMA_OF_ONE = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no file": (lambda path: path.symlink_to("nowhere"), "NotARegularFile"),
    "a symlink": (linked, "NotARegularFile"),
    "a FIFO": (os.mkfifo, "NotARegularFile"),
    "a folder": (os.mkdir, "NotARegularFile"),
    "a hard link": (hard_linked, "HardLinked"),
    "nothing": (lambda path: path.write_bytes(b""), "HeaderInvalid"),
    "another model": (header_of(SCHEMA_OF_ONE, bytes(4)), "SchemaMismatch"),
    "truncated data": (header_of(SCHEMA_OF_ONE, bytes(3)), "SizeMismatch"),
    "trailing bytes": (header_of(SCHEMA_OF_ONE, bytes(5)), "SizeMismatch"),
    "a truncated header": (header_of(SCHEMA_OF_ONE[:-1]), "HeaderInvalid"),
    "a header of 2^63 bytes": (
        lambda path: path.write_bytes(struct.pack("<Q", 2**63)),
        "HeaderTooLarge",
    ),
    "deep nesting": (header_of(b'{"a":' + b"[" * 60_000), "HeaderInvalid"),
    "900,000 empty tensors": (empty_tensors, "HeaderTooLarge"),
    "a sparse file of 3.2 GB": (sparse, "SchemaMismatch"),
}


@pytest.mark.parametrize(("write", "reason"), FILES.values(), ids=FILES.keys())
def test_a_hostile_file_is_refused_quickly_in_bounded_memory_and_changes_no_byte(
    a_federation: Make,
    a_delta: Make,
    model_without_the_hostile: bytes,
    write: Callable[[Path], None],
    reason: str,
) -> None:
    federation = honest(a_federation, a_delta).with_file("b", write)
    began = time.monotonic()
    ended = federation.run(threads=1)
    assert ended.code == 0, ended.output
    assert federation.verdict_on("b", ended.message) == reason
    assert ended.message.result["details"]["b"]
    assert ended.message.result["seconds"] < 3
    assert time.monotonic() - began < 20
    assert ended.message.result["peakMemory"] < 150 * MIB
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


def changed(delta: dict[str, np.ndarray], name: str, value: float) -> dict[str, np.ndarray]:
    delta[name].reshape(-1)[-1] = value
    return delta


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "NotFinite"),
        (np.inf, "NotFinite"),
        (-np.inf, "NotFinite"),
        (3e38, "TooLarge"),
        (-1.3e30, "TooLarge"),
    ],
)
@pytest.mark.parametrize("name", ["fc.weight", "bn.running_var"])
def test_one_value_that_cannot_be_averaged_refuses_the_whole_update(
    a_federation: Make,
    a_delta: Make,
    model_without_the_hostile: bytes,
    value: float,
    reason: str,
    name: str,
) -> None:
    federation = honest(a_federation, a_delta)
    federation.with_update("b", changed(a_delta(2), name, value))
    message = federation.aggregate()
    assert federation.verdict_on("b", message) == reason
    assert name in message.result["details"]["b"]
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


@pytest.mark.parametrize("base", [0.0, 2.0**125, float(np.finfo(np.float32).max)])
@pytest.mark.parametrize("participants", [1, 40])
def test_the_largest_updates_that_pass_never_make_a_model_that_is_not_finite(
    a_federation: Make, base: float, participants: int
) -> None:
    federation = a_federation({"w": np.full(3, base, np.float32)}, w="parameter")
    largest = {"w": np.full(3, inspection.LARGEST, np.float32)}
    for k in range(participants):
        federation.with_update(f"p{k}", largest, samples=1 + k % 7)
    federation.aggregate()
    expected = base or inspection.LARGEST
    assert federation.result()["w"] == pytest.approx(np.full(3, expected), rel=1e-6)
    assert federation.result()["w"].max() <= max(base, 1.01 * inspection.LARGEST)


def test_what_a_participant_leaves_in_its_folder_never_fails_an_aggregation(
    a_federation: Make, a_delta: Make, model_without_the_hostile: bytes
) -> None:
    federation = honest(a_federation, a_delta)
    folder = federation.root / "updates/c/0"
    folder.mkdir(parents=True)
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    ended = federation.run()
    assert ended.code == 0, ended.output
    assert os.listdir(folder) == []
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


RECEIPTS: dict[str, tuple[dict[str, Any], str]] = {
    "another training": ({"training": "another-uid"}, "ReceiptMismatch"),
    "another round": ({"round": 2}, "ReceiptMismatch"),
    "another participant": ({"participant": "a"}, "ReceiptMismatch"),
    "another attempt": ({"attempt": 2}, "ReceiptMismatch"),
    "another size": ({"size": 17}, "ReceiptMismatch"),
    "another base": ({"base": "sha256:" + "1" * 64}, "BaseMismatch"),
    "no base": ({"base": None}, "BaseMismatch"),
    "another digest": ({"digest": "sha256:" + "1" * 64}, "DigestMismatch"),
    "no digest": ({"digest": None}, "ReceiptInvalid"),
    "negative samples": ({"samples": -1}, "ReceiptInvalid"),
    "samples without end": ({"samples": 10**400}, "ReceiptInvalid"),
    "half a sample": ({"samples": 0.5}, "ReceiptInvalid"),
    "another version": ({"version": 2}, "ReceiptInvalid"),
}


@pytest.mark.parametrize(("said", "reason"), RECEIPTS.values(), ids=RECEIPTS.keys())
def test_a_receipt_that_says_something_else_is_refused(
    a_federation: Make,
    a_delta: Make,
    model_without_the_hostile: bytes,
    said: dict[str, Any],
    reason: str,
) -> None:
    federation = honest(a_federation, a_delta).with_update("b", a_delta(2), **said)
    message = federation.aggregate()
    assert federation.verdict_on("b", message) == reason
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


NOT_RECEIPTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda path: None, "ReceiptMissing"),
    "no JSON": (lambda path: path.write_bytes(b"{"), "ReceiptInvalid"),
    "no UTF-8": (lambda path: path.write_bytes(b"\xff"), "ReceiptInvalid"),
    "a list": (lambda path: path.write_bytes(b"[1]"), "ReceiptInvalid"),
    "deep nesting": (lambda path: path.write_bytes(b"[" * 100_000), "ReceiptInvalid"),
    "a megabyte": (lambda path: path.write_bytes(b" " * MIB), "ReceiptInvalid"),
    "a symlink": (lambda path: path.symlink_to("/etc/passwd"), "ReceiptInvalid"),
    "a FIFO": (os.mkfifo, "ReceiptInvalid"),
}


@pytest.mark.parametrize(("write", "reason"), NOT_RECEIPTS.values(), ids=NOT_RECEIPTS.keys())
def test_what_is_no_receipt_is_refused(
    a_federation: Make, a_delta: Make, write: Callable[[Path], None], reason: str
) -> None:
    federation = honest(a_federation, a_delta).with_update("b", a_delta(2))
    path = federation.folder_of("b") / RECEIPT_FILE
    path.unlink()
    write(path)
    assert federation.verdict_on("b", federation.aggregate()) == reason


def test_a_link_into_the_folder_of_another_is_not_followed(
    a_federation: Make, a_delta: Make
) -> None:
    federation = honest(a_federation, a_delta).with_update("b", a_delta(2))
    folder = federation.root / "updates/b/1"
    folder.rename(federation.root / "elsewhere")
    folder.symlink_to(federation.root / "elsewhere")
    assert federation.verdict_on("b", federation.aggregate()) == "ReceiptMissing"


def test_a_file_with_the_right_bytes_in_another_order_is_accepted(
    a_federation: Make, a_delta: Make, model_without_the_hostile: bytes
) -> None:
    import safetensors.numpy

    federation = honest(a_federation, a_delta)
    path = federation.folder_of("c") / UPDATE_FILE
    receipt = json.loads((federation.folder_of("c") / RECEIPT_FILE).read_text())
    safetensors.numpy.save_file(a_delta(3), path, {"written": "by another library"})
    receipt["size"] = path.stat().st_size
    (federation.folder_of("c") / RECEIPT_FILE).write_text(json.dumps(receipt))
    federation.aggregate()
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


def flip(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a bit flips": flip,
    "it is truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "it is removed": Path.unlink,
    "it becomes a link": replace_by_link,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_an_update_that_changes_after_its_inspection_aborts_the_fold_and_is_named(
    a_federation: Make,
    a_delta: Make,
    model_without_the_hostile: bytes,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    federation = honest(a_federation, a_delta).with_update("b", a_delta(2))

    def inspect_and_change(*args: Any) -> Any:
        inspected = inspection.inspect_all(*args)
        change(federation.folder_of("b") / UPDATE_FILE)
        return inspected

    with monkeypatch.context() as patch:
        patch.setattr(engine, "inspect_all", inspect_and_change)
        with pytest.raises(VerdictsError) as refused:
            federation.aggregate(threads=2)
    assert refused.value.reason == "ChangedAfterInspection"
    assert refused.value.exit == 66
    message = Message(result=refused.value.result)
    assert message.result["verdicts"] == ".a."
    assert federation.verdict_on("b", message) == "ChangedAfterInspection"
    assert os.listdir(federation.root / "global/1") == []
    without = tuple(c for c in federation.task().candidates if c[0] != "b")
    federation.aggregate(candidates=without)
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


def crash(how: str) -> None:
    if how == "a segmentation fault":
        faulthandler.disable()
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "all memory":
        bytearray(1024 * MIB)
    raise AssertionError("a bug of ours")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("a segmentation fault", "killed by SIGSEGV"),
        ("all memory", "ran out of memory"),
        ("a bug", "crashed"),
    ],
)
def test_a_crash_during_inspection_costs_only_the_one_that_was_inspected(
    a_federation: Make,
    a_delta: Make,
    model_without_the_hostile: bytes,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    sentence: str,
) -> None:
    inspect = inspection.inspect

    def crashing(intake: Any, participant: str, attempt: int) -> Any:
        if participant == "b":
            crash(how)
        return inspect(intake, participant, attempt)

    monkeypatch.setattr(inspection, "inspect", crashing)
    federation = honest(a_federation, a_delta).with_update("b", a_delta(2))
    message = federation.aggregate(threads=3)
    assert federation.verdict_on("b", message) == "InspectionCrashed"
    assert sentence in message.result["details"]["b"]
    assert (federation.root / "global/1/1" / MODEL_FILE).read_bytes() == model_without_the_hostile


def test_an_inspection_that_was_killed_once_is_done_again(
    a_federation: Make, a_delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = inspection.inspect
    federation = honest(a_federation, a_delta)

    def killed_once(intake: Any, participant: str, attempt: int) -> Any:
        flag = federation.root / f"killed-{participant}"
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return inspect(intake, participant, attempt)

    monkeypatch.setattr(inspection, "inspect", killed_once)
    assert federation.aggregate(threads=2).result["verdicts"] == ".."


def test_a_failing_disk_is_not_blamed_on_the_participant(
    a_federation: Make, a_delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(inspection, "inspect", failing)
    with pytest.raises(OSError, match="while the update of a was read"):
        honest(a_federation, a_delta).aggregate()


def test_an_update_of_another_dtype_is_refused_by_name(a_federation: Make) -> None:
    model = {"w": np.zeros((2, 2), np.float32), "v": np.zeros(3, np.float32)}
    federation = a_federation(model)
    federation.with_update("a", model)
    federation.with_update("b", {**model, "w": np.zeros((2, 2), np.float16)})
    federation.with_update("c", {**model, "w": np.zeros((4,), np.float32)})
    federation.with_update("d", {"w": model["w"]})
    federation.with_update("e", {**model, "x": model["v"]})
    details = federation.aggregate().result["details"]
    assert details == {
        "b": "tensor 'w' is F16 [2, 2], not F32 [2, 2]",
        "c": "tensor 'w' is F32 [4], not F32 [2, 2]",
        "d": "tensor 'v' is missing",
        "e": "tensor 'x' is not part of the model",
    }


def test_a_boolean_that_is_neither_true_nor_false_is_refused(a_federation: Make) -> None:
    model = {"w": np.zeros(1, np.float32), "mask": np.zeros(2, np.bool_)}
    federation = a_federation(model).with_update("a", model)

    def write(path: Path) -> None:
        with TensorWriter(path, plan([("w", "F32", (1,)), ("mask", "BOOL", (2,))])):
            pass
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x07")

    federation.with_file("b", write)
    assert federation.verdict_on("b", federation.aggregate()) == "NotBoolean"
