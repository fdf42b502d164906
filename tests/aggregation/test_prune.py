"""What is removed after a publication, and what stays."""

import dataclasses
import os
from pathlib import Path

import pytest

from fedtrain.aggregation import prune
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


def test_what_cannot_be_removed_is_said_and_does_not_fail(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    prune.after(TASK, root)
    assert "could not remove" in capsys.readouterr().out
    assert (root / "global/1/1").exists()


def test_pruning_twice_is_pruning_once(root: Path) -> None:
    prune.after(TASK, root)
    before = sorted(str(path) for path in root.rglob("*"))
    prune.after(TASK, root)
    assert sorted(str(path) for path in root.rglob("*")) == before
