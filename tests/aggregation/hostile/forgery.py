"""What a hostile participant does: publish honestly, then spoil one thing, and sign again."""

import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtrain.contract import RECEIPT_FILE, UPDATE_FILE
from tests.aggregation.hostile import naive


@dataclass(frozen=True, slots=True)
class Forgery:
    """One attempt that was published honestly and may now be spoiled.

    root: of the exchange. others: folders of honest attempts of the same round.
    """

    root: Path
    folder: Path
    others: tuple[Path, ...] = ()

    @property
    def update(self) -> Path:
        return self.folder / UPDATE_FILE

    @property
    def receipt(self) -> Path:
        return self.folder / RECEIPT_FILE

    @property
    def header(self) -> Any:
        """The update's header as JSON."""
        return json.loads(self._parts()[0])

    @property
    def data(self) -> bytes:
        """The update's bytes behind its header."""
        return self._parts()[1]

    def _parts(self) -> tuple[bytes, bytes]:
        whole = self.update.read_bytes()
        end = 8 + int.from_bytes(whole[:8], "little")
        return whole[8:end], whole[end:]

    def write(self, header: Any, data: bytes | None = None, length: int | None = None) -> None:
        """Replace the update, sign it. header: JSON's text, or what is to be JSON's text."""
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        body = self.data if data is None else data
        prefix = struct.pack("<Q", len(text) if length is None else length)
        self.update.write_bytes(prefix + text + body)
        self.sign()

    def spoil(self, tensor: str, element: int, value: bytes) -> None:
        """Replace an element of a tensor by these bytes, and sign."""
        entry, data = self.header[tensor], bytearray(self.data)
        begin, end = entry["data_offsets"]
        at = (begin if element >= 0 else end) + element * len(value)
        data[at : at + len(value)] = value
        self.write(self._parts()[0], bytes(data))

    def sign(self) -> None:
        """Let the receipt tell the truth about the update, as far as there is one."""
        said: dict[str, Any] = {"size": os.lstat(self.update).st_size}
        try:
            said["digest"] = naive.digest(naive.tensors(naive.regular(self.update)))
        except (naive.Unsound, ValueError):
            said["digest"] = "sha256:" + "0" * 64
        self.say(**said)

    def say(self, /, **said: Any) -> None:
        """Change fields of the receipt."""
        self.receipt.write_text(json.dumps({**json.loads(self.receipt.read_text()), **said}))

    def say_raw(self, field: str, text: str) -> None:
        """Let a field of the receipt be any text: 1e18, NaN, what JSON should not hold."""
        self.say(**{field: "@raw@"})
        self.receipt.write_text(self.receipt.read_text().replace('"@raw@"', text))

    def replace(self, name: str, make: Callable[[Path], object]) -> None:
        """Put what `make` makes into the place of a file of the attempt."""
        path = self.folder / name
        path.unlink()
        make(path)


Spoil = Callable[[Forgery], object]


@dataclass(frozen=True, slots=True)
class Case:
    """what: the end of a sentence that begins with "a participant whose ...".

    reasons: each of them is right. heavy: so large that its memory is worth measuring.
    """

    what: str
    spoil: Spoil
    reasons: frozenset[str]
    heavy: bool = False


def cases(table: Iterable[tuple[str, Spoil, str]], heavy: Iterable[str] = ()) -> tuple[Case, ...]:
    """A table of (what, spoil, "Reason" or "Reason|Another")."""
    large = set(heavy)
    made = tuple(
        Case(what, spoil, frozenset(reasons.split("|")), what in large)
        for what, spoil, reasons in table
    )
    assert large <= {case.what for case in made}, "a heavy case that is not in the table"
    return made
