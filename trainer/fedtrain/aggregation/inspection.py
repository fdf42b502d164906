"""Intake: does a candidate's receipt fit this round, and the file's header the model?

What a participant wrote is parsed here, in a child process, and nowhere else. The tensors' bytes
are not read yet: they are hashed and looked at while they are summed. Nothing is repaired: whatever
is wrong is a named reason that costs this participant its round. Only a failing disk (EIO, ESTALE)
is nobody's fault and is raised.
"""

import dataclasses
import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from fedtrain.adapters import narrowed
from fedtrain.aggregation.children import Crashed, in_children
from fedtrain.aggregation.log import Stopwatch, say
from fedtrain.aggregation.soundness import Refused
from fedtrain.aggregation.units import Carried
from fedtrain.codecs import update_schema
from fedtrain.contract import RECEIPT_FILE, UPDATE_FILE, Receipt, update_folder
from fedtrain.layout import TensorFileError, encode_header
from fedtrain.length import LENGTHS
from fedtrain.schema import Schema
from fedtrain.tensorfile import TensorFile, open_regular, read_exactly

RECEIPT_LIMIT = 256 * 1024
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
CHILD_MEMORY = 256 * 1024 * 1024
MOST_SAMPLES = MOST_STEPS = 2**53
LARGEST_STEP = 1000.0
"""Of a norm, per step: what a momentum of 0.999 comes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What every candidate of a round is held against.

    base: digest of the global model. tensors: what an update holds. codecs: the documents that a
    receipt may name, which mean the same. ranks: of adapters that are narrower than the global one.
    counts_steps: the strategy has to know how far each went.
    """

    root: Path
    training: str
    round: int
    base: str
    tensors: tuple[Carried, ...]
    codecs: tuple[Mapping[str, Any] | None, ...] = (None,)
    ranks: Mapping[str, int] = field(default_factory=dict)
    counts_steps: bool = False

    def schema(self, participant: str = "") -> Schema:
        """Of this participant's update file; without a name of the widest."""
        codec = next((tensor.codec for tensor in self.tensors if tensor.codec), None)
        whole = Schema.of(tensor.spec for tensor in self.tensors)
        return update_schema(narrowed(whole, self.ranks.get(participant)), codec)

    @property
    def header_limit(self) -> int:
        """Bytes: what a header of these tensors takes, with room for another writer's habits."""
        return 2 * len(encode_header(self.schema().layout(), None)) + 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The outcome for one candidate; `reason` is None if it passed.

    samples, digest and size: as the receipt says. offsets: of each carrier (`units`) in the file,
    in bytes, in their order; so nobody has to parse the file again. length: η ‖a‖₁, see
    `fedtrain.length`, if the strategy has to know it.
    """

    participant: str
    attempt: int
    reason: str | None = None
    sentence: str = ""
    samples: int = 0
    digest: str = ""
    size: int = 0
    length: float = 0.0
    offsets: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """For the pipe from the child; `decode` gives an equal value back."""
        fields = (field.name for field in dataclasses.fields(self))
        head = {name: getattr(self, name) for name in fields if name != "offsets"}
        text = json.dumps(head).encode()
        offsets = struct.pack(f"<{len(self.offsets)}q", *self.offsets)
        return struct.pack("<Q", len(text)) + text + offsets

    @classmethod
    def decode(cls, data: bytes) -> Self:
        end = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(data[8:end])
        offsets = struct.unpack(f"<{(len(data) - end) // 8}q", data[end:])
        return cls(**head, offsets=offsets)


def inspect_all(
    intake: Intake, candidates: Sequence[tuple[str, int]], at_once: int
) -> list[Inspected]:
    """Inspect each candidate in a child process, `at_once` of them side by side, in their order.

    One whose child crashed is inspected once more, alone, since another's memory may have been
    to blame; then it is refused as InspectionCrashed. Raises OSError for a failing exchange.
    """
    watch = Stopwatch()
    jobs = [partial(_answer, intake, *candidate) for candidate in candidates]
    memory = CHILD_MEMORY + 16 * intake.header_limit
    answers = dict(in_children(jobs, at_once, memory))
    for number, answer in answers.items():
        if isinstance(answer, Crashed):
            ((_, answers[number]),) = in_children([jobs[number]], 1, memory)
    inspected = [
        _inspected(*candidate, answers[number]) for number, candidate in enumerate(candidates)
    ]
    passed = sum(one.reason is None for one in inspected)
    say(f"inspected {len(inspected)} updates, {passed} are in order: {watch.seconds:.1f} s")
    return inspected


def _answer(intake: Intake, participant: str, attempt: int) -> bytes:
    """What a child sends: an `Inspected`, or the error of a failing exchange."""
    try:
        return b"I" + inspect(intake, participant, attempt).encode()
    except OSError as error:
        return b"E" + json.dumps([error.errno, error.strerror]).encode()


def _inspected(participant: str, attempt: int, answer: bytes | Crashed) -> Inspected:
    if isinstance(answer, Crashed):
        return Inspected(
            participant=participant,
            attempt=attempt,
            reason="InspectionCrashed",
            sentence=answer.sentence,
        )
    if answer.startswith(b"E"):
        code, text = json.loads(answer[1:])
        raise OSError(code, f"{text} while the update of {participant} was read")
    return Inspected.decode(answer[1:])


def inspect(intake: Intake, participant: str, attempt: int) -> Inspected:
    """Read receipt and header of a candidate. Raises OSError for a failing exchange only."""
    try:
        return _inspect(intake, participant, attempt)
    except (Refused, TensorFileError) as refusal:
        return Inspected(
            participant=participant,
            attempt=attempt,
            reason=refusal.reason,
            sentence=str(refusal)[:300],
        )


def open_folder(root: Path, relative: str) -> int:
    """A descriptor of a folder under `root`, none of whose parts is a link.

    A participant writes its own folder and could plant links that lead into another's. Raises
    Refused (ReceiptMissing) if the folder is not there, OSError otherwise.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in Path(relative).parts:
        try:
            inner = os.open(part, flags, dir_fd=fd)
        except (FileNotFoundError, NotADirectoryError):
            raise Refused("ReceiptMissing", f"{relative} was not published") from None
        except PermissionError:
            raise Refused("FileForbidden", f"{relative} may not be read by us") from None
        finally:
            os.close(fd)
        fd = inner
    return fd


