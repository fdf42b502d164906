"""What can stand in a file system where a file is expected, and folders that are none."""

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from fedtrain.contract import UPDATE_FILE
from tests.aggregation.hostile.forgery import Case, Forgery, cases

Place = Callable[[Path, Forgery], object]


def a_socket(path: Path, _: Forgery) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")  # a short name: sockets take 107 bytes
    os.close(folder)


def a_hard_link(path: Path, forgery: Forgery) -> None:
    """To a file of its own: mounts keep participants from linking each other's."""
    beside = forgery.folder / "beside"
    shutil.copy(forgery.others[0] / path.name, beside)
    os.link(beside, path)


def a_chain_of_links(path: Path, forgery: Forgery) -> None:
    for k in range(50):
        (forgery.folder / f"link-{k}").symlink_to(f"link-{k + 1}")
    path.symlink_to("link-0")


PLACES: dict[str, Place] = {
    "a link to nowhere": lambda path, _: path.symlink_to("nowhere"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link out of the exchange": lambda path, _: path.symlink_to("/etc/passwd"),
    "a link to /proc/self/mem": lambda path, _: path.symlink_to("/proc/self/mem"),
    "a link to another's": lambda path, f: path.symlink_to(f.others[0] / path.name),
    "a chain of links": a_chain_of_links,
    "a hard link": a_hard_link,
    "a FIFO": lambda path, _: os.mkfifo(path),
    "a socket": a_socket,
    "a folder": lambda path, _: path.mkdir(),
}


def a_device(number: tuple[int, int]) -> Callable[[Forgery], None]:
    def spoil(forgery: Forgery) -> None:
        forgery.replace(
            UPDATE_FILE, lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*number))
        )

    return spoil


def linked_away(levels: int) -> Callable[[Forgery], None]:
    """A folder above the files is a link to where they are."""

    def spoil(forgery: Forgery) -> None:
        folder = (forgery.folder, *forgery.folder.parents)[levels]
        elsewhere = forgery.root / f"elsewhere-{forgery.folder.parents[1].name}"
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)

    return spoil


def instead_of_the_folder(make: Callable[[Path], object]) -> Callable[[Forgery], None]:
    def spoil(forgery: Forgery) -> None:
        shutil.rmtree(forgery.folder)
        make(forgery.folder)

    return spoil


FOLDERS: tuple[Case, ...] = cases(
    [
        ("attempt is a link", linked_away(0), "ReceiptMissing"),
        ("round is a link", linked_away(1), "ReceiptMissing"),
        ("own folder is a link", linked_away(2), "ReceiptMissing"),
        (
            "attempt is a link to another's",
            lambda f: (shutil.rmtree(f.folder), f.folder.symlink_to(f.others[0])),
            "ReceiptMissing",
        ),
        ("attempt is not there", instead_of_the_folder(lambda _: None), "ReceiptMissing"),
        ("attempt is a file", instead_of_the_folder(Path.touch), "ReceiptMissing"),
        ("attempt is a FIFO", instead_of_the_folder(os.mkfifo), "ReceiptMissing"),
        ("attempt is empty", instead_of_the_folder(Path.mkdir), "ReceiptMissing"),
        ("attempt is locked", lambda f: f.folder.chmod(0), "FileForbidden"),
        ("round is locked", lambda f: f.folder.parent.chmod(0), "FileForbidden"),
        ("receipt is locked", lambda f: f.receipt.chmod(0), "ReceiptInvalid|FileForbidden"),
        ("update is locked", lambda f: f.update.chmod(0), "FileForbidden"),
    ]
)

FILES_THAT_ARE_NONE: tuple[Case, ...] = cases(
    [
        ("update is missing", lambda f: f.update.unlink(), "FileMissing"),
        *(
            (
                f"update is {place}",
                lambda f, make=make: f.replace(UPDATE_FILE, lambda path: make(path, f)),
                "HardLinked" if "hard" in place else "NotARegularFile",
            )
            for place, make in PLACES.items()
        ),
    ]
)

DEVICES: tuple[Case, ...] = cases(
    [
        ("update is /dev/null", a_device((1, 3)), "NotARegularFile|FileForbidden"),
        ("update is /dev/zero", a_device((1, 5)), "NotARegularFile|FileForbidden"),
        ("update is a terminal", a_device((5, 0)), "NotARegularFile|FileForbidden"),
    ]
)
"""Made by root only, and only where the machine lets it."""
