"""`rounds`: the loop that turns an ordinary training script into a participant of a federation.

    for rnd in rounds(model, optimizer=optimizer, evaluate=evaluate):
        ...                                     # an ordinary training loop
        rnd.submit(samples=len(data), metrics={"loss": loss})

What the process is there for comes from `FEDTRAIN_TASK`: it publishes untrained weights, trains one
round, or evaluates; without a task it is a plain local run. The script never learns which.
"""

import math
import operator
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar, cast

from fedtrain import collective, errors, looks, memory, midround, outcome, seeds
from fedtrain.collective import Ranks
from fedtrain.contract import (
    METRIC_NAME,
    METRICS_LIMIT,
    MOUNT,
    ROOT_ENV,
    TASK_ENV,
    ParticipantTask,
    Role,
    decode_task,
)
from fedtrain.errors import ContractError, DataError, FedtrainError
from fedtrain.kept import Kept
from fedtrain.midround import Midround
from fedtrain.models import weights_of, without_term
from fedtrain.proximal import UNUSED, Proximal
from fedtrain.state import State
from fedtrain.store import Store, Submission
from fedtrain.weights import Weights

MOST_SAMPLES = 2**53
"""The aggregator's weights are doubles, which hold every whole number up to here."""

Evaluate = Callable[[Any], Mapping[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of training that this process takes part in.

    number: counts from 1. parameters: `spec.parameters`, read-only. deadline: seconds that the
    operator allows from the pods' readiness on, or None. seed: the same on all ranks, different
    for each round and participant; use it for the order of the data. state: a mapping of names to
    arrays, tensors or JSON values, given back from this participant's last *accepted* round; every
    rank may set it, rank 0's is saved with the submit, and all ranks begin with the same.
    """

    number: int
    participant: str
    parameters: Mapping[str, Any]
    seed: int
    deadline: float | None
    state: State
    _midround: Midround = field(repr=False)
    _proximal: Proximal = field(repr=False)
    _submit: Callable[[Submission | FedtrainError], None] = field(repr=False)
    _entered: float = field(repr=False, default_factory=time.monotonic)

    def submit(
        self, *, samples: int, metrics: Mapping[str, Any] | None = None, steps: int = 0
    ) -> None:
        """Hand in what was trained: once, by all ranks together.

        samples: the *participant's* total over all ranks, in the unit of `spec.weight`. steps:
        optimizer steps taken. Raises ContractError or DataError, on every rank the same.
        """
        self._midround.submitting()
        seconds = time.monotonic() - self._entered
        try:
            told: Submission | FedtrainError = Submission(
                samples=_samples(samples),
                steps=operator.index(steps),
                seconds=seconds,
                metrics=checked_metrics(metrics or {}),
            )
        except FedtrainError as error:
            told = error
        self._submit(told)

    @property
    def scratch(self) -> Path:
        """A folder of the participant's own for caches; what is in it may be gone at any time."""
        return memory.cache(self._midround.task)

    def resume(
        self, *, every: int | timedelta = midround.DEFAULT_EVERY, **parts: Any
    ) -> dict[str, Any]:
        """Go on where an earlier attempt at this round was interrupted; once, by all ranks.

            progress = rnd.resume(optimizer=optimizer, scheduler=scheduler)
            for epoch in range(progress.get("epoch", 0), epochs):

        parts: whatever else than the model must be as it was: torch optimizers, and anything with
        state_dict() and load_state_dict(). If a checkpoint of this round is on the scratch, model,
        parts and generators are restored, and the answer is what `step` was told last; else {}.
        From here on `step` saves: every so many steps (int) or so much time, and on SIGTERM.
        """
        return self._midround.resume(every, parts)

    def step(self, **progress: Any) -> None:
        """Say that an optimizer step is done: after each one, on all ranks alike.

        progress: JSON values, the same on all ranks, that say where to go on from here. Costs
        microseconds, but where it saves. After a SIGTERM it saves and ends the process (exit 75).
        """
        self._midround.step(progress)

    def alive(self) -> None:
        """Where something takes longer than trainer.hangTimeout: say that it goes on, as `step`."""
        self._midround.alive()

    def proximal_term(self) -> Any:
        """FedProx's μ/2·‖w − w_t‖² over the trainable parameters of a torch model, for the loss:

            loss = criterion(model(x), y) + rnd.proximal_term()

        A scalar tensor with a gradient; zero, and free, unless the strategy is FedProx (Li et al.
        2020, see `fedtrain.proximal`). Under DDP every rank adds the whole of it.
        """
        return self._proximal.term()

    def proximal_gradients(self) -> dict[str, Any]:
        """The same for numpy arrays: {name: μ (w − w_t)}, to be added to their gradients."""
        return self._proximal.gradients()


def rounds(
    model: Any, *, optimizer: Any = None, evaluate: Evaluate | None = None
) -> Iterator[Round]:
    """Yield each round that this process trains; load, publish and evaluate as the task says.

    model: a torch module (plain, or wrapped in DDP or torch.compile) or a mapping of names to
    numpy arrays, changed in place. optimizer: its state is reset when a round begins. evaluate:
    model -> metrics by name; the key "samples" says over how many samples they are the mean.
    Errors: ContractError if script and federation disagree, DataError for unusable numbers.
    """
    text = os.environ.get(TASK_ENV)
    if text is None:
        yield from _plain(model, evaluate)
        return
    _leave_the_outcome_of_any_exception()
    try:
        task = decode_task(text)
    except ValueError as error:
        raise ContractError("BadTask", str(error)) from error
    if not isinstance(task, ParticipantTask):
        raise ContractError("BadTask", f"{TASK_ENV} holds a {type(task).__name__}")
    store = Store(root=Path(os.environ.get(ROOT_ENV, MOUNT)), task=task)
    ranks = collective.join(torch_model=not isinstance(model, Mapping))
    if ranks.tell(store.published() is not None):  # rank 0's eyes, lest the ranks part ways
        _say(f"{task.output} has its receipt already: that is the result")
        return
    weights = weights_of(model)
    kept = Kept(model, optimizer, ranks)
    session = Session(store=store, ranks=ranks, weights=weights, model=model, kept=kept)
    if task.role is Role.INIT:
        session.together(lambda: store.publish_untrained(weights))
        return
    store.load(weights)
    kept.reset()
    seeds.reseed(seeds.derive(task.seed, task.round, task.participant, ranks.rank))
    if task.role is Role.EVALUATE:
        session.evaluate(model, evaluate)
        return
    yield from session.train()


@dataclass(slots=True, kw_only=True)
class Session:
    """One task carried out by the ranks of one participant, who all end the same way."""

    store: Store
    ranks: Ranks
    weights: Weights
    model: Any
    kept: Kept
    accepted: tuple[int, int] | None = None
    submitted: bool = False
    published: bool = False
    state: State = field(default_factory=State)

    def train(self) -> Iterator[Round]:
        """Yield the round, and insist that it was submitted."""
        task = self.store.task
        # Rank 0 reads it for all: of several nodes' scratch, its own is where it was saved.
        self.state = self.together(lambda: self.store.memory().state())
        self.accepted = self.together(lambda: self.store.memory().accepted)
        self.kept.begin(task, self.accepted)
        middle = midround.of(task, self.model, self.ranks, self._begin_again)
        proximal = self.weights.proximal(task.proximal)
        rnd = Round(
            number=task.round,
            participant=task.participant,
            parameters=MappingProxyType(dict(task.parameters)),
            seed=seeds.derive(task.seed, task.round, task.participant),
            deadline=task.deadline,
            state=self.state,
            _midround=middle,
            _proximal=proximal,
            _submit=self.submit,
        )
        try:
            yield rnd
        except GeneratorExit:  # a `break`, after which nothing of ours runs
            if not self.submitted and not middle.ended:
                outcome.of_exception(_no_submit(), self.ranks.rank).leave()
            raise
        finally:
            middle.close(submitted=self.published)
        if not self.submitted:
            self.submit(_no_submit())
        if task.proximal and not proximal.asked and self.ranks.rank == 0:
            _say(UNUSED)

    def submit(self, told: Submission | FedtrainError) -> None:
        """Compare what the ranks say, and publish on rank 0; collective."""
        if self.submitted:
            raise ContractError("SubmittedTwice", "rnd.submit(...) was called twice in one round")
        self.submitted = True
        told_by_all = self.ranks.gather(told)
        looks.agree(told_by_all)
        submission = agree(told_by_all, self.ranks.rank)
        self.kept.save(self.store.task, self.accepted)
        self.together(lambda: self.store.publish_update(self.weights, submission, self.state))
        self.published = True

    def _begin_again(self) -> None:
        """As the round began: after a checkpoint that could not be used after all."""
        self.store.load(self.weights)
        self.kept.begin(self.store.task, self.accepted)

    def evaluate(self, model: Any, evaluate: Evaluate | None) -> None:
        """Measure the global model on every rank; rank 0's metrics are what counts."""
        started = time.monotonic()
        if evaluate is None:
            sentence = "an evaluation is asked for: pass evaluate= to rounds(...)"
            raise ContractError("NoEvaluate", sentence)
        metrics, samples = measured(evaluate(model))
        submission = Submission(
            samples=samples, metrics=metrics, seconds=time.monotonic() - started
        )
        self.together(lambda: self.store.publish_evaluation(submission))

    def together(self, act: Callable[[], T]) -> T:
        """Do it on rank 0 and tell all ranks what came of it; they raise the same error."""
        failed: tuple[int, str, str] | None = None
        mine: BaseException | None = None
        result: T | None = None
        if self.ranks.rank == 0:
            try:
                result = act()
            except FedtrainError as error:
                mine, failed = error, (int(error.exit), error.reason, str(error))
        failed, told = self.ranks.tell((failed, result))
        if failed is not None:
            raise mine or errors.of(*failed)
        return cast(T, told)


def agree(told: list[Any], rank: int) -> Submission:
    """Rank 0's submission, if every rank handed one in and all name the same samples.

    Raises the error of this rank if it has one, else that of the first rank that has.
    """
    for one in (told[rank], *told):
        if isinstance(one, FedtrainError):
            raise one
    first: Submission = told[0]
    for other, submission in enumerate(told):
        if submission.samples != first.samples:
            raise ContractError(
                "SamplesDisagree",
                f"ranks disagree on samples: rank 0 says {first.samples}, rank {other} says "
                f"{submission.samples}; each must pass the participant's total over all ranks",
            )
    return first


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats; those that are not finite are left out with a word in the log.

    Raises ContractError for a name or a value that cannot be a metric, and for too many.
    """
    if len(metrics) > METRICS_LIMIT:
        sentence = f"metrics: {len(metrics)} are too many; {METRICS_LIMIT} is the most"
        raise ContractError("BadMetric", sentence)
    checked = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not re.fullmatch(METRIC_NAME.rstrip("$"), name):
            sentence = f"metrics[{name!r}]: a name is letters, digits and _, at most 40 of them"
            raise ContractError("BadMetric", sentence)
        try:
            # torch warns if what has a gradient is made a number
            number = float(value.detach() if hasattr(value, "detach") else value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            sentence = f"metrics[{name!r}]: {type(value).__name__} is not a number"
            raise ContractError("BadMetric", sentence) from error
        if math.isfinite(number):
            checked[name] = number
        else:
            _say(f"metrics[{name!r}] is {number} and was left out")
    return checked


def measured(metrics: Any) -> tuple[dict[str, float], int]:
    """What `evaluate` gave: metrics, and the samples that they stand for (1 if not said)."""
    if not isinstance(metrics, Mapping):
        sentence = f"evaluate(model) gave a {type(metrics).__name__}, not metrics by name"
        raise ContractError("BadMetric", sentence)
    rest = dict(metrics)
    samples = _samples(rest.pop("samples", 1))
    return checked_metrics(rest), samples


def _samples(samples: Any) -> int:
    try:
        count = operator.index(samples)
    except TypeError as error:
        sentence = f"samples={samples!r} is not a whole number"
        raise ContractError("BadSamples", sentence) from error
    if isinstance(samples, bool) or count < 0:
        raise ContractError("BadSamples", f"samples={samples!r} is not a number of samples")
    if count > MOST_SAMPLES:
        raise ContractError("BadSamples", f"samples={count} is more than 2**53")
    if count == 0:
        raise DataError("NoSamples", "samples=0: this participant has no data to train on")
    return count


def _no_submit() -> ContractError:
    return ContractError("NoSubmit", outcome.NO_SUBMIT)


def _plain(model: Any, evaluate: Evaluate | None) -> Iterator[Round]:
    """Outside a federation: one round, whose result is said and not published."""
    ranks = collective.join(torch_model=not isinstance(model, Mapping))
    seeds.reseed(seeds.derive(0, 1, "local", ranks.rank))

    def submit(told: Any) -> None:
        submission = agree(ranks.gather(told), ranks.rank)
        if ranks.rank == 0:
            _say(f"trained on {submission.samples} samples {_shown(submission.metrics)}")

    middle = midround.nowhere(model, ranks)
    yield Round(
        number=1,
        participant="local",
        parameters=MappingProxyType({}),
        seed=seeds.derive(0, 1, "local"),
        deadline=None,
        state=State(),
        _midround=middle,
        _proximal=without_term(model),
        _submit=submit,
    )
    if evaluate is not None:
        metrics, _ = measured(evaluate(model))
        if ranks.rank == 0:
            _say(f"evaluated {_shown(metrics)}")


def _shown(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())


def _leave_the_outcome_of_any_exception() -> None:
    """Have uncaught exceptions told to `fedtrain.launch`; the hook that was there still runs."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        collective.do_not_wait_for_peers()
        outcome.of_exception(error, collective.rank_of_this_process()).leave()
        previous(kind, error, trace)

    sys.excepthook = hook


def _say(line: str) -> None:
    print(f"fedtrain: {line}", file=sys.stderr, flush=True)
