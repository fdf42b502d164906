"""What is removed after a publication: old updates, old global models, leftovers of dead pods.

Pruning never fails an aggregation, whatever a participant left in its folder: what cannot be
removed is said, in one line for each participant, and left to the next one.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedtrain.aggregation import removal
from fedtrain.aggregation.log import say
from fedtrain.contract import AggregateTask
from fedtrain.publication import EVALUATION_LABEL, TEMPORARY_PREFIX

PATIENCE = 30.0
"""Seconds for one participant's folder: nobody's round waits while a million files are removed."""

_LABELLED = re.compile(re.escape(TEMPORARY_PREFIX) + r"(\d+)-")
_EVALUATING = TEMPORARY_PREFIX + EVALUATION_LABEL


def after(task: AggregateTask, root: Path) -> None:
    """Remove what the task's `keep_updates` and `keep_globals` leave no reason to keep.

    The model just published, the one it is based upon and those that `keep` names stay in any
    case. Evaluations of a
    round run beside the next one, so their folders stay for one round longer than updates.
    """
    with _pruning("global") as pruning, removal.opened(root / "global") as folder:
        _globals(task, root, folder, pruning)
    with _pruning("updates") as pruning, removal.opened(root / "updates") as updates:
        for participant in removal.names(updates, float("inf")):
            with (
                _pruning(f"updates/{participant}") as own,
                removal.opened(participant, updates) as folder,
            ):
                _updates(task, folder, own)


def leftovers_before(folder: Path, *, itself: bool = False) -> None:
    """Remove what aggregations of lower numbers of the same round left unfinished.

    If one of them still runs somewhere, its rename fails, and nobody waits for it any more. Once
    `folder` is published, the same is true of those of its own number (`itself`).
    """
    place = f"global/{folder.parent.name}"
    with _pruning(place) as pruning, removal.opened(folder.parent) as parent:
        for entry in removal.names(parent, pruning.until):
            label = _LABELLED.match(entry)
            if label is not None and int(label[1]) < int(folder.name) + itself:
                pruning.remove(entry, parent, entry)


@dataclass(slots=True)
class _Pruning:
    """Of one folder: until when (in monotonic seconds), and what could not be removed."""

    place: str
    until: float
    first: str = ""
    failures: int = 0

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Go on after a failure; what is not there, or no folder, holds nothing to remove."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.failures += 1
            if not self.first:
                # In ASCII: a participant's names need be no text, or a line of somebody else's.
                self.first = f"{f'{self.place}/{name}'.rstrip('/')!a}: {error.strerror or error}"

    def remove(self, entry: str, folder: int, name: str) -> None:
        """Remove `entry` of the open folder; `name` is what the log calls it."""
        with self.noting(name):
            removal.remove(entry, folder, self.until)

    def rounds(self, folder: int) -> Iterator[tuple[int, str]]:
        for name in removal.names(folder, self.until):
            if name.isdecimal():
                yield int(name), name


@contextlib.contextmanager
def _pruning(place: str) -> Iterator[_Pruning]:
    pruning = _Pruning(place, time.monotonic() + PATIENCE)
    with pruning.noting(""):
        yield pruning
    if pruning.failures:
        more = f" (and {pruning.failures - 1} more)" if pruning.failures > 1 else ""
        say(f"could not remove {pruning.first}{more}")


def _globals(task: AggregateTask, root: Path, folder: int, pruning: _Pruning) -> None:
    for number, name in pruning.rounds(folder):
        if number > task.round:
            continue
        if number == task.round:
            leftovers_before(root / task.output, itself=True)
            continue
        old = number <= task.round - task.keep_globals
        with pruning.noting(name), removal.opened(name, folder) as models:
            for entry in removal.names(models, pruning.until):
                base = f"global/{name}/{entry}" in (task.model.path, *task.keep)
                if (old and not base) or entry.startswith(TEMPORARY_PREFIX):
                    pruning.remove(entry, models, f"{name}/{entry}")
            removal.removed(name, folder)  # if it is empty now


def _updates(task: AggregateTask, folder: int, pruning: _Pruning) -> None:
    last = task.round - task.keep_updates
    for number, name in pruning.rounds(folder):
        if number < last:
            pruning.remove(name, folder, name)
        elif number == last or number < task.round:
            with pruning.noting(name), removal.opened(name, folder) as attempts:
                for entry in removal.names(attempts, pruning.until):
                    if entry.startswith(TEMPORARY_PREFIX):
                        # Of an evaluation that may be running, beside the next round.
                        stays = number >= task.round - 1 and entry.startswith(_EVALUATING)
                    else:
                        stays = number > last or entry.startswith("evaluation-")
                    if not stays:
                        pruning.remove(entry, attempts, f"{name}/{entry}")
