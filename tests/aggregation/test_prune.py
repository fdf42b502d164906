"""What is removed after a publication, and what stays."""

import contextlib
import dataclasses
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtrain.aggregation import prune, removal
from fedtrain.contract import AggregateTask, ModelRef

TASK = AggregateTask(
    training="digits",
    uid="u",
    round=5,
    attempt=1,
    model=ModelRef(path="global/4/1", digest="sha256:0"),
    output="global/5/1",
    candidates=(),
    minimum=1,
    keep_globals=3,
    keep_updates=1,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for round_number in range(1, 6):
        make(tmp_path / f"global/{round_number}/1/model.safetensors")
        for participant in ("north", "south"):
            folder = tmp_path / f"updates/{participant}/{round_number}"
            make(folder / "1/update.safetensors")
            make(folder / "2/update.safetensors")
            make(folder / "evaluation-1/receipt.json")
            make(folder / ".tmp-dead/half")
    make(tmp_path / "global/4/.tmp-2-dead/half")
    make(tmp_path / "global/5/.tmp-2-alive/half")
    return tmp_path


def make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


def rounds(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_last_rounds_stay(root: Path) -> None:
    prune.after(TASK, root)
    assert rounds(root / "global") == ["3", "4", "5"]
    for participant in ("north", "south"):
        assert rounds(root / "updates" / participant) == ["4", "5"]
        assert rounds(root / "updates" / participant / "5") == [
            ".tmp-dead",
            "1",
            "2",
            "evaluation-1",
        ]


def test_evaluations_stay_for_one_round_longer_than_updates(root: Path) -> None:
    prune.after(TASK, root)
    assert rounds(root / "updates/north/4") == ["evaluation-1"]


def test_leftovers_of_earlier_rounds_are_removed_and_those_of_this_one_stay(root: Path) -> None:
    prune.after(TASK, root)
    assert rounds(root / "global/4") == ["1"]
    assert rounds(root / "global/5") == [".tmp-2-alive", "1"]


@pytest.mark.parametrize("keep", [0, 1])
def test_the_model_just_published_and_its_base_stay_however_few_are_kept(
    root: Path, keep: int
) -> None:
    prune.after(dataclasses.replace(TASK, keep_globals=keep), root)
    assert rounds(root / "global") == ["4", "5"]
    assert (root / "global/4/1/model.safetensors").exists()
    assert (root / "global/5/1/model.safetensors").exists()


def test_a_base_of_an_older_round_stays_too(root: Path) -> None:
    task = dataclasses.replace(
        TASK, keep_globals=1, model=ModelRef(path="global/2/1", digest="sha256:0")
    )
    prune.after(task, root)
    assert rounds(root / "global") == ["2", "5"]


def test_models_that_are_kept_for_being_good_stay_until_they_are_not(root: Path) -> None:
    make(root / "global/1/2/model.safetensors")
    prune.after(dataclasses.replace(TASK, keep=("global/1/2",)), root)
    assert rounds(root / "global") == ["1", "3", "4", "5"]
    assert rounds(root / "global/1") == ["2"]
    prune.after(TASK, root)
    assert rounds(root / "global") == ["3", "4", "5"]


@pytest.mark.parametrize(("keep", "left"), [(2, ["3", "4", "5"]), (9, ["1", "2", "3", "4", "5"])])
def test_as_many_rounds_of_updates_stay_as_asked_for(
    root: Path, keep: int, left: list[str]
) -> None:
    prune.after(dataclasses.replace(TASK, keep_updates=keep), root)
    assert rounds(root / "updates/north") == left


def test_a_link_that_a_participant_planted_is_removed_and_not_followed(root: Path) -> None:
    outside = root / "outside"
    make(outside / "1/precious")
    for name, place in (("whole", "updates/north/1"), ("inner", "updates/south/1/1")):
        (root / place).rename(root / f"gone-{name}")
        (root / place).symlink_to(outside)
    prune.after(TASK, root)
    assert (outside / "1/precious").exists()
    assert not (root / "updates/north/1").is_symlink()


def test_what_cannot_be_removed_is_said_once_for_each_participant_and_does_not_fail(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str, *, dir_fd: int) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(os, "rmdir", refuse)
    prune.after(TASK, root)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert sum(line.startswith("could not remove") for line in lines) == 3
    assert (root / "global/1/1").exists()


def deep(folder: Path, levels: int) -> None:
    """Folders in folders, deeper than a path, a stack or a table of descriptors is long."""
    folder.mkdir(parents=True)
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def test_a_folder_of_any_depth_is_removed_with_a_handful_of_descriptors(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep(root / "updates/north/1/1/deep", 5000)
    deep(root / "updates/south/4/1/deep", 5000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 10, hard))
    try:
        prune.after(TASK, root)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert rounds(root / "updates/north") == ["4", "5"]
    assert rounds(root / "updates/south/4") == ["evaluation-1"]
    assert capsys.readouterr().out == ""


def test_many_files_folders_links_and_pipes_are_removed(root: Path) -> None:
    folder = root / "updates/north/1/1"
    make(root / "outside/precious")
    for k in range(300):
        make(folder / f"folder-{k}/inner/file")
        make(folder / f"{k}")
        (folder / f"folder-{k}/inner/link").symlink_to(root / "outside")
    os.mkfifo(folder / "pipe")
    prune.after(TASK, root)
    assert rounds(root / "updates/north") == ["4", "5"]
    assert rounds(root / "outside") == ["precious"]


def test_a_round_that_is_a_file_or_a_link_holds_nothing_to_remove(root: Path) -> None:
    make(root / "outside/.tmp-precious")
    (root / "updates/north/4").rename(root / "gone")
    (root / "updates/north/4").symlink_to(root / "outside")
    (root / "updates/west").symlink_to(root / "outside")
    make(root / "updates/east/4")
    prune.after(TASK, root)
    assert rounds(root / "outside") == [".tmp-precious"]


@contextlib.contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """Root may remove anything; so be somebody else, who owns the folder."""
    if os.geteuid() != 0:
        yield
        return
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folders_without_permissions_stay_are_said_and_keep_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for place in ("a/1", "b/2", "c/3"):
            make(root / f"updates/north/1/1/{place}/file")
            make(root / f"updates/south/1/1/{place}/file")
        make(root / "updates/west/2/file")
        with nobody(root):
            for mode, place in ((0, "b/2"), (0o500, "b"), (0, "c")):
                (root / "updates/north/1/1" / place).chmod(mode)
            (root / "updates/west").chmod(0)
            prune.after(TASK, root)
        left = root / "updates/north/1/1"
        assert rounds(left) == ["b", "c"]
        assert rounds(root / "updates/south") == []
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in sorted(lines)] == [
            "could not remove 'updates/north/1'",
            "could not remove 'updates/west'",
        ]


def test_a_name_that_is_no_text_is_said_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str, parent: int, until: float) -> None:
        raise OSError(5, "Input/output error")

    name = os.fsdecode(b"\xff\nglobal is gone")
    make(root / "updates/north/4" / name)
    make(root / "updates" / name / "1/file")
    monkeypatch.setattr(removal, "remove", refuse)
    prune.after(TASK, root)
    assert "\\udcff\\nglobal is gone/1'" in capsys.readouterr().out