def _inspect(intake: Intake, participant: str, attempt: int) -> Inspected:
    folder = open_folder(intake.root, update_folder(participant, intake.round, attempt))
    try:
        receipt = _receipt(folder)
        _check_receipt(receipt, intake, participant, attempt)
        with TensorFile.open(UPDATE_FILE, folder, header_limit=intake.header_limit) as file:
            return _check_file(file, receipt, intake)
    finally:
        os.close(folder)


def _receipt(folder: int) -> Receipt:
    try:
        fd = open_regular(RECEIPT_FILE, folder)
    except TensorFileError as error:
        missing = error.reason == "FileMissing"
        raise Refused("ReceiptMissing" if missing else "ReceiptInvalid", str(error)) from None
    try:
        size = os.fstat(fd).st_size
        if size > RECEIPT_LIMIT:
            raise Refused("ReceiptInvalid", f"a receipt of {size} bytes is more than a receipt")
        text = bytearray(size)
        read_exactly(fd, 0, memoryview(text))
        return Receipt.from_json(text.decode())
    except ValueError as error:
        raise Refused("ReceiptInvalid", str(error)) from None
    finally:
        os.close(fd)


def _check_receipt(receipt: Receipt, intake: Intake, participant: str, attempt: int) -> None:
    expected = {
        "training": intake.training,
        "round": intake.round,
        "participant": participant,
        "attempt": attempt,
    }
    for name, value in expected.items():
        said = getattr(receipt, name)
        if said != value:
            raise Refused("ReceiptMismatch", f"the receipt's {name} is {said!r:.80}, not {value!r}")
    if receipt.base != intake.base:
        sentence = f"relative to {receipt.base!r:.80}, but this round's model is {intake.base}"
        raise Refused("BaseMismatch", sentence)
    if receipt.codec not in intake.codecs:
        sentence = (
            f"encoded as {receipt.codec!r:.80}, but this round takes {intake.codecs[0]!r:.80}"
        )
        raise Refused("CodecMismatch", sentence)
    if not isinstance(receipt.digest, str) or not _DIGEST.fullmatch(receipt.digest):
        sentence = f"the receipt's digest is {receipt.digest!r:.80}, not sha256: and 64 hex digits"
        raise Refused("ReceiptInvalid", sentence)
    if receipt.samples > MOST_SAMPLES:
        raise Refused("ReceiptInvalid", "the receipt counts more than 2**53 samples")
    if receipt.steps > MOST_STEPS:
        raise Refused("ReceiptInvalid", "the receipt counts more than 2**53 steps")
    if receipt.samples == 0:  # the SDK publishes none; rules without weights would count it
        raise Refused("SamplesMissing", "the receipt counts no samples")
    if intake.counts_steps:
        _check_steps(receipt)


def _check_steps(receipt: Receipt) -> None:
    """A length that is a lie still leaves every sum finite, and so the others unharmed."""
    if receipt.steps < 1 or receipt.learning_rate is None or receipt.norm is None:
        sentence = "the receipt does not say how many steps, of what learning rate and norm"
        raise Refused("StepsMissing", sentence)
    if receipt.norm > LARGEST_STEP * receipt.steps:
        sentence = f"{receipt.steps} steps have no norm of {receipt.norm:.3g}"
        raise Refused("ReceiptInvalid", sentence)
    low, high = LENGTHS
    if not low <= _length(receipt) <= high:
        sentence = f"a length of {_length(receipt):.3g} is not between {low:g} and {high:g}"
        raise Refused("ReceiptInvalid", sentence)


def _length(receipt: Receipt) -> float:
    return (receipt.learning_rate or 0.0) * (receipt.norm or 0.0)


def _check_file(file: TensorFile, receipt: Receipt, intake: Intake) -> Inspected:
    if file.size != receipt.size:
        sentence = f"the receipt promises {receipt.size} bytes, the file has {file.size}"
        raise Refused("ReceiptMismatch", sentence)
    assert receipt.digest is not None, "checked with the receipt"
    difference = intake.schema(receipt.participant).difference(file.tensors.values())
    if difference is not None:
        raise Refused("SchemaMismatch", difference)
    begin = file.data_begin
    return Inspected(
        participant=receipt.participant,
        attempt=receipt.attempt,
        samples=receipt.samples,
        digest=receipt.digest,
        size=file.size,
        length=_length(receipt) if intake.counts_steps else 0.0,
        offsets=tuple(
            begin + file.tensors[carrier.name].begin
            for tensor in intake.tensors
            for carrier in tensor.carriers
        ),
    )
