"""Publication at most once: a folder appears whole, with its receipt in it, or not at all.

Everything is written into a sibling `.tmp-<unique>`, the receipt last, each file and the folder
are flushed, and one rename without replacing puts the folder in its place. A receipt written after
the rename would leave a state in between (a folder that nobody may use and nobody may replace)
whenever a pod dies there; renamed together, the presence of the receipt and of the folder are one
fact, also on NFS, where a rename is one operation of the server. NFS knows no RENAME_NOREPLACE
(EINVAL); there a plain rename does: POSIX refuses to replace a folder that is not empty, and a
published folder never is. An NFS client that repeats a lost reply may report an error after a
rename that happened; so after any error, what lies in the folder is what counts.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from fedtrain.contract import RECEIPT_FILE
from fedtrain.errors import ExchangeError

TEMPORARY_PREFIX = ".tmp-"
EVALUATION_LABEL = "evaluation-"
"""Evaluations publish beside the next round's updates, whose pruning must know theirs."""

PERSONALIZATION_LABEL = "personalization-"

RECEIPT_LIMIT = 64 * 1024 * 1024
_AT_FDCWD = -100  # <fcntl.h>
_RENAME_NOREPLACE = 1  # <linux/fs.h>
_NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY})
_OCCUPIED = frozenset({errno.EEXIST, errno.ENOTEMPTY})


def published(folder: Path, receipt: str = RECEIPT_FILE) -> str | None:
    """The text of the folder's receipt, or None: then nothing has been published there."""
    try:
        with open(folder / receipt, encoding="utf-8") as file:
            return file.read(RECEIPT_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None


def readable(folder: Path, receipt: str = RECEIPT_FILE) -> str | None:
    """`published`, but raises ExchangeError (ExchangeUnreadable) where the exchange fails.

    For only a receipt that is not there says that nothing was published.
    """
    try:
        return published(folder, receipt)
    except OSError as error:
        why = error.strerror or error
        sentence = f"{folder / receipt} cannot be read: {why}"
        raise ExchangeError("ExchangeUnreadable", sentence) from error


def publish(folder: Path, write: Callable[[Path], str], receipt: str = RECEIPT_FILE) -> str:
    """Publish `folder` unless it is published already; the text of the receipt that counts.

    write: puts files into the temporary folder it is given and returns the receipt's text; not
    called if the folder is published. Raises OSError; nothing is left behind then.
    """
    first = published(folder, receipt)
    if first is not None:
        return first
    with Publication(folder, receipt) as publication:
        return publication.commit(write(publication.path))


class Publication:
    """A folder about to be published: write into `path`, then `commit`; without it, all is undone.

    label: begins the temporary folder's name, so that leftovers tell whose they were.
    """

    def __init__(self, folder: Path, receipt: str = RECEIPT_FILE, label: str = "") -> None:
        self._folder = folder
        self._receipt = receipt
        self.path = folder.parent / f"{TEMPORARY_PREFIX}{label}{uuid.uuid4().hex}"

    def __enter__(self) -> Self:
        make_folder(self.path.parent)
        make_folder(self.path)
        return self

    def commit(self, text: str, files: Mapping[str, str] | None = None) -> str:
        """Write `files` and the receipt, flush, rename; the receipt that counts, ours or the first.

        Raises FileExistsError if something that was never published lies in the folder's place.
        """
        for name, content in (files or {}).items():
            _write_durably(self.path / name, content)
        _write_durably(self.path / self._receipt, text)
        sync_folder(self.path)
        try:
            rename_without_replacing(self.path, self._folder)
        except OSError as error:
            first = published(self._folder, self._receipt)
            if first is not None:
                return first
            if error.errno in _OCCUPIED:
                sentence = f"{self._folder} exists without a {self._receipt}: remove it"
                raise FileExistsError(errno.EEXIST, sentence) from error
            raise
        sync_folder(self._folder.parent)
        return text

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder (and its parents) that other pods of the same group can write to."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        with contextlib.suppress(PermissionError):
            folder.chmod(0o2770)  # not by mkdir's mode, which the umask would narrow


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def sync(file: IO[Any]) -> None:
    """Have a file's bytes on the disk."""
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the file system can."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(fd)


def rename_without_replacing(source: Path, target: Path) -> None:
    """Rename a folder or file. Raises OSError (EEXIST, ENOTEMPTY) if the target holds anything."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        paths = os.fsencode(source), os.fsencode(target)
        if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _NOT_SUPPORTED:
            raise OSError(code, os.strerror(code), str(target))
    os.rename(source, target)


def _write_durably(path: Path, text: str) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        sync(file)