def test_more_than_there_is_time_for_is_left_to_the_next_aggregation(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(10**9))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(prune, "PATIENCE", 100.0)
    for k in range(200):
        make(root / f"updates/north/1/1/{k}")
    prune.after(TASK, root)
    left = len(rounds(root / "updates/north/1/1"))
    assert 0 < left < 200
    assert rounds(root / "updates/south") == ["4", "5"]
    assert "'updates/north" in capsys.readouterr().out
    for _ in range(10):
        prune.after(TASK, root)
    assert rounds(root / "updates/north") == ["4", "5"]


def test_what_killed_pods_left_in_rounds_that_are_kept_is_removed(root: Path) -> None:
    make(root / "updates/north/3/.tmp-evaluation-dead/half")
    make(root / "updates/north/4/.tmp-evaluation-alive/half")
    prune.after(dataclasses.replace(TASK, keep_updates=9), root)
    assert rounds(root / "updates/north/3") == ["1", "2", "evaluation-1"]
    assert rounds(root / "updates/north/4") == [".tmp-evaluation-alive", "1", "2", "evaluation-1"]
    assert ".tmp-dead" in rounds(root / "updates/north/5")
    prune.after(TASK, root)
    assert rounds(root / "updates/north/4") == [".tmp-evaluation-alive", "evaluation-1"]


def test_pruning_twice_is_pruning_once(root: Path) -> None:
    prune.after(TASK, root)
    before = sorted(str(path) for path in root.rglob("*"))
    prune.after(TASK, root)
    assert sorted(str(path) for path in root.rglob("*")) == before
