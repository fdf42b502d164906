"""What a participant keeps between rounds, and when it counts: `rnd.state` and error feedback.

    $FEDTRAIN_SCRATCH/<training>-<uid8>/<participant>/state/<round>-<attempt>/
        state.json, state.safetensors, residual.safetensors, control.safetensors,
        layers.safetensors, personal.safetensors

Saved with the submit and before the update is published, as one folder that appears whole; given
back is the one of this participant's last accepted (round, attempt), which the global model's
manifest names. So what is kept never runs ahead of the federation: a round whose update was lost,
refused or came too late leaves a folder that nobody reads, and the next one removes it.

residual.safetensors is error feedback: what the codec left out of the update, by parameter, which
is added to the next update (Seide et al. 2014, "1-Bit Stochastic Gradient Descent"; Karimireddy et
al. 2019, "Error Feedback Fixes SignSGD"). It passes through in tiles, like the model.
control.safetensors is SCAFFOLD's control variate, see `fedtrain.control`. layers.safetensors and
personal.safetensors are tensors that never travel, see `fedtrain.home`.
"""

import atexit
import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from fedtrain import publication
from fedtrain.collective import Alone, Ranks
from fedtrain.contract import SCRATCH_ENV, ParticipantTask, training_folder
from fedtrain.errors import TryAgain
from fedtrain.layout import plan
from fedtrain.log import say
from fedtrain.schema import Schema
from fedtrain.sharedfile import SharedPublication, SharedWriter
from fedtrain.state import STATE_FILE, State, read_state
from fedtrain.tensorfile import TensorFile
from fedtrain.weights import Array

RESIDUAL_FILE = "residual.safetensors"
METRICS_FILE = "metrics.json"
_OF_A_ROUND = re.compile(r"(?:\.tmp-)?(\d+)-(\d+)(?:-[0-9a-f]{32})?")
_of_this_process: Path | None = None
_said: set[str] = set()


