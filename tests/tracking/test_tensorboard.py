"""Rounds as event files, read back by TensorBoard's own accumulator."""

import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedoperator.tracking import figures, tensorboard
from fedoperator.tracking.sending import TrackerRefuses, TrackerUnavailable
from fedoperator.tracking.tensorboard import FILE, TensorBoard

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUN = figures.Run(
    uid="0123456789ab",
    name="digits",
    namespace="hospitals",
    experiment="digits",
    state="Running",
    started_at=NOON,
    finished_at=None,
    params={},
    tags={},
)


def a_step(number: int) -> figures.Step:
    return figures.Step(
        number=number, at=NOON, values={"global/a": 0.5 * number, figures.STEP: 3.0}, tags={}
    )


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of its own dependencies
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found: Any = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
        found.Reload()
    tags = found.Tags()
    return {
        name: [(event.step, _value(event)) for event in found.Tensors(name)]
        for name in tags["tensors"]
    } | {name: [(e.step, e.value) for e in found.Scalars(name)] for name in tags["scalars"]}


def _value(event: Any) -> float:
    return float(event.tensor_proto.float_val[0])


def test_the_next_writer_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    for number in range(3):
        board = TensorBoard(tmp_path, below=True)
        assert board.begin(RUN) == number
        board.send(RUN, a_step(number))
        board.abandon(RUN)
    folder = tmp_path / "hospitals" / "digits-01234567"
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert read(folder)["global/a"] == [(0, 0.0), (1, 0.5), (2, 1.0)]


@pytest.mark.parametrize("left", [1, 8, 11, 12, 20, 60])
def test_what_a_killed_writer_has_left_of_a_step_is_written_again(
    tmp_path: Path, left: int
) -> None:
    board = TensorBoard(tmp_path, below=False)
    board.begin(RUN)
    file = tmp_path / "digits-01234567" / FILE
    sizes = []
    for number in range(2):
        board.send(RUN, a_step(number))
        sizes.append(file.stat().st_size)
    board.abandon(RUN)
    with file.open("r+b") as torn:
        torn.truncate(sizes[0] + left)
    board = TensorBoard(tmp_path, below=False)
    assert board.begin(RUN) == 1
    for number in (1, 2):
        board.send(RUN, a_step(number))
    board.abandon(RUN)
    assert read(file.parent)["global/a"] == [(0, 0.0), (1, 0.5), (2, 1.0)]


def test_a_file_that_something_else_has_damaged_is_refused_with_the_remedy(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, below=False)
    board.begin(RUN)
    board.send(RUN, a_step(0))
    board.abandon(RUN)
    file = tmp_path / "digits-01234567" / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-30] + bytes(26) + whole[-4:])
    with pytest.raises(TrackerRefuses, match="is damaged; move it away"):
        TensorBoard(tmp_path, below=False).begin(RUN)
    file.rename(tmp_path / "away")
    assert board.begin(RUN) == 0
    board.abandon(RUN)


def test_one_that_was_killed_before_its_first_step_begins_anew(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, below=False)
    board.begin(RUN)
    board.abandon(RUN)
    file = tmp_path / "digits-01234567" / FILE
    for size in (file.stat().st_size, 5, 0):
        with file.open("r+b") as torn:
            torn.truncate(size)
        board = TensorBoard(tmp_path, below=False)
        assert board.begin(RUN) == 0
        board.abandon(RUN)


def test_two_do_not_write_the_same_file(tmp_path: Path) -> None:
    first, second = TensorBoard(tmp_path, below=False), TensorBoard(tmp_path, below=False)
    first.begin(RUN)
    with pytest.raises(TrackerUnavailable, match="is written by another tracker"):
        second.begin(RUN)
    first.abandon(RUN)
    assert second.begin(RUN) == 0
    second.abandon(RUN)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackerUnavailable, match="cannot be written: Not a directory"):
        TensorBoard(tmp_path / "file", below=True).begin(RUN)


def test_of_many_trainings_only_some_files_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "OPEN", 3)
    writer = TensorBoard(tmp_path, below=False)
    runs = [replace(RUN, uid=f"{n:08d}", name=f"t{n}") for n in range(9)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(2):
        for run in runs:
            assert writer.begin(run) == number
            writer.send(run, a_step(number))
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 3
    for run in runs:
        writer.abandon(run)
        assert read(tmp_path / f"{run.name}-{run.uid}")["global/a"] == [(0, 0.0), (1, 0.5)]
