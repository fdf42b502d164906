"""Going on with a round that was interrupted: `rnd.resume`, `rnd.step` and what stands behind them.

    $FEDTRAIN_SCRATCH/<training>-<uid8>/<participant>/midround/<round>-<base digest>/<step>/

holds one snapshot (`fedtrain.snapshot`): model, optimizers, whatever else the script hands over,
the generators of every rank, and what `rnd.step` was told last. It is of a round and the global
model that it began with, whatever the attempt; a cache, which may be missing or spoilt at any time.

All ranks save after the same step, on which they agree by `fedtrain.looks`.
"""

import contextlib
import json
import operator
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedtrain import collective, memory, outcome, publication, seeds, snapshot
from fedtrain.collective import Ranks
from fedtrain.contents import Contents
from fedtrain.contract import Exit, ParticipantTask
from fedtrain.errors import ContractError
from fedtrain.heart import Heart
from fedtrain.log import say
from fedtrain.looks import Looks
from fedtrain.sigterm import Sigterm
from fedtrain.snapshot import Snapshot, SnapshotError

DEFAULT_EVERY = timedelta(minutes=10)


@dataclass(slots=True, kw_only=True)
class Midround:
    """Of one round, on one rank.

    folder: where snapshots go, None for nowhere. about: what a snapshot must be of to be used.
    begin_again: fills the model with the global one and resets the optimizer.
    """

    task: ParticipantTask | None
    model: Any
    ranks: Ranks
    folder: Path | None
    about: Mapping[str, Any]
    begin_again: Callable[[], None]
    heart: Heart
    ended: bool = False
    _steps: int = 0
    _progress: dict[str, Any] = field(default_factory=dict)
    _contents: Contents | None = None
    _every_steps: int = 0
    _every_seconds: float = 0.0
    _saved_at: float = 0.0
    _looks: Looks = field(init=False)
    _sigterm: Sigterm = field(default_factory=Sigterm)

    def __post_init__(self) -> None:
        self._looks = Looks(self.ranks)

    def resume(self, every: int | timedelta, parts: Mapping[str, Any]) -> dict[str, Any]:
        """See `Round.resume`."""
        if self._contents is not None:
            raise ContractError("ResumedTwice", "rnd.resume(...) was called twice in one round")
        if isinstance(every, timedelta):
            self._every_seconds = every.total_seconds()
        else:
            self._every_steps = operator.index(every)
        if self._every_seconds <= 0 and self._every_steps <= 0:
            sentence = f"rnd.resume(every={every!r}): use a timedelta, or 1 step or more"
            raise ContractError("BadEvery", sentence)
        self._contents = Contents(self.model, parts)
        if self.folder is None:
            return {}
        if self.ranks.rank == 0:
            self._remove_others()
        self._sigterm.hear()
        self._beat(watched=False)
        progress = self._restored(self._contents)
        self._saved_at = time.monotonic()
        self._looks.begin(self._steps)
        return progress

    def step(self, progress: dict[str, Any]) -> None:
        """See `Round.step`."""
        self._steps += 1
        self._progress = progress
        self._beat()
        if self._steps >= self._looks.next:
            self._look()
        elif self._is_turn():
            self._save()

    def alive(self) -> None:
        """See `Round.alive`."""
        self._beat()

    def submitting(self) -> None:
        """From here on, what takes long is not the script's."""
        self._beat(watched=False)

    def close(self, *, submitted: bool) -> None:
        """The round is over on this rank: forget it, and heed a SIGTERM that came too late."""
        self.heart.beat(0, watched=False, saves=False)
        if submitted and self.ranks.rank == 0 and self.folder is not None:
            _remove(self.folder.parent)
        self._sigterm.let_go(heed=submitted)

    def _look(self) -> None:
        passed = time.monotonic() - self._saved_at
        due = self._is_turn() or 0 < self._every_seconds <= passed
        told, due = self._looks.look(self._steps, told=self._sigterm.told, due=due)
        if told:
            self._stop()
        elif due:
            self._save()

    def _is_turn(self) -> bool:
        return self._every_steps > 0 and self._steps % self._every_steps == 0

    def _stop(self) -> None:
        """Save, and end this process so that another attempt goes on from here."""
        saved = self._save()
        self.ended = True
        next_time = "the next attempt goes on from there" if saved else "which was not saved"
        outcome.Outcome(
            exit=Exit.TRY_AGAIN,
            reason=outcome.TERMINATED,
            message=f"stopped by SIGTERM after step {self._steps}; {next_time}",
            rank=self.ranks.rank,
            at=time.monotonic(),
        ).leave()
        collective.do_not_wait_for_peers()
        raise SystemExit(int(Exit.TRY_AGAIN))

    def _save(self) -> bool:
        """Write a snapshot; one that cannot be written is said in the log and costs no more."""
        if self.folder is None or self._contents is None:
            return False
        generators = seeds.generators()  # before anything here could draw from them
        self._beat(watched=False)
        try:
            progress = json.loads(json.dumps(self._progress))
        except (TypeError, ValueError) as error:
            sentence = f"rnd.step(...): {error}; give it what JSON holds, numbers for example"
            raise ContractError("BadProgress", sentence) from error
        tensors, contents = self._contents.now()
        own = {"contents": contents, "generators": generators}
        about = {**self.about, "steps": self._steps, "progress": progress}
        started = time.monotonic()
        try:
            target = self.folder / str(self._steps)
            snapshot.write(target, self.ranks, tensors=tensors, own=own, about=about)
        except SnapshotError as error:
            self._say(f"step {self._steps} was not saved: {error}")
            return False
        finally:
            self._saved_at = time.monotonic()
            self._beat()
        self._say(f"step {self._steps} was saved in {self._saved_at - started:.1f} s")
        if self.ranks.rank == 0:
            for folder in self._folders():
                if folder.name != str(self._steps):
                    _remove(folder)
        return True

    def _restored(self, contents: Contents) -> dict[str, Any]:
        """Fill everything from the newest snapshot that is whole; what `rnd.step` was told then."""
        for folder in self.ranks.tell(self._folders() if self.ranks.rank == 0 else None):
            try:
                found = snapshot.read(folder, self.ranks)
                if any(found.about.get(name) != value for name, value in self.about.items()):
                    raise SnapshotError("it is of another round")
                self._fill(found, contents)
            except SnapshotError as error:
                self._say(f"the snapshot of step {folder.name} is not used: {error}")
                continue
            progress = dict(found.about["progress"])
            self._say(f"goes on after step {self._steps} {json.dumps(progress)}")
            return progress
        return {}

    def _fill(self, found: Snapshot, contents: Contents) -> None:
        """Raises SnapshotError, and leaves everything as the round began, if it does not fit."""
        own = found.own(self.ranks)
        try:
            contents.fill(found, own["contents"], self.ranks)
        except SnapshotError:
            self.begin_again()
            raise
        self._steps = int(found.about["steps"])
        if found.world == self.ranks.world:
            seeds.go_on(own["generators"])
        else:  # nobody's generator is anybody's any more: new ones that follow from what is known
            number, participant = int(self.about["round"]), str(self.about["participant"])
            seeds.reseed(seeds.derive(self._steps, number, participant, self.ranks.rank))

    def _folders(self) -> list[Path]:
        """Snapshots of this round, the newest first."""
        assert self.folder is not None
        try:
            names = [name for name in os.listdir(self.folder) if name.isdigit()]
        except OSError:
            return []
        return [self.folder / name for name in sorted(names, key=int, reverse=True)]

    def _remove_others(self) -> None:
        """Snapshots of rounds that are over, and what was never finished."""
        assert self.folder is not None
        for folder in [*self.folder.parent.glob("*"), *self.folder.glob(".tmp-*")]:
            if folder != self.folder:
                _remove(folder)

    def _beat(self, *, watched: bool = True) -> None:
        self.heart.beat(self._steps, watched=watched, saves=self._sigterm.heard)

    def _say(self, line: str) -> None:
        if self.ranks.rank == 0:
            say(line)


