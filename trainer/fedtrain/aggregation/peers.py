"""Who else works on the same aggregation: nobody, unless it is sharded (`shards`)."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

from fedtrain.aggregation.report import Report
from fedtrain.contract import MANIFEST_FILE, AggregateTask
from fedtrain.publication import Publication


class Place(Protocol):
    """A folder about to be published, like `fedtrain.publication`'s."""

    path: Path

    def commit(self, text: str, files: dict[str, str] | None = None) -> str:
        """Write the manifest and further files, flush, rename; the manifest that counts."""


class Over(Exception):
    """The aggregation has been published while we waited: a pod that was started twice."""


class Peers(Protocol):
    """All shards of an aggregation, as one of them sees it: they work apart and decide the same.

    A context manager around the whole work, so that the others learn that this one is gone.

    index: which one this process is; 0 publishes. count: of all of them.
    """

    index: int
    count: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def share(self, number: int, report: Report) -> list[Report]:
        """What all shards found in pass `number`, in order of index, ours included. Raises Over."""

    def publication(self) -> AbstractContextManager[Place]:
        """Where all shards put their files. Raises Over."""


class Alone:
    """One process for everything."""

    index = 0
    count = 1

    def __init__(self, task: AggregateTask, root: Path) -> None:
        self._folder = root / task.output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def share(self, number: int, report: Report) -> list[Report]:
        return [report]

    def publication(self) -> AbstractContextManager[Place]:
        return Publication(self._folder, MANIFEST_FILE, f"{self._folder.name}-")
