"""Strict reading and streaming writing of safetensors files, with plain reads and no mapping.

Whoever sends an update may send anything: a symlink, a FIFO, a header of a million names, a file
that shrinks while it is read. `TensorFile` opens regular, unlinked-elsewhere files only, believes
a header only when it covers the file exactly, and reads with pread, so that a truncated file is
an error and never a SIGBUS. `TensorWriter` hashes what it writes, so that nothing is read twice.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import numpy as np

from fedtrain import pagecache
from fedtrain.contract import TILE_BYTES
from fedtrain.digest import Digest, tensor_tiles, tile_count
from fedtrain.layout import (
    HEADER_LIMIT,
    TensorFileError,
    TensorInfo,
    dtype_name,
    encode_header,
    numpy_dtype,
    parse_header,
    plan,
)

__all__ = [
    "Digest",
    "TensorFile",
    "TensorFileError",
    "TensorInfo",
    "TensorWriter",
    "digest_file",
    "dtype_name",
    "numpy_dtype",
    "open_regular",
    "plan",
    "tensor_tiles",
    "tile_count",
]

Array = np.ndarray[Any, Any]
PIECE_BYTES = 1024 * 1024
"""What is read or written at once: small enough to be hashed while the cache still holds it."""


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...
    def digest(self) -> bytes: ...


def open_regular(name: str | os.PathLike[str], dir_fd: int | None = None) -> int:
    """A descriptor of a regular file that has this one name and is no link.

    Raises TensorFileError for anything else (FileMissing, FileForbidden, NotARegularFile,
    HardLinked); other OSErrors (EIO, ESTALE) are nobody's fault and pass through.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    shown = os.path.basename(os.fspath(name))
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except OSError as error:
        reasons = {
            errno.ENOENT: ("FileMissing", "does not exist"),
            errno.ENOTDIR: ("FileMissing", "does not exist"),
            errno.ELOOP: ("NotARegularFile", "is a symbolic link"),
            errno.ENXIO: ("NotARegularFile", "is not a regular file"),
            errno.EACCES: ("FileForbidden", "may not be read by us"),
            errno.EPERM: ("FileForbidden", "may not be read by us"),
            errno.EAGAIN: ("FileForbidden", "is locked by its owner"),  # a lease, fcntl(2)
        }
        if error.errno not in reasons:
            raise
        reason, why = reasons[error.errno]
        raise TensorFileError(reason, f"{shown} {why}") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise TensorFileError("NotARegularFile", f"{shown} is not a regular file")
    if status.st_nlink > 1:
        os.close(fd)
        raise TensorFileError("HardLinked", f"{shown} has {status.st_nlink} names, not one")
    return fd


def read_text(name: str | os.PathLike[str], limit: int = 64 * 1024 * 1024) -> str:
    """A small file of ours, read with the same suspicion: no link, no pipe, no flood.

    Raises TensorFileError, OSError (EIO ...), or UnicodeDecodeError (a ValueError).
    """
    fd = open_regular(name)
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            shown = os.path.basename(os.fspath(name))
            raise TensorFileError("SizeMismatch", f"{shown} has {size} bytes, over {limit}")
        text = bytearray(size)
        read_exactly(fd, 0, memoryview(text))
        return text.decode()
    finally:
        os.close(fd)


def read_exactly(fd: int, offset: int, out: memoryview) -> None:
    """Fill `out` from `offset` on. Raises TensorFileError if the file has become shorter."""
    done = 0
    while done < len(out):
        count = os.preadv(fd, [out[done:]], offset + done)
        if count == 0:
            raise TensorFileError("FileTruncated", "the file became shorter while it was read")
        done += count


