"""Which tasks a process does, one after the other, and whom it tells what came of them."""

from collections.abc import Iterator
from pathlib import Path

from fedtrain import outcome, resident
from fedtrain.collective import Ranks
from fedtrain.contract import ParticipantTask, result_of


class Work:
    """The tasks of this process: the one it was started with, and, where it stays, those after it.

    Waiting is outside of collectives: each rank hears of a task by a line of its own, and only
    then do all agree on which comes next.
    """

    def __init__(self, root: Path, first: ParticipantTask, ranks: Ranks) -> None:
        self._first = first
        self._ranks = ranks
        self._line = resident.line_of_this_process(root, first, ranks.rank)
        self._waiting: list[ParticipantTask | None] = []

    def tasks(self) -> Iterator[ParticipantTask]:
        task: ParticipantTask | None = self._first
        while task is not None:
            if self._line is not None and self._ranks.rank == 0:
                self._line.ready(task)
            yield task
            task = self._next()

    def done(self, task: ParticipantTask, receipt: str) -> None:
        outcome.say_published()
        if self._line is not None and self._ranks.rank == 0:
            self._line.done(task, result_of(task.role, receipt))

    def _next(self) -> ParticipantTask | None:
        """Rank 0's next task, once this rank has heard of it, too."""
        if self._line is None:
            return None
        if not self._waiting:
            self._waiting.append(self._line.next())
        task: ParticipantTask | None = self._ranks.tell(self._waiting[0])
        while task not in self._waiting:
            self._waiting.append(self._line.next())
        self._waiting.remove(task)
        return task
