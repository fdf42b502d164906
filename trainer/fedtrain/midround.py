"""Going on with a round that was interrupted: `rnd.resume`, `rnd.step` and what stands behind them.

    $FEDTRAIN_SCRATCH/<training>-<uid8>/<participant>/midround/<round>-<base digest>/<step>/

holds one snapshot (`fedtrain.snapshot`): model, optimizers, whatever else the script hands over,
the generators of every rank, and what `rnd.step` was told last. It is of a round and the global
model that it began with, whatever the attempt; a cache, which may be missing or spoilt at any time.

All ranks have to save after the same step. So they look at each other now and then, in one small
collective after a step on which the look before agreed: then all learn whether anybody was told to
stop (SIGTERM) and whether it is time to save. Looks are about a second apart, so no step pays for
them, and nothing is assumed of how far ranks run ahead of each other: on a GPU that is many steps,
with gradient accumulation any number. A single process looks after every step.
"""

import contextlib
import json
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from fedtrain import collective, memory, outcome, publication, seeds, snapshot
from fedtrain.collective import Alone, Ranks
from fedtrain.contents import Contents
from fedtrain.contract import Exit, ParticipantTask
from fedtrain.errors import ContractError
from fedtrain.heart import Heart
from fedtrain.snapshot import Snapshot, SnapshotError

LOOK_SECONDS = 1.0
DEFAULT_EVERY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a rank shows the others. next: of rank 0, after which step to look again."""

    steps: int
    told: bool
    due: bool
    next: int


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
    _next: int = sys.maxsize
    _looked: tuple[int, float] = (0, 0.0)
    _told: bool = False
    _handler: Any = None
    _handles: bool = False
    _pid: int = field(default_factory=os.getpid)

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
        self._hear()
        progress = self._restored(self._contents)
        self._saved_at = time.monotonic()
        self._looked = self._steps, self._saved_at
        self._next = self._steps + 1
        return progress

    def step(self, progress: dict[str, Any]) -> None:
        """See `Round.step`."""
        self._steps += 1
        self._progress = progress
        self.heart.beat(self._steps, watched=True, saves=self._handles)
        if self._steps >= self._next:
            self._look()
        elif self._is_turn():
            self._save()

    def alive(self) -> None:
        """See `Round.alive`."""
        self.heart.beat(self._steps, watched=True, saves=self._handles)

    def submitting(self) -> None:
        """From here on, what takes long is not the script's."""
        self.heart.beat(self._steps, watched=False, saves=self._handles)

    def close(self, *, submitted: bool) -> None:
        """The round is over on this rank: forget it, and heed a SIGTERM that came too late."""
        self.heart.beat(0, watched=False, saves=False)
        if submitted and self.ranks.rank == 0 and self.folder is not None:
            with contextlib.suppress(OSError):  # the next round tries again
                publication.remove(self.folder)
        self._next = sys.maxsize
        if self._handles and threading.current_thread() is threading.main_thread():
            self._handles = False
            signal.signal(signal.SIGTERM, self._handler)
            if self._told and submitted:
                signal.raise_signal(signal.SIGTERM)

    def _look(self) -> None:
        now = time.monotonic()
        due = bool(self._every_seconds) and now - self._saved_at >= self._every_seconds
        due = due or self._is_turn()
        mine = Look(steps=self._steps, told=self._told, due=due, next=self._next_look(now))
        told = self.ranks.gather(mine)
        agree(told)
        self._next, self._looked = told[0].next, (self._steps, now)
        if any(look.told for look in told):
            self._stop()
        elif told[0].due:
            self._save()

    def _is_turn(self) -> bool:
        return self._every_steps > 0 and self._steps % self._every_steps == 0

    def _next_look(self, now: float) -> int:
        """About a second from here; at most twice as many steps as since the look before."""
        if isinstance(self.ranks, Alone):
            return self._steps + 1
        steps, at = self._looked
        made = max(1, self._steps - steps)
        fitting = int(made * LOOK_SECONDS / max(now - at, 1e-9))
        return self._steps + max(1, min(2 * made, fitting))

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

    # ---- saving and restoring --------------------------------------------------------------------

    def _save(self) -> bool:
        """Write a snapshot; one that cannot be written is said in the log and costs no more."""
        if self.folder is None or self._contents is None:
            return False
        generators = seeds.generators()  # before anything here could draw from them
        self.heart.beat(self._steps, watched=False, saves=self._handles)
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
            self.heart.beat(self._steps, watched=True, saves=self._handles)
        self._say(f"step {self._steps} was saved in {self._saved_at - started:.1f} s")
        if self.ranks.rank == 0:
            for folder in self._folders():
                if folder.name != str(self._steps):
                    publication.remove(folder)
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
        with contextlib.suppress(OSError):
            for folder in [*self.folder.parent.iterdir(), *self.folder.glob(".tmp-*")]:
                if folder != self.folder:
                    publication.remove(folder)

    def _hear(self) -> None:
        """From here on SIGTERM means: save after the next look, and end."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._handler = signal.signal(signal.SIGTERM, self._heard)
        self._handles = True
        self.heart.beat(self._steps, watched=False, saves=True)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._told = True
        if os.getpid() != self._pid:  # a worker that was forked from us ends as it always did
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _say(self, line: str) -> None:
        if self.ranks.rank == 0:
            print(f"fedtrain: {line}", file=sys.stderr, flush=True)


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


def agree(told: list[Any]) -> None:
    """Raises ContractError unless the ranks say the same kind of thing after the same step.

    A rank that hands in its submission while others look has left the loop before them.
    """
    steps = [one.steps if isinstance(one, Look) else None for one in told]
    for rank, count in enumerate(steps):
        if count != steps[0]:
            first, other = (
                f"rank {r} {'is done' if n is None else f'is at step {n}'}"
                for r, n in ((0, steps[0]), (rank, count))
            )
            raise ContractError(
                "StepsDisagree",
                f"{first}, {other}: every rank must call rnd.step(...) the same number of times",
            )


_hearts: dict[int, Heart] = {}


def _heart(rank: int) -> Heart:
    """One for the life of the process, however many rounds that has."""
    if rank not in _hearts:
        _hearts[rank] = Heart(rank)
    return _hearts[rank]
