"""Remove what somebody else made: of any depth and number, with links in it and folders locked.

Everything is reached by descriptors and no link is followed, also one planted meanwhile (the
promise of shutil.rmtree). But rmtree needs stack and a descriptor for each level of depth; here a
folder found two levels down is first moved up beside its parent, so that any depth takes three.
"""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedtrain.publication import TEMPORARY_PREFIX

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLDS_SOMETHING = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@contextlib.contextmanager
def opened(name: str | Path, parent: int | None = None) -> Iterator[int]:
    """A descriptor of a folder. Raises NotADirectoryError for anything else, also for a link."""
    fd = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def names(folder: int, until: float) -> Iterator[str]:
    """What the folder holds, one at a time. Raises TimeoutError at `until` (monotonic seconds)."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if time.monotonic() > until:
                raise TimeoutError("it takes too long, the rest is left to the next aggregation")
            yield entry.name


def remove(name: str, parent: int, until: float) -> None:
    """Remove anything from the folder `parent`; whatever can be removed is, before it raises.

    Raises OSError, of which TimeoutError is one. What is gone already is no error.
    """
    if not removed(name, parent):
        with opened(name, parent) as top:
            _Emptying(top, until).run()
        removed(name, parent)


def removed(name: str, parent: int) -> bool:
    """Remove a file, a link or an empty folder; False for a folder that holds something."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):  # POSIX has EPERM for a folder, Linux EISDIR
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in _HOLDS_SOMETHING:
                return False
            raise
    return True


@dataclass(slots=True)
class _Emptying:
    """Of the folder open as `top`: passes over it until one changes nothing."""

    top: int
    until: float
    changed: bool = True
    failed: OSError | None = None

    def run(self) -> None:
        while self.changed:
            self.changed, self.failed = False, None
            self._pass(self.top)
        if self.failed is not None:
            raise self.failed

    def _pass(self, folder: int) -> None:
        for name in names(folder, self.until):
            try:
                if removed(name, folder):
                    self.changed = True
                elif folder == self.top:
                    with opened(name, folder) as inner:
                        self._pass(inner)
                else:
                    beside = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
                    os.rename(name, beside, src_dir_fd=folder, dst_dir_fd=self.top)
                    self.changed = True
            except OSError as error:
                self.failed = error