def bytes_of(array: Array) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def pieces_of(info: TensorInfo, start: int, array: Array) -> Iterator[tuple[int, memoryview]]:
    """(first element, bytes) of `array`, put at element `start`, in pieces that lie within tiles.

    Raises ValueError unless it fits the tensor.
    """
    dtype = numpy_dtype(info.dtype)
    if array.dtype != dtype or not 0 <= start <= start + array.size <= info.count:
        raise ValueError(f"{info.name}: {array.size} {array.dtype} at {start} do not fit {info}")
    flat = np.ascontiguousarray(array).reshape(-1)
    tile, piece = TILE_BYTES // dtype.itemsize, PIECE_BYTES // dtype.itemsize
    at = start
    while at < start + flat.size:
        stop = min(start + flat.size, at + piece, (at // tile + 1) * tile)
        yield at, bytes_of(flat[at - start : stop - start])
        at = stop


class TensorFile:
    """A safetensors file of unknown origin, opened; use it as a context manager."""

    def __init__(self, fd: int, header_limit: int = HEADER_LIMIT) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size
        prefix = bytearray(8)
        if self.size < 8:
            raise TensorFileError("HeaderInvalid", f"a file of {self.size} bytes has no header")
        read_exactly(fd, 0, memoryview(prefix))
        (length,) = struct.unpack("<Q", prefix)
        if length > min(header_limit, HEADER_LIMIT):
            sentence = f"a header of {length} bytes is more than {min(header_limit, HEADER_LIMIT)}"
            raise TensorFileError("HeaderTooLarge", sentence)
        if 8 + length > self.size:
            raise TensorFileError("SizeMismatch", "the file ends inside its header")
        text = bytearray(length)
        read_exactly(fd, 8, memoryview(text))
        self.data_begin: int = 8 + length
        tensors, metadata = parse_header(bytes(text), self.size - self.data_begin)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)

    @classmethod
    def open(
        cls,
        path_or_name: str | os.PathLike[str],
        dir_fd: int | None = None,
        *,
        header_limit: int = HEADER_LIMIT,
    ) -> Self:
        """Raises TensorFileError for everything that a file can be but should not."""
        fd = open_regular(path_or_name, dir_fd)
        try:
            return cls(fd, header_limit)
        except BaseException:
            os.close(fd)
            raise

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Elements [start, stop) of the flattened tensor; BF16 as uint16."""
        info = self.tensors[name]
        stop = info.count if stop is None else stop
        out = np.empty(max(0, stop - start), numpy_dtype(info.dtype))
        self.read_into(name, start, out)
        return out

    def read_into(self, name: str, start: int, out: Array) -> None:
        """Fill the contiguous `out` with the flattened tensor's elements from `start` on."""
        info = self.tensors[name]
        dtype = numpy_dtype(info.dtype)
        if out.dtype != dtype or not 0 <= start <= start + out.size <= info.count:
            raise ValueError(f"{name}: {out.size} {out.dtype} at {start} are not in {info}")
        read_exactly(self._fd, self.data_begin + info.begin + start * dtype.itemsize, bytes_of(out))
        if info.dtype == "BOOL" and out.size and int(out.view(np.uint8).max()) > 1:
            raise TensorFileError("NotBoolean", f"{name[:80]!a} holds bytes other than 0, 1")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def digest_file(file: TensorFile) -> str:
    """The layout-free digest of all tensors of a file, read once in pieces."""
    digest = Digest()
    for info in file.tensors.values():
        step = PIECE_BYTES // numpy_dtype(info.dtype).itemsize
        buffer = np.empty(min(step, info.count), numpy_dtype(info.dtype))
        for index, start, stop in tensor_tiles(info):
            tile = hashlib.sha256()
            for at in range(start, stop, step):
                piece = buffer[: min(step, stop - at)]
                file.read_into(info.name, at, piece)
                tile.update(bytes_of(piece))
            digest.update(info.name, info.dtype, info.shape, index, tile.digest())
    return digest.hexdigest()


class TensorWriter:
    """A new safetensors file at `path`, written in any order and from any thread.

    Within a tile, sequential writes are hashed as they come; what was written otherwise is read
    back once by `digest`. Leaving the context closes the file durably, or removes it if an
    exception is under way. Raises OSError (ENOSPC) when the space cannot be had.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tensors: tuple[TensorInfo, ...],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._path = Path(path)
        self._infos = {info.name: info for info in tensors}
        self._running: dict[tuple[str, int], tuple[_Hash, int]] = {}
        self._hashes: dict[tuple[str, int], bytes | None] = {}
        self._lock = threading.Lock()
        header = encode_header(tensors, metadata)
        self._data_begin = len(header)
        self.size = len(header) + max((info.end for info in tensors), default=0)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
        try:
            _preallocate(self._fd, self.size)
            write_fully(self._fd, 0, memoryview(header))
        except BaseException:
            self._abandon()
            raise

    def write(self, name: str, start: int, array: Array) -> None:
        """Put `array` at element `start` of the flattened tensor `name`."""
        info = self._infos[name]
        item = numpy_dtype(info.dtype).itemsize
        for at, data in pieces_of(info, start, array):
            self._hash(info, at, data)
            write_fully(self._fd, self._data_begin + info.begin + at * item, data)

    def _hash(self, info: TensorInfo, start: int, data: memoryview) -> None:
        item = numpy_dtype(info.dtype).itemsize
        tile, at = divmod(start, TILE_BYTES // item)
        key = (info.name, tile)
        length = min(TILE_BYTES, info.nbytes - tile * TILE_BYTES)
        with self._lock:
            running, reached = self._running.pop(key, (None, -1))
            self._hashes[key] = None
        if at == 0:
            running, reached = hashlib.sha256(), 0
        if running is None or reached != at * item:
            return
        running.update(data)
        reached += len(data)
        with self._lock:
            if reached == length:
                self._hashes[key] = running.digest()
            else:
                self._running[key] = running, reached

    def read_back(self, name: str, out: Array) -> None:
        """Fill `out` with a whole tensor, as it was written."""
        info = self._infos[name]
        if (out.dtype, out.size) != (numpy_dtype(info.dtype), info.count):
            raise ValueError(f"{name}: {out.size} {out.dtype} are not {info}")
        read_exactly(self._fd, self._data_begin + info.begin, bytes_of(out))

    def write_out(self, name: str, start: int, stop: int) -> None:
        """Begin to write these elements to the disk; `close` waits for it."""
        info = self._infos[name]
        item = numpy_dtype(info.dtype).itemsize
        begin = self._data_begin + info.begin + start * item
        pagecache.write_out(self._fd, begin, (stop - start) * item)

    def digest(self) -> str:
        """The digest of the whole file. Raises ValueError if a tile was never written to."""
        digest = Digest()
        for name, tiles in self.tiles().items():
            info = self._infos[name]
            for index in range(len(tiles) // 32):
                sha256 = tiles[32 * index : 32 * index + 32]
                digest.update(name, info.dtype, info.shape, index, sha256)
        return digest.hexdigest()

    def tiles(self) -> dict[str, bytes]:
        """By tensor the sha256 of its tiles, 32 bytes each. Raises ValueError as `digest` does."""
        return {info.name: b"".join(self._tiles(info)) for info in self._infos.values()}

    def _tiles(self, info: TensorInfo) -> Iterator[bytes]:
        item = numpy_dtype(info.dtype).itemsize
        for index, start, stop in tensor_tiles(info):
            if start < stop and (info.name, index) not in self._hashes:
                raise ValueError(f"{info.name}: elements from {start} on were never written")
            sha256 = self._hashes.get((info.name, index))
            if sha256 is None:
                sha256 = self._read_back(info.begin + start * item, (stop - start) * item)
            yield sha256

    def _read_back(self, offset: int, length: int) -> bytes:
        tile = hashlib.sha256()
        buffer = memoryview(bytearray(min(length, PIECE_BYTES)))
        for at in range(0, length, PIECE_BYTES):
            piece = buffer[: min(PIECE_BYTES, length - at)]
            read_exactly(self._fd, self._data_begin + offset + at, piece)
            tile.update(piece)
        return tile.digest()

    def close(self) -> None:
        """Flush to the disk and close."""
        if self._fd >= 0:
            try:
                os.fsync(self._fd)
            except OSError:
                self._abandon()
                raise
            os.close(self._fd)
            self._fd = -1

    def _abandon(self) -> None:
        os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):
            self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._fd >= 0:
            self._abandon()


def write_fully(fd: int, offset: int, data: memoryview) -> None:
    """Write all of `data` at `offset`. Raises OSError."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def _preallocate(fd: int, size: int) -> None:
    """Take the space now, so that a full disk is known before the work; not every volume can.

    Linux's own call and not posix_fallocate, which glibc emulates by writing to every block.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is not None and size:
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if fallocate(fd, 0, 0, size) == 0:
            return
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(code, os.strerror(code))
    os.ftruncate(fd, size)
