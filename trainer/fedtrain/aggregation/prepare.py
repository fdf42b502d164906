"""The prepare role: the folders of a training, and the proof that the exchange can be written."""

import errno
import os
import stat
import uuid
from pathlib import Path

from fedtrain.aggregation.log import say
from fedtrain.contract import Message, PrepareTask
from fedtrain.errors import ExchangeError
from fedtrain.publication import make_folder

_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def prepare(task: PrepareTask, root: Path) -> Message:
    """Make `root` with global/0/ and updates/<participant>/, once or again, and write into each.

    Raises ExchangeError: ExchangeNotWritable names us, the folder, its owner and mode;
    ExchangeFull.
    """
    folders = [root, root / "global", root / "global" / "0", root / "updates"]
    folders += [root / "updates" / participant for participant in task.participants]
    for folder in folders:
        try:
            make_folder(folder)
            _probe(folder, durable=folder == root)
        except OSError as error:
            raise _explained(error, folder) from error
    say(f"{root} is ready for {len(task.participants)} participants")
    return Message(message=f"{root} can be written by {_us()}")


def _probe(folder: Path, *, durable: bool) -> None:
    """Write a file and remove it; `durable` also waits for the disk, which tells of a quota."""
    path = folder / f".tmp-probe-{uuid.uuid4().hex}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
    try:
        os.write(fd, b"fedtrain" * 512)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
        path.unlink()


def _explained(error: OSError, folder: Path) -> OSError | ExchangeError:
    if error.errno in _FULL:
        return ExchangeError("ExchangeFull", f"no space is left in {folder}: enlarge the exchange")
    if error.errno not in _DENIED:
        return error
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    status = nearest.stat()
    mode, owner = stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}"
    sentence = (
        f"{_us()} cannot write to {folder}: {nearest} belongs to {owner} with mode {mode}"
        f" ({os.strerror(error.errno or 0)}); let the volume honour fsGroup, or change its owner"
    )
    return ExchangeError("ExchangeNotWritable", sentence)


def _us() -> str:
    return f"uid:gid {os.geteuid()}:{os.getegid()}"
