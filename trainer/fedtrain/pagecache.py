"""What we ask of the page cache: to have what comes next, and to forget what is over.

Neighbours on the same node need the memory more than files that nobody reads again. All of it is
advice: a file system that does not take it loses speed, nothing else.
"""

import contextlib
import ctypes
import os

_SYNC_FILE_RANGE_WRITE = 2  # <linux/fs.h>


def fetch(fd: int, offset: int, length: int) -> None:
    """Begin to read these bytes, so that they are there when they are asked for."""
    if length > 0:
        _advise(fd, offset, length, os.POSIX_FADV_WILLNEED)


def forget(fd: int, offset: int, length: int) -> None:
    """Drop these bytes unless they are still to be written."""
    _advise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def write_out(fd: int, offset: int, length: int) -> None:
    """Begin to write these bytes to the disk, so that the last fsync has little left to do."""
    call = getattr(_LIBC, "sync_file_range", None)
    if call is not None:
        call(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def _advise(fd: int, offset: int, length: int, advice: int) -> None:
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, offset, length, advice)


_LIBC = ctypes.CDLL(None, use_errno=True)
