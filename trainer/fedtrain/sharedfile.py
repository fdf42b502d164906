"""A safetensors file that the ranks of a participant write together, and its folder's publication.

Rank 0 makes folder and file, with all of its space; each rank then writes the elements that are
its own, and flushes them, and rank 0 renames the folder. One process is the case of one rank.
"""

import functools
import hashlib
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from fedtrain import publication, tensorfile
from fedtrain.collective import Ranks
from fedtrain.contract import RECEIPT_FILE
from fedtrain.errors import ContractError, TryAgain
from fedtrain.layout import TensorInfo, encode_header, numpy_dtype
from fedtrain.pieces import Differs, Pieces, joint_digest
from fedtrain.tensorfile import TensorFile, TensorWriter, bytes_of, pieces_of
from fedtrain.weights import Array


class SharedPublication:
    """`publication.Publication` for all ranks: one folder, made and renamed by rank 0."""

    def __init__(
        self, ranks: Ranks, folder: Path, receipt: str = RECEIPT_FILE, label: str = ""
    ) -> None:
        self._ranks = ranks
        self._parent = folder.parent
        # Of another rank it is only a name that is never made.
        self._own = publication.Publication(folder, receipt, label)
        self.path = self._own.path

    def __enter__(self) -> Self:
        if self._ranks.rank == 0:
            self._own.__enter__()
        self.path = self._parent / self._ranks.tell(self.path.name)
        return self

    def commit(self, text: str, files: Mapping[str, str] | None = None) -> str:
        """As of `Publication`, once every rank has come here."""
        self._ranks.gather(None)
        return str(self._ranks.tell(self._own.commit(text, files) if self._ranks.rank == 0 else ""))

    def __exit__(self, *exception: object) -> None:
        if self._ranks.rank == 0:
            self._own.__exit__(*exception)


class SharedWriter:
    """A new file at `path`; a context that closes it, or leaves it to whoever removes its folder.

    Opening and `digest` are collective. Raises OSError (ENOSPC) when the space cannot be had, and
    ContractError if the ranks' models are not one model.
    """

    def __init__(
        self,
        ranks: Ranks,
        path: Path,
        tensors: tuple[TensorInfo, ...],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._ranks = ranks
        self._path = path
        self._infos = {info.name: info for info in tensors}
        self._pieces = Pieces()
        header = encode_header(tensors, metadata)
        self._data_begin = len(header)
        self._fd = -1
        self.size = self._data_begin + max((info.end for info in tensors), default=0)
        _one_model(ranks.gather(hashlib.sha256(header).digest()))
        if ranks.rank == 0:
            TensorWriter(path, tensors, metadata).close()
        ranks.gather(None)
        # For writing only: an NFS client that may also read fills the page around a small write,
        # and sends it back whole, over what another node has written there meanwhile.
        self._fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write(self, name: str, start: int, array: Array) -> None:
        """Put `array` at element `start` of the flattened tensor `name`."""
        info = self._infos[name]
        item = numpy_dtype(info.dtype).itemsize
        for at, data in pieces_of(info, start, array):
            self._pieces.add(info, at, data)
            tensorfile.write_fully(self._fd, self._data_begin + info.begin + at * item, data)

    def digest(self) -> str:
        """Flush, and the digest of the whole file, the same on every rank; collective.

        Raises TryAgain if the file does not hold what was written, ValueError if something was not.
        """
        os.fsync(self._fd)
        with ExitStack() as opened:

            @functools.cache
            def file() -> TensorFile:
                # Opened once all have flushed: only then a node asks for what others have written.
                return opened.enter_context(TensorFile.open(self._path))

            def read(name: str, start: int, stop: int) -> memoryview:
                return bytes_of(file().read(name, start, stop))

            try:
                return joint_digest(self._ranks, self._infos, self._pieces, read, whole=True)
            except Differs as error:
                sentence = f"{self._path.name} does not hold what was written: {error}"
                raise TryAgain("ExchangeFailed", sentence) from error

    def close(self) -> None:
        """Flush to the disk and close."""
        if self._fd >= 0:
            try:
                os.fsync(self._fd)
            finally:
                self._abandon()

    def _abandon(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._fd >= 0:
            self._abandon()


def _one_model(headers: list[bytes]) -> None:
    for rank, header in enumerate(headers):
        if header != headers[0]:
            raise ContractError(
                "ModelUnsupported",
                f"rounds(model): rank {rank} has other tensors than rank 0; every rank must hold "
                "the whole model, or shards of it",
            )
