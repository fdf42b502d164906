"""The folders of a training, and the proof that they can be written."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtrain.aggregation import prepare
from fedtrain.contract import PrepareTask
from fedtrain.errors import ExchangeError

NOBODY = 65532
TASK = PrepareTask(
    training="digits", uid="1a2b3c4d", round=0, attempt=1, participants=("north", "south")
)


def test_the_folders_are_made_for_the_group_whatever_the_umask(tmp_path: Path) -> None:
    root = tmp_path / "digits-1a2b3c4d"
    before = os.umask(0o077)
    try:
        prepare.prepare(TASK, root)
    finally:
        os.umask(before)
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert found == ["global", "global/0", "updates", "updates/north", "updates/south"]
    for folder in [root, *root.rglob("*")]:
        assert folder.stat().st_mode & 0o7777 == 0o2770


def test_preparing_twice_is_preparing_once_and_keeps_what_is_there(tmp_path: Path) -> None:
    prepare.prepare(TASK, tmp_path)
    (tmp_path / "global/0/1").mkdir()
    prepare.prepare(TASK, tmp_path)
    assert (tmp_path / "global/0/1").is_dir()


def as_nobody(root: Path) -> str:
    """The reason and the sentence that a process of uid and gid 65532 ends with."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "nothing was raised"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            prepare.prepare(TASK, root)
        except ExchangeError as error:
            text = f"{error.exit} {error.reason} {error}"
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.fixture
def claim() -> Iterator[Path]:
    """A folder outside of pytest's own, which only its user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        yield Path(folder)
        os.chmod(folder, 0o755)


def test_a_claim_of_somebody_else_is_refused_naming_us_the_folder_its_owner_and_mode(
    claim: Path,
) -> None:
    said = as_nobody(claim / "digits-1a2b3c4d")
    us = f"{NOBODY}:{NOBODY}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"
    owner = f"{os.geteuid()}:{os.getegid()}"
    assert said.startswith("74 ExchangeNotWritable ")
    assert f"uid:gid {us} cannot write to {claim}/digits-1a2b3c4d" in said
    assert f"{claim} belongs to {owner} with mode dr-xr-xr-x" in said


def test_one_folder_of_somebody_else_is_enough_to_refuse(claim: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make folders that belong to others")
    os.chmod(claim, 0o777)
    root = claim / "digits-1a2b3c4d"
    prepare.prepare(TASK, root)
    for folder in [root, *root.rglob("*")]:
        os.chown(folder, NOBODY, NOBODY)
    os.chown(root / "updates/south", 0, 0)
    assert f"cannot write to {root}/updates/south" in as_nobody(root)
    os.chown(root / "updates/south", NOBODY, NOBODY)
    assert as_nobody(root) == "nothing was raised"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_claim_is_found_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExchangeError) as refused:
        prepare.prepare(TASK, tmp_path / "new")
    assert (refused.value.exit, refused.value.reason) == (74, "ExchangeFull")
    assert os.listdir(tmp_path / "new") == []
