"""At most once: a folder appears whole or not at all, and the first one stays."""

import errno
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtrain import publication
from fedtrain.contract import RECEIPT_FILE
from fedtrain.publication import Publication, publish, published


def writer_of(text: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "update").write_text(text)
        return text

    return write


@pytest.fixture(params=["renameat2", "a rename that cannot be told not to replace, as on NFS"])
def _renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "renameat2":
        monkeypatch.setattr(publication, "_RENAME_NOREPLACE", 1 << 20)  # EINVAL, as NFS says it


@pytest.mark.usefixtures("_renaming")
def test_what_was_published_is_there_with_its_receipt_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "updates" / "north" / "1"
    assert published(folder) is None
    assert publish(folder, writer_of("first")) == "first"
    assert published(folder) == "first"
    assert sorted(os.listdir(folder)) == [RECEIPT_FILE, "update"]
    assert os.listdir(folder.parent) == ["1"]


@pytest.mark.usefixtures("_renaming")
def test_a_second_publication_leaves_the_first_untouched_and_returns_its_receipt(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "1"
    publish(folder, writer_of("first"))
    assert publish(folder, writer_of("second")) == "first"
    assert (folder / "update").read_text() == "first"


@pytest.mark.usefixtures("_renaming")
def test_one_that_comes_second_in_a_race_returns_the_receipt_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "1"

    def slow(temporary: Path) -> str:
        publish(folder, writer_of("fast"))
        return writer_of("slow")(temporary)

    assert publish(folder, slow) == "fast"
    assert (folder / "update").read_text() == "fast"
    assert os.listdir(tmp_path) == ["1"]


@pytest.mark.usefixtures("_renaming")
def test_a_folder_that_was_never_published_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "somebody's").write_text("work")
    with pytest.raises(FileExistsError, match=r"exists without a receipt\.json: remove it"):
        publish(folder, writer_of("mine"))
    assert os.listdir(folder) == ["somebody's"]
    assert os.listdir(tmp_path) == ["1"]


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(temporary: Path) -> str:
        (temporary / "half").write_text("half")
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        publish(tmp_path / "1", fail)
    assert os.listdir(tmp_path) == []


def test_the_receipt_is_written_after_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    write, sync, rename = (
        publication._write_durably,
        publication.sync_folder,
        publication.rename_without_replacing,
    )
    monkeypatch.setattr(
        publication, "_write_durably", lambda p, t: (order.append(p.name), write(p, t))
    )
    monkeypatch.setattr(publication, "sync_folder", lambda p: (order.append("sync"), sync(p)))
    monkeypatch.setattr(
        publication,
        "rename_without_replacing",
        lambda a, b: (order.append("rename"), rename(a, b)),
    )
    with Publication(tmp_path / "1") as new:
        new.commit("receipt", {"schema.json": "schema"})
    assert order == ["schema.json", RECEIPT_FILE, "sync", "rename", "sync"]


def test_a_rename_that_happened_although_it_reported_an_error_is_a_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost_reply(source: Path, target: Path) -> None:
        os.rename(source, target)
        raise FileNotFoundError(errno.ENOENT, "the server had done it already")

    monkeypatch.setattr(publication, "rename_without_replacing", lost_reply)
    assert publish(tmp_path / "1", writer_of("mine")) == "mine"
    assert published(tmp_path / "1") == "mine"


def _race(folder: Path, name: str, start: multiprocessing.Barrier) -> None:
    start.wait()
    text = publish(folder, writer_of(name))
    shutil.copyfile(folder / "update", folder.parent / f"seen-by-{name}")
    (folder.parent / f"told-{name}").write_text(text)


def test_of_many_processes_that_publish_at_once_all_report_the_same_winner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(6)
    names = [f"p{k}" for k in range(6)]
    racers = [context.Process(target=_race, args=(tmp_path / "1", name, start)) for name in names]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
    told = {(tmp_path / f"told-{name}").read_text() for name in names}
    seen = {(tmp_path / f"seen-by-{name}").read_text() for name in names}
    assert len(told) == 1
    assert told == seen
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]