def of(
    task: ParticipantTask, model: Any, ranks: Ranks, begin_again: Callable[[], None]
) -> Midround:
    """For one round of training. Without a scratch that lasts, nothing is saved or restored."""
    digest = task.model.digest if task.model is not None else ""
    short = digest.partition(":")[2][:16] or "none"
    folder = memory.home(task) / "midround" / f"{task.round}-{short}" if memory.lasting() else None
    about = {"uid": task.uid, "round": task.round, "participant": task.participant, "base": digest}
    return Midround(
        task=task,
        model=model,
        ranks=ranks,
        folder=folder,
        about=about,
        begin_again=begin_again,
        heart=_heart(ranks.rank),
    )


def nowhere(model: Any, ranks: Ranks) -> Midround:
    """For a plain run outside a federation: every call is allowed and does nothing."""
    return Midround(
        task=None,
        model=model,
        ranks=ranks,
        folder=None,
        about={},
        begin_again=lambda: None,
        heart=_heart(ranks.rank),
    )


_hearts: dict[int, Heart] = {}


def _heart(rank: int) -> Heart:
    """One for the life of the process, however many rounds that has."""
    if rank not in _hearts:
        _hearts[rank] = Heart(rank)
    return _hearts[rank]


def _remove(folder: Path) -> None:
    """What cannot be removed now is removed by the next round."""
    with contextlib.suppress(OSError):
        publication.remove(folder)
