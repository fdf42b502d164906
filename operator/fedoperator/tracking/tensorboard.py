"""TensorBoard: a training is a folder with one event file, a round is one event of it.

The file is written by TensorBoard's own record writer, without torch. An event is there as a whole
or not at all: what a killed writer has left of one is cut off before the next is appended.
"""

import contextlib
import fcntl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fedoperator.tracking.figures import Run, Step
from fedoperator.tracking.sending import TrackerRefuses, TrackerUnavailable

FILE = "events.out.tfevents.0000000000.fedtrain"
"""TensorBoard knows its files by the second word."""
VERSION = "brain.Event:2"
OPEN = 128
"""Files at a time: a training may be under way for months, and a process has 1,024 in all."""
_FRAME = 16
"""Bytes around a record: its length (8), the length's checksum (4), the record's checksum (4)."""


@dataclass(slots=True)
class _Open:
    """A file that nobody else writes."""

    file: BinaryIO
    steps: int


class TensorBoard:
    """logdir: what `tensorboard --logdir` is given. below: a folder for each namespace."""

    def __init__(self, logdir: Path, *, below: bool) -> None:
        try:
            import tensorboard.compat.proto.event_pb2
            import tensorboard.summary.writer.record_writer  # noqa: F401
        except ImportError as error:
            missing = "tensorboard is not installed; pip install 'fedtrain[tracking]'"
            raise TrackerRefuses(missing) from error
        self._logdir, self._below = logdir, below
        self._files: dict[str, _Open] = {}

    def begin(self, run: Run) -> int:
        with self._writing(run):
            opened = self._files.pop(run.uid, None) or self._opened(self._folder(run))
            self._files[run.uid] = opened  # the last one that was asked for is the last one closed
            while len(self._files) > OPEN:
                self._close(next(iter(self._files)))
            return opened.steps

    def send(self, run: Run, step: Step) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        values = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in step.values.items()]
        event = event_pb2.Event(
            wall_time=step.at.timestamp(),
            step=step.number,
            summary=summary_pb2.Summary(value=values),
        )
        with self._writing(run):
            _append(self._files[run.uid].file, event)
            self._files[run.uid].steps = step.number + 1

    def settle(self, run: Run) -> str:
        if run.state != "Running":
            self._close(run.uid)
        return str(self._folder(run))

    def abandon(self, run: Run) -> None:
        self._close(run.uid)

    def _folder(self, run: Run) -> Path:
        below = self._logdir / run.namespace if self._below else self._logdir
        return below / f"{run.name}-{run.uid[:8]}"

    def _opened(self, folder: Path) -> _Open:
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise TrackerUnavailable(f"{folder} is written by another tracker") from error
        end, last = _whole(file)
        file.truncate(end)
        if last is None:
            _append(file, event_pb2.Event(file_version=VERSION))
            return _Open(file, 0)
        try:
            event = event_pb2.Event.FromString(last)
        except DecodeError as error:
            file.close()
            remedy = "move it away, and all rounds that are still in the records are written anew"
            raise TrackerRefuses(f"{folder / FILE} is damaged; {remedy}") from error
        return _Open(file, 0 if event.file_version else event.step + 1)

    def _close(self, uid: str) -> None:
        opened = self._files.pop(uid, None)
        if opened is not None:
            opened.file.close()

    @contextlib.contextmanager
    def _writing(self, run: Run) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._close(run.uid)
            said = error.strerror or error
            raise TrackerUnavailable(f"{self._folder(run)} cannot be written: {said}") from error


def _append(file: BinaryIO, event: Any) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    writer = RecordWriter(file)
    writer.write(event.SerializeToString())
    writer.flush()


def _whole(file: BinaryIO) -> tuple[int, bytes | None]:
    """Where the last whole record ends, and what it holds."""
    file.seek(0, 2)
    size, end, last = file.tell(), 0, None
    while end + _FRAME <= size:
        file.seek(end)
        (length,) = struct.unpack("<Q", file.read(8))
        if not length or end + _FRAME + length > size:
            break
        last = (end + 12, length)
        end += _FRAME + length
    if last is None:
        return end, None
    file.seek(last[0])
    return end, file.read(last[1])
