"""What is removed after a publication: old updates, old global models, leftovers of dead pods.

Pruning never fails an aggregation: what cannot be removed is said and left to the next one.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedtrain.aggregation.log import say
from fedtrain.contract import AggregateTask
from fedtrain.publication import TEMPORARY_PREFIX

_LABELLED = re.compile(re.escape(TEMPORARY_PREFIX) + r"(\d+)-")


def after(task: AggregateTask, root: Path) -> None:
    """Remove what the task's `keep_updates` and `keep_globals` leave no reason to keep.

    The model just published and the one it is based upon stay in any case. Evaluations of a
    round run beside the next one, so their folders stay for one round longer than updates.
    """
    base = root / task.model.path
    for number, folder in _rounds(root / "global"):
        for entry in _entries(folder):
            old = number <= task.round - task.keep_globals
            leftover = entry.name.startswith(TEMPORARY_PREFIX) and number < task.round
            if (old or leftover) and entry != base and number < task.round:
                _remove(entry)
        if number < task.round and not _entries(folder):
            _remove(folder)
    for participant in _entries(root / "updates"):
        for number, folder in _rounds(participant):
            if number < task.round - task.keep_updates:
                _remove(folder)
            elif number == task.round - task.keep_updates:
                _remove_all(e for e in _entries(folder) if not e.name.startswith("evaluation-"))


def leftovers_before(folder: Path) -> None:
    """Remove what aggregations of lower numbers of the same round left unfinished.

    If one of them still runs somewhere, its rename fails, and nobody waits for it any more.
    """
    for entry in _entries(folder.parent):
        label = _LABELLED.match(entry.name)
        if label is not None and int(label[1]) < int(folder.name):
            _remove(entry)


def _rounds(folder: Path) -> Iterator[tuple[int, Path]]:
    for entry in _entries(folder):
        if entry.name.isdecimal():
            yield int(entry.name), entry


def _entries(folder: Path) -> list[Path]:
    """Sorted; none of a folder that is missing, unreadable or only a link to one."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return []


def _remove_all(entries: Iterator[Path]) -> None:
    for entry in entries:
        _remove(entry)


def _remove(entry: Path) -> None:
    """Remove a folder without following links, whoever planted them (shutil.rmtree's promise)."""
    try:
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        else:
            shutil.rmtree(entry)
    except FileNotFoundError:
        return
    except OSError as error:
        say(f"could not remove {entry}: {error}")
