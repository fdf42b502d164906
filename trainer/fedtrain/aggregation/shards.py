"""Several processes for one aggregation: each reads, folds and writes tensors of its own.

They meet in `global/<r>/.tmp-<n>-shards/`, since the exchange is all that they share. Each leaves
a mark that it has started and touches it while it works; after every pass it leaves a report, and
waits for those of the others; from the same reports all decide the same. A report is never
replaced, so a pod that starts twice finds what its first instance said and must agree with it.
Names hold a fingerprint of the task: what lies there of another one is not even read.
"""

import contextlib
import errno
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from fedtrain.adapters import pairs
from fedtrain.aggregation.log import say
from fedtrain.aggregation.peers import Over, Place
from fedtrain.aggregation.report import Report
from fedtrain.aggregation.together import Together
from fedtrain.contract import MANIFEST_FILE, VERSION, AggregateTask, encode_task
from fedtrain.errors import ContractError, TryAgain
from fedtrain.publication import (
    TEMPORARY_PREFIX,
    make_folder,
    published,
    rename_without_replacing,
)
from fedtrain.schema import Schema, TensorSpec

PATIENCE = 600.0
"""Seconds without a sign of life from a peer: a node may have to be found, an image be pulled."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
_SAY_AFTER = 30.0
_LINGER = 15.0
"""Seconds from a peer's failure to ours, as in `fedtrain.launch`: its exit code is the one that
says why, and the first to fail ends the others."""

_GONE = frozenset({errno.ENOENT, errno.ESTALE})


def owned(schema: Schema, shards: int, index: int) -> tuple[TensorSpec, ...]:
    """Shard `index`'s tensors in the schema's order: whole ones, balanced by bytes.

    The largest tensor left goes to the shard with the fewest bytes (Graham 1969, "LPT": at most
    4/3 of the best balance), then tensors, then the lowest index: so with more shards than tensors
    the last ones own nothing. Both factors of an adapter's pair go together.
    """
    first = {pair.b.name: pair.a.name for pair in pairs(schema)}
    sizes: dict[str, int] = {}
    for info in schema.layout():
        name = first.get(info.name, info.name)
        sizes[name] = sizes.get(name, 0) + info.nbytes
    loads = [(0, 0, number) for number in range(shards)]
    mine: set[str] = set()
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        nbytes, count, number = min(loads)
        loads[number] = nbytes + sizes[name], count + 1, number
        if number == index:
            mine.add(name)
    return tuple(s for s in schema.tensors if first.get(s.name, s.name) in mine)


class Shards:
    """All shards of the task, as shard `index` sees them: a context manager around its work.

    patience: seconds that a peer may be silent. Raises ContractError (BadTask) for an index that
    the task does not have.
    """

    def __init__(
        self, task: AggregateTask, root: Path, index: int, *, patience: float = PATIENCE
    ) -> None:
        if not 0 <= index < task.shards:
            sentence = f"there is no shard {index} of {task.shards}; they count from 0"
            raise ContractError("BadTask", sentence)
        self.index, self.count = index, task.shards
        self._output = root / task.output
        self._folder = self._output.parent / f"{TEMPORARY_PREFIX}{self._output.name}-shards"
        self._task = hashlib.sha256(f"{VERSION} {encode_task(task)}".encode()).hexdigest()[:16]
        self._patience = patience
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None
        self._since: float | None = None
        self._signs: dict[int, tuple[int, float]] = {}

    def __enter__(self) -> Self:
        if published(self._output, MANIFEST_FILE) is None:
            make_folder(self._folder)
            self._mark(self.index).touch()
        return self

    def __exit__(self, *_: object) -> None:
        """Gone without a report that others wait for, we have failed, and they know at once."""
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        self._mark(self.index).unlink(missing_ok=True)

    def share(self, number: int, report: Report) -> list[Report]:
        """What all shards found in pass `number`, in order of index; ours as it was first said.

        Raises TryAgain (ShardMissing, ShardFailed, ShardDiffers), and Over if it is all over.
        """
        if self._since is None:
            # Not sooner: until its first report a process forks, and has one thread for that.
            self._since = time.monotonic()
            self._beating = threading.Thread(target=self._beat, name="beat", daemon=True)
            self._beating.start()
        with self._over_if_published():
            first = self._leave(number, report)
            if first.claims != report.claims or (first.complete and first.hashes != report.hashes):
                sentence = (
                    f"pass {number}: shard {self.index} found something else when it ran before"
                )
                raise TryAgain("ShardDiffers", sentence)
            return self._gather(number, first)

    @contextlib.contextmanager
    def publication(self) -> Iterator[Place]:
        """The first shard may publish our part of an earlier run while we write it anew: Over."""
        with self._over_if_published(), Together(self._output, self._folder / "files") as place:
            yield place

    def _leave(self, number: int, report: Report) -> Report:
        """Our report of this pass, unless there is one: the one that counts."""
        path = self._report(number, self.index)
        if (first := _read(path)) is not None:
            return first
        whole = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        text = report.to_json()
        with open(whole, "x", encoding="utf-8") as file:
            file.write(f"{_checksum(text)}\n{text}")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(whole, path)
        except FileExistsError:
            if (first := _read(path)) is not None:
                whole.unlink()
                return first
            os.replace(whole, path)  # what is there is damaged, and nobody has believed it
        except OSError:
            rename_without_replacing(whole, path)  # a file system without hard links
        whole.unlink(missing_ok=True)
        return Report.from_json(text)

    def _gather(self, number: int, own: Report) -> list[Report]:
        reports = {self.index: own}
        began = time.monotonic()
        pause, said = _FIRST_PAUSE, began
        while True:
            self._collect(number, reports)
            missing = [index for index in range(self.count) if index not in reports]
            if not missing:
                return [reports[index] for index in range(self.count)]
            if self._is_published():
                raise Over
            now = time.monotonic()
            for index in missing:
                self._look_after(index, number, reports, now)
            if now - said > _SAY_AFTER:
                said = now
                names = ", ".join(str(index) for index in missing[:8])
                say(f"pass {number}: {now - began:.0f} s of waiting for shards {names}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _collect(self, number: int, reports: dict[int, Report]) -> None:
        """Add what has come. Listed, since an NFS client remembers for long what was not there."""
        names = set(os.listdir(self._folder))
        for index in range(self.count):
            path = self._report(number, index)
            if index not in reports and path.name in names:
                report = _read(path)
                if report is not None:
                    reports[index] = report

    def _look_after(self, index: int, number: int, reports: dict[int, Report], now: float) -> None:
        """Raises TryAgain if the peer has failed, never began, or has been silent for too long."""
        assert self._since is not None
        try:
            touched = self._mark(index).stat().st_mtime_ns
        except FileNotFoundError:
            if index not in self._signs:
                if now - self._since > self._patience:
                    raise self._missing(index, "has not started within") from None
                return
            self._collect(number, reports)  # its last report may be younger than our list
            if index not in reports:
                sentence = (
                    f"shard {index} of {self.count} ended without its report of pass {number}"
                )
                time.sleep(min(_LINGER, self._patience))
                raise TryAgain("ShardFailed", sentence) from None
            return
        known = self._signs.get(index)
        if known is None or known[0] != touched:
            self._signs[index] = touched, now
        elif now - known[1] > self._patience:
            raise self._missing(index, "gave no sign of life for")

    def _missing(self, index: int, what: str) -> TryAgain:
        sentence = f"shard {index} of {self.count} {what} {self._patience:.0f} s"
        return TryAgain("ShardMissing", sentence)

    @contextlib.contextmanager
    def _over_if_published(self) -> Iterator[None]:
        """The place of meeting is removed once the first shard has published."""
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            if self._is_published():
                raise Over from None
            if self._folder.exists():
                raise  # something else is gone
            sentence = f"{self._folder.name} was removed: a later aggregation has begun"
            raise TryAgain("ShardsDispersed", sentence) from None

    def _is_published(self) -> bool:
        """Listed for the same reason; a published folder appears whole, manifest and all."""
        return self._output.name in os.listdir(self._output.parent)

    def _beat(self) -> None:
        while not self._ended.wait(min(15.0, self._patience / 8)):
            try:
                os.utime(self._mark(self.index))
            except FileNotFoundError:
                return  # it is over, or about to be
            except OSError as error:
                say(f"could not touch the mark of this shard: {error}")

    def _report(self, number: int, index: int) -> Path:
        return self._folder / f"report-{number}-{index}-{self._task}.json"

    def _mark(self, index: int) -> Path:
        return self._folder / f"started-{index}-{self._task}"


def _read(path: Path) -> Report | None:
    """None for what is not there or not whole."""
    try:
        checksum, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return Report.from_json(text) if checksum == _checksum(text) else None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
