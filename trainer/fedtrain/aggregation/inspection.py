"""Inspection: is one candidate's update what its receipt says, and fit to be folded?

The answer is a function of the published bytes alone. Nothing is repaired: whatever is wrong is a
named reason that costs this participant its round. Only a failing disk (EIO, ESTALE) is nobody's
fault and is raised.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from fedtrain.aggregation.children import Crashed, in_children
from fedtrain.aggregation.log import Stopwatch, say
from fedtrain.contract import RECEIPT_FILE, UPDATE_FILE, Receipt, update_folder
from fedtrain.digest import Digest, tensor_tiles
from fedtrain.layout import FLOATING, TensorFileError, encode_header, numpy_dtype
from fedtrain.schema import Schema, TensorSpec
from fedtrain.tensorfile import PIECE_BYTES, TensorFile, bytes_of, open_regular, read_exactly

Array = np.ndarray[Any, Any]
RECEIPT_LIMIT = 256 * 1024
CHILD_MEMORY = 256 * 1024 * 1024
MOST_SAMPLES = 2**53
LARGEST = 2.0**100
"""Of a value of an update (1.3e30). A mean of such values is less than half of the distance between
fp32 numbers from 2**125 on, so it cannot move a model that is there already: however many rounds
such updates go on for, no sum with the base leaves fp32's range, which ends at 2**128."""


class Refused(ValueError):
    """Why a candidate is not accepted: a CamelCase reason and one sentence for its owner."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What every candidate of a round is held against.

    base: digest of the global model. header_limit: bytes of a file's header, see `header_limit`.
    """

    root: Path
    training: str
    round: int
    base: str
    schema: Schema
    header_limit: int


def header_limit(schema: Schema) -> int:
    """Bytes: what a header of these tensors takes, with room for another writer's habits."""
    return 2 * len(encode_header(schema.layout(), None)) + 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The outcome for one candidate; `reason` is None if it passed.

    offsets: of each of the schema's tensors in the file, in bytes. tiles: the sha256 of each of
    their tiles, 32 bytes each, in the schema's order; so the fold reads without parsing again and
    proves that it reads the same bytes. norm: L2 of the parameters' deltas.
    """

    participant: str
    attempt: int
    reason: str | None = None
    sentence: str = ""
    samples: int = 0
    digest: str = ""
    size: int = 0
    norm: float = 0.0
    offsets: tuple[int, ...] = ()
    tiles: bytes = b""

    def encode(self) -> bytes:
        """For the pipe from the child; `decode` gives an equal value back."""
        names = ("participant", "attempt", "reason", "sentence", "samples", "digest", "size")
        head = {name: getattr(self, name) for name in names}
        head |= {"norm": self.norm, "offsets": len(self.offsets)}
        text = json.dumps(head).encode()
        offsets = struct.pack(f"<{len(self.offsets)}q", *self.offsets)
        return struct.pack("<Q", len(text)) + text + offsets + self.tiles

    @classmethod
    def decode(cls, data: bytes) -> Self:
        end = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(data[8:end])
        count = head.pop("offsets")
        offsets = struct.unpack_from(f"<{count}q", data, end)
        return cls(**head, offsets=offsets, tiles=data[end + 8 * count :])


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
    passed = [one for one in inspected if one.reason is None]
    nbytes = sum(one.size for one in passed)
    say(f"inspected {len(inspected)} updates, {len(passed)} are sound: {watch.rate(nbytes)}")
    for one in inspected:
        if one.reason is not None:
            say(f"refused {one.participant}, attempt {one.attempt}: {one.reason}: {one.sentence}")
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
    """Read everything that a candidate published. Raises OSError for a failing exchange only."""
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
            return _check_file(file, receipt, intake.schema)
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
    if not isinstance(receipt.digest, str):
        raise Refused("ReceiptInvalid", "the receipt names no digest")
    if receipt.samples > MOST_SAMPLES:
        raise Refused("ReceiptInvalid", "the receipt counts more than 2**53 samples")


def _check_file(file: TensorFile, receipt: Receipt, schema: Schema) -> Inspected:
    if file.size != receipt.size:
        sentence = f"the receipt promises {receipt.size} bytes, the file has {file.size}"
        raise Refused("ReceiptMismatch", sentence)
    difference = schema.difference(file.tensors.values())
    if difference is not None:
        raise Refused("SchemaMismatch", difference)
    digest, tiles, squares = Digest(), bytearray(), 0.0
    for spec in schema.tensors:
        squares += _check_tensor(file, spec, digest, tiles)
    if digest.hexdigest() != receipt.digest:
        sentence = f"the file's digest is {digest.hexdigest()}, the receipt's {receipt.digest:.80}"
        raise Refused("DigestMismatch", sentence)
    begin = file.data_begin
    return Inspected(
        participant=receipt.participant,
        attempt=receipt.attempt,
        samples=receipt.samples,
        digest=receipt.digest,
        size=file.size,
        norm=math.sqrt(squares),
        offsets=tuple(begin + file.tensors[spec.name].begin for spec in schema.tensors),
        tiles=bytes(tiles),
    )


def _check_tensor(file: TensorFile, spec: TensorSpec, digest: Digest, tiles: bytearray) -> float:
    """Hash a tensor's tiles; its sum of squares if it is a parameter, else 0."""
    info = file.tensors[spec.name]
    dtype = numpy_dtype(info.dtype)
    step = PIECE_BYTES // dtype.itemsize
    buffer = np.empty(min(step, info.count), dtype)
    wide = np.empty(buffer.size if spec.dtype in FLOATING else 0, np.float64)
    squares = 0.0
    for index, start, stop in tensor_tiles(info):
        tile = hashlib.sha256()
        for at in range(start, stop, step):
            piece = buffer[: min(step, stop - at)]
            file.read_into(spec.name, at, piece)
            tile.update(bytes_of(piece))
            if spec.dtype in FLOATING:
                squares += _sum_of_squares(piece, wide[: piece.size], spec.name)
        tiles += tile.digest()
        digest.update(info.name, info.dtype, info.shape, index, tile.digest())
    return squares if spec.kind == "parameter" else 0.0


def _sum_of_squares(piece: Array, wide: Array, name: str) -> float:
    """In fp64, where squares of fp32 cannot overflow: so the sum is finite iff all values are."""
    np.copyto(wide, piece)
    squares = float(np.einsum("i,i->", wide, wide))
    if not math.isfinite(squares):
        raise Refused("NotFinite", f"tensor {name[:80]!a} holds NaN or infinity")
    if squares > LARGEST**2 and float(np.abs(wide).max()) > LARGEST:
        raise Refused("TooLarge", f"tensor {name[:80]!a} holds values beyond {LARGEST:.1e}")
    return squares
