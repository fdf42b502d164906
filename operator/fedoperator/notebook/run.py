"""What a run on this machine and one on a cluster have in common: rounds, model, history."""

import abc
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Record
from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import Training
from fedoperator.local import report
from fedoperator.local.folder import Refused
from fedoperator.notebook import html
from fedoperator.notebook import model as models
from fedoperator.notebook.model import StateDict
from fedoperator.notebook.rounds import Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Failed(RuntimeError):
    """The training came to no good end; `reason` is one word, the text a sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(f"{reason}: {sentence}")
        self.reason = reason


class Run(abc.ABC):
    """A training under way, or over: iterate over it to get each round as it ends.

    Iterating begins with the first round, however long that is over, and waits for those to come;
    after the last one it ends, or raises Failed. What blocks the training is a warning.
    """

    def __iter__(self) -> Iterator[Round]:
        number, told = 1, ""
        while True:
            over = self._over()  # asked first, so that nothing written by then is overlooked
            training = self._training()
            if training is not None:
                for record in self._ended_from(number, training.status.round):
                    yield self._round(record)
                    number = record.spec.round + 1
                told = _warn(training.status, told)
            if over or (training is not None and training.status.terminal):
                self._judge(training)
                return
            self._pause()

    @property
    def rounds(self) -> list[Round]:
        """Those that are over by now."""
        training = self._training()
        known = self._ended_from(1, training.status.round) if training is not None else ()
        return [self._round(record) for record in known]

    @property
    def status(self) -> TrainingStatus:
        """How the training stands: phase, round, progress, metrics, global_model, message ..."""
        training = self._training()
        return training.status if training is not None else TrainingStatus()

    def wait(self) -> Self:
        """Until the training is over; raises Failed as iterating does."""
        for _ in self:
            pass
        return self

    def model(self, exchange: str | Path | None = None) -> StateDict:
        """The last global model, as a state dict.

        exchange: the folder that holds the exchange; for a training on a cluster, where its claim
        is mounted. Raises Refused if there is no model there (yet).
        """
        return self._read(self.status.global_model, exchange)

    def plot(self, *metrics: str, ax: "Axes | None" = None) -> "list[Axes]":
        """The history, an axes per metric: lines for the global models, dots for participants.

        metrics: all there are if none is named. ax: draw everything into this one.
        """
        from fedoperator.notebook import plot

        return plot.history(self.rounds, metrics, ax)

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Of the training."""

    @abc.abstractmethod
    def _training(self) -> Training | None:
        """As it stands; None if there is nothing to be seen of it yet."""

    @abc.abstractmethod
    def _record(self, number: int) -> Record | None:
        """Of a round; None if there is none, or none any more."""

    @abc.abstractmethod
    def _over(self) -> bool:
        """Whether nothing will change any more."""

    @abc.abstractmethod
    def _pause(self) -> None:
        """Until it is time for another look."""

    @abc.abstractmethod
    def _place(self, model: GlobalModel, exchange: str | Path | None) -> Path:
        """Where a global model can be read. Raises Refused."""

    def _judge(self, training: Training | None) -> None:
        """Raises Failed unless the end is a good one."""
        status = training.status if training is not None else TrainingStatus()
        if status.phase == "Failed":
            raise Failed(status.reason or "Failed", status.message)

    def _round(self, record: Record) -> Round:
        return Round(record, self._read)

    def _read(self, model: GlobalModel | None, exchange: str | Path | None) -> StateDict:
        if model is None:
            raise Refused(f"{self.name} has no global model yet; wait for its first round")
        place = self._place(model, exchange)
        if not place.exists():
            remedy = "spec.keep.last says for how many rounds models are kept"
            raise Refused(f"the model of round {model.round} is not at {place}; {remedy}")
        return models.read(place)

    def _ended_from(self, number: int, current: int) -> Iterator[Record]:
        """Rounds of which everything is known, in order; those beyond spec.history are gone."""
        for n in range(number, current + 1):
            record = self._record(n)
            if record is not None and not report.is_told(record):
                return
            if record is not None:
                yield record

    def __repr__(self) -> str:
        status = self.status
        return f"<{type(self).__name__} {self.name}: {status.phase}, round {status.round}>"

    def _repr_html_(self) -> str:
        return table(self.name, self.status, self.rounds)


def table(name: str, status: TrainingStatus, rounds: Sequence[Round]) -> str:
    """A run as a notebook shows it: its last rounds."""
    rows = []
    for rnd in rounds[-html.MOST :]:
        seconds = "" if rnd.seconds is None else f"{rnd.seconds:.1f}"
        missing = ", ".join(f"{who} ({why})" for who, why in rnd.missing.items())
        count = f"{len(rnd.accepted)}/{len(rnd.participants)}"
        rows.append([rnd.number, count, html.measured(rnd.metrics), seconds, missing])
    title = " ".join(filter(None, [status.phase, status.progress, status.message]))
    heads = ["round", "accepted", "metrics", "seconds", "without"]
    return html.table(name, title, heads, rows, (len(rounds) - html.MOST, "earlier rounds"))


def _warn(status: TrainingStatus, told: str) -> str:
    """A warning for what blocks it, once per sentence; the sentence."""
    if status.phase not in ("Blocked", "Suspended"):
        return told
    sentence = f"{status.phase}: {status.reason}: {status.message}"
    if sentence != told:
        warnings.warn(sentence, stacklevel=3)
    return sentence