class Kept(Protocol):
    """Something else than `rnd.state` that is kept with it."""

    def write(self, folder: Path) -> None:
        """Put it into `folder`. Raises OSError or ValueError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One participant's folder of states.

    accepted: (round, attempt) of its last update that is part of the global model, or None.
    lasting: whether the folder outlives this process.
    """

    folder: Path
    task: ParticipantTask
    accepted: tuple[int, int] | None
    lasting: bool

    @classmethod
    def of(cls, task: ParticipantTask, accepted: tuple[int, int] | None) -> Self:
        """The participant's memory on its scratch, or else one that ends with this process."""
        return cls(folder=home(task) / "state", task=task, accepted=accepted, lasting=lasting())

    @property
    def _given_back(self) -> Path | None:
        """The folder of the last accepted attempt, if that attempt had anything to keep."""
        if self.accepted is None:
            return None
        folder = self.folder / "{}-{}".format(*self.accepted)
        return folder if (folder / STATE_FILE).exists() else None

    def state(self) -> State:
        """What `rnd.state` begins with. Raises TryAgain (StateUnreadable)."""
        with _told("StateUnreadable"):
            return State(read_state(self._given_back) if self._given_back else None)

    def residual(self) -> TensorFile | None:
        """What the last accepted update left out, opened. Raises TryAgain (StateUnreadable)."""
        return self.tensors(RESIDUAL_FILE)

    def tensors(self, file: str) -> TensorFile | None:
        """A file that the last accepted attempt left, opened. Raises TryAgain (StateUnreadable)."""
        with _told("StateUnreadable"):
            if self._given_back is None or not (self._given_back / file).exists():
                return None
            return TensorFile.open(self._given_back / file)

    def read(self, file: TensorFile, name: str, start: int, stop: int) -> Array:
        """Elements of one of its tensors. Raises TryAgain (StateUnreadable)."""
        with _told("StateUnreadable"):
            return file.read(name, start, stop)

    def publish(self, models: Sequence[Kept], metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Leave the participant's own models beside the states, in place of earlier attempts'.

            $FEDTRAIN_SCRATCH/<training>-<uid8>/<participant>/personal/<round>-<attempt>/

        Raises TryAgain (StateNotSaved).
        """
        folder = self.folder.parent / "personal" / f"{self.task.round}-{self.task.attempt}"
        if not self.lasting:
            _say_once(f"{SCRATCH_ENV} is not set: the personal model is kept for this process only")
        with _told("StateNotSaved"):
            if folder.exists():
                shutil.rmtree(folder)  # of a process that died before it published its metrics
            with publication.Publication(folder, METRICS_FILE) as new:
                for model in models:
                    model.write(new.path)
                new.commit(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
            for other in list(folder.parent.iterdir()):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)

    def prune(self) -> None:
        """Remove what can never be given back: earlier rounds' states, but the last accepted.

        This round's base says what became of every round before it, so that is already settled.
        """
        if not self.folder.is_dir():
            return
        for entry in list(self.folder.iterdir()):
            named = _OF_A_ROUND.fullmatch(entry.name)
            if named is None or int(named[1]) >= self.task.round:
                continue
            if self.accepted != (int(named[1]), int(named[2])) or entry.name.startswith(".tmp-"):
                shutil.rmtree(entry, ignore_errors=True)


class Saving:
    """The state of one attempt about to be saved: leave residuals, then `commit`; a context."""

    def __init__(
        self, memory: Memory, schema: Schema, *, feedback: bool, ranks: Ranks | None = None
    ) -> None:
        task = memory.task
        self._ranks = ranks or Alone()
        if feedback and not memory.lasting and self._ranks.rank == 0:
            _say_once(
                f"{SCRATCH_ENV} is not set: what the codec leaves out of this update is lost; "
                "give this participant scratch"
            )
        self.feedback = feedback and memory.lasting
        self._memory = memory
        self._schema = schema
        self._target = memory.folder / f"{task.round}-{task.attempt}"
        self._label = f"{task.round}-{task.attempt}-"
        self._new = SharedPublication(self._ranks, self._target, STATE_FILE, self._label)
        self._opened = ExitStack()
        self._before: TensorFile | None = None
        self._after: SharedWriter | None = None

    def __enter__(self) -> Self:
        if self.feedback:
            parameters = [spec for spec in self._schema.tensors if spec.kind == "parameter"]
            infos = plan((spec.name, "F32", spec.shape) for spec in parameters)
            with ExitStack() as opened, _told("StateNotSaved"):
                self._before = self._memory.residual()
                if self._before is not None:
                    opened.enter_context(self._before)
                self._on_one_volume()
                path = opened.enter_context(self._new).path / RESIDUAL_FILE
                self._after = opened.enter_context(SharedWriter(self._ranks, path, infos))
                self._opened = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.__exit__(*exception)  # type: ignore[arg-type]

    def with_residual(self, name: str, start: int, values: Array) -> Array:
        """The run plus what the last accepted update left out of it."""
        if self._before is None:
            return values
        with _told("StateUnreadable"):
            if name not in self._before.tensors:
                raise ValueError(f"{RESIDUAL_FILE} has no {name!r}")
            residual = self._before.read(name, start, start + values.size)
            if residual.dtype != np.float32 or not np.isfinite(residual).all():
                raise ValueError(f"{RESIDUAL_FILE} holds for {name!r} what nobody left there")
            return np.add(values, residual)

    def leave(self, name: str, start: int, residual: Array) -> None:
        """Keep what this update leaves out of a run."""
        assert self._after is not None
        with _told("StateNotSaved"):
            self._after.write(name, start, residual)

    def commit(self, state: State, kept: Sequence[Kept] = ()) -> None:
        """Save everything under (round, attempt), and forget what is over.

        A folder of the same attempt is from a process that died before its update was published:
        what counts is what goes with the update that is about to be.
        """
        with _told("StateNotSaved"):
            first = self._ranks.rank == 0
            if first and self._target.exists():
                shutil.rmtree(self._target)
            if first and (state or kept) and not self._memory.lasting:
                what = "rnd.state" if state else "what never travels"
                _say_once(f"{SCRATCH_ENV} is not set: {what} is kept for this process only")
            if self._after is not None:
                self._after.close()
                self._new.commit(_written(self._new.path, state, kept) if first else "")
            elif first and (state or kept):
                with publication.Publication(self._target, STATE_FILE, self._label) as new:
                    new.commit(_written(new.path, state, kept))
            if first:
                self._memory.prune()

    def _on_one_volume(self) -> None:
        """Raises TryAgain unless all ranks find what the last accepted update left, or none."""
        found = self._ranks.gather(self._before is not None)
        if len(set(found)) > 1:
            sentence = f"the state on {SCRATCH_ENV}: rank {found.index(False)} does not find it"
            raise TryAgain("StateUnreadable", f"{sentence}; nodes need one ReadWriteMany claim")


def _written(folder: Path, state: State, kept: Sequence[Kept]) -> str:
    """Put all of it there; the text that belongs to it."""
    for one in kept:
        one.write(folder)
    return state.write(folder)


def home(task: ParticipantTask) -> Path:
    """The participant's folder on its scratch, or else one that ends with this process."""
    root = Path(os.environ[SCRATCH_ENV]) if lasting() else _root_of_this_process()
    return root / training_folder(task.training, task.uid) / task.participant


def cache(task: ParticipantTask | None) -> Path:
    """`rnd.scratch`, made if need be; without a task that of a plain run."""
    folder = (home(task) if task is not None else _root_of_this_process()) / "scratch"
    with _told("ScratchNotWritable"):
        publication.make_folder(folder)
    return folder


def lasting() -> bool:
    """Whether what is kept outlives this process."""
    return bool(os.environ.get(SCRATCH_ENV))


def _root_of_this_process() -> Path:
    global _of_this_process
    if _of_this_process is None:  # only named here: it is made if something is saved
        _of_this_process = Path(tempfile.gettempdir()) / f"fedtrain-{uuid.uuid4().hex}"
        atexit.register(shutil.rmtree, _of_this_process, ignore_errors=True)
    return _of_this_process


def _say_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        say(line)


@contextlib.contextmanager
def _told(reason: str) -> Iterator[None]:
    """Turn what the scratch says into TryAgain: it is the participant's own, not the exchange."""
    try:
        yield
    except (OSError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        word = "ScratchFull" if full else reason
        raise TryAgain(word, f"the state on {SCRATCH_ENV}: {error}") from error
