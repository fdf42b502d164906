"""Files that change while the aggregator reads them, at a read that a test chooses."""

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedtrain.contract import UPDATE_FILE
from tests.aggregation.hostile.forgery import Forgery


@contextmanager
def at_read(number: int, forgery: Forgery, change: Callable[[Forgery], object]) -> Iterator[Any]:
    """Just before read `number` of the forgery's update, by us or a child of ours, it changes.

    Gives a function that says how many reads there were.
    """
    counter, preadv, parent = mmap.mmap(-1, 8), os.preadv, forgery.folder.parents[1].name

    def counted(fd: int, *rest: Any) -> int:
        place = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if UPDATE_FILE in place.name and parent in place.parts:
            count = struct.unpack("q", counter[:])[0] + 1
            counter[:] = struct.pack("q", count)
            if count == number:
                change(forgery)
        return preadv(fd, *rest)

    os.preadv = counted
    try:
        yield lambda: struct.unpack("q", counter[:])[0]
    finally:
        os.preadv = preadv


def bits_flip(forgery: Forgery) -> None:
    """Every byte of the data becomes another: of a header that was read, nothing changes."""
    whole = forgery.update.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    mask = (1 << 8 * (len(whole) - begin)) - 1
    flipped = int.from_bytes(whole[begin:], "little") ^ (mask // 255)
    with open(forgery.update, "r+b") as file:
        file.seek(begin)
        file.write(flipped.to_bytes(len(whole) - begin, "little"))


def nan_everywhere(forgery: Forgery) -> None:
    begin = forgery.update.stat().st_size - len(forgery.data)
    with open(forgery.update, "r+b") as file:
        file.seek(begin)
        file.write(b"\xff" * (forgery.update.stat().st_size - begin))


def cut(share: float) -> Callable[[Forgery], None]:
    return lambda f: os.truncate(f.update, int(f.update.stat().st_size * share))


def grows(forgery: Forgery) -> None:
    os.truncate(forgery.update, forgery.update.stat().st_size + 100_000)


def replaced_by_another(forgery: Forgery) -> None:
    """Another's update, by a rename, and the receipt signed again."""
    other = forgery.folder / "other"
    other.write_bytes((forgery.others[0] / UPDATE_FILE).read_bytes())
    other.rename(forgery.update)
    forgery.sign()


def becomes_a_link(forgery: Forgery) -> None:
    forgery.update.rename(forgery.folder / "moved")
    forgery.update.symlink_to("moved")


def goes_away(forgery: Forgery) -> None:
    forgery.folder.rename(forgery.folder.with_name("elsewhere"))


CHANGES: dict[str, Callable[[Forgery], None]] = {
    "its bits flip": bits_flip,
    "its values become NaN": nan_everywhere,
    "it loses its last byte": lambda f: os.truncate(f.update, f.update.stat().st_size - 1),
    "it is cut in half": cut(0.5),
    "it becomes empty": cut(0.0),
    "it grows": grows,
    "it is replaced by another's": replaced_by_another,
    "it is removed": lambda f: f.update.unlink(),
    "it becomes a link": becomes_a_link,
    "it becomes locked": lambda f: f.update.chmod(0),
    "its folder goes away": goes_away,
}
