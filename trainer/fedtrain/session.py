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
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar, cast

from fedtrain import collective, errors, outcome, seeds
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
from fedtrain.ditto import Personal
from fedtrain.errors import ContractError, DataError, FedtrainError
from fedtrain.home import Home
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
    rank may set it, rank 0's is saved with the submit, and all ranks begin with the same. final:
    True after the last round, where a participant trains the global model for itself alone.
    """

    number: int
    participant: str
    parameters: Mapping[str, Any]
    seed: int
    deadline: float | None
    state: State
    final: bool = False
    _proximal: Proximal = field(repr=False)
    _personal: Personal | None = field(repr=False, default=None)
    _submit: Callable[[Submission | FedtrainError], None] = field(repr=False)
    _entered: float = field(repr=False, default_factory=time.monotonic)

    def submit(
        self, *, samples: int, metrics: Mapping[str, Any] | None = None, steps: int = 0
    ) -> None:
        """Hand in what was trained: once, by all ranks together.

        samples: the *participant's* total over all ranks, in the unit of `spec.weight`. steps:
        optimizer steps taken. Raises ContractError or DataError, on every rank the same.
        """
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

    def personal_gradients(self) -> dict[str, Any]:
        """Ditto's pull for a personal model of numpy arrays: {name: λ (v_k − w_t)}, to be added
        to its gradients; zeros without `spec.personalization.ditto`."""
        if self._personal is None:
            sentence = "rnd.personal_gradients() needs rounds(..., personal=a second model)"
            raise ContractError("NoPersonalModel", sentence)
        return self._personal.gradients()


def rounds(
    model: Any,
    *,
    optimizer: Any = None,
    evaluate: Evaluate | None = None,
    personal: Any = None,
    personal_optimizer: Any = None,
) -> Iterator[Round]:
    """Yield each round that this process trains; load, publish and evaluate as the task says.

    model: a torch module (plain, or wrapped in DDP or torch.compile) or a mapping of names to
    numpy arrays, changed in place. optimizer: its state is reset when a round begins. evaluate:
    model -> metrics by name; the key "samples" says over how many samples they are the mean.
    personal: a second model, this participant's own, which the body trains beside the first: it
    begins as the global one, is kept from accepted round to accepted round, and is never sent;
    personal_optimizer: its torch optimizer, whose steps are drawn to the global model (Ditto).
    Errors: ContractError if script and federation disagree, DataError for unusable numbers.
    """
    text = os.environ.get(TASK_ENV)
    if text is None:
        yield from _plain(model, evaluate, personal, personal_optimizer)
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
    home = Home(
        whole=weights_of(model),
        include=task.include,
        exclude=task.exclude,
        personal=None if personal is None else Personal(personal, personal_optimizer),
    )
    weights = home.weights
    session = Session(store=store, ranks=ranks, home=home)
    if task.role is Role.INIT:
        session.together(lambda: store.publish_untrained(weights))
        return
    store.load(weights)
    if home.kept:
        home.begin(store.memory(), session.together)
    if hasattr(optimizer, "state"):
        optimizer.state.clear()
    seeds.reseed(seeds.derive(task.seed, task.round, task.participant, ranks.rank))
    if task.role is Role.EVALUATE:
        session.evaluate(model, evaluate)
        return
    if task.role is Role.PERSONALIZE:
        yield from session.personalize(model, evaluate)
        return
    yield from session.train()


@dataclass(slots=True, kw_only=True)
class Session:
    """One task carried out by the ranks of one participant, who all end the same way."""

    store: Store
    ranks: Ranks
    home: Home
    submitted: bool = False
    state: State = field(default_factory=State)

    @property
    def weights(self) -> Weights:
        """Of the model, what travels."""
        return self.home.weights

    def train(self) -> Iterator[Round]:
        """Yield the round, and insist that it was submitted."""
        task = self.store.task
        # Rank 0 reads it for all: of several nodes' scratch, its own is where it was saved.
        self.state = self.together(lambda: self.store.memory().state())
        proximal = self.weights.proximal(task.proximal)
        self.home.pull(task)
        rnd = Round(
            number=task.round,
            participant=task.participant,
            parameters=MappingProxyType(dict(task.parameters)),
            seed=seeds.derive(task.seed, task.round, task.participant),
            deadline=task.deadline,
            state=self.state,
            _proximal=proximal,
            _personal=self.home.personal,
            _submit=self.submit,
        )
        yield from self._entered(rnd)
        if task.proximal and not proximal.asked and self.ranks.rank == 0:
            _say(UNUSED)

    def _entered(self, rnd: Round) -> Iterator[Round]:
        """Have the script run the body, and insist on its submit."""
        try:
            yield rnd
        except GeneratorExit:  # a `break`, after which nothing of ours runs
            if not self.submitted:
                outcome.of_exception(_no_submit(), self.ranks.rank).leave()
            raise
        finally:
            self.home.end()
        if not self.submitted:
            rnd._submit(_no_submit())

    def submit(self, told: Submission | FedtrainError) -> None:
        """Compare what the ranks say, and publish on rank 0; collective."""
        submission = self._agreed(told)
        kept = self.home.kept
        self.together(lambda: self.store.publish_update(self.weights, submission, self.state, kept))

    def _agreed(self, told: Submission | FedtrainError) -> Submission:
        """What all ranks hand in; once."""
        if self.submitted:
            raise ContractError("SubmittedTwice", "rnd.submit(...) was called twice in one round")
        self.submitted = True
        return agree(self.ranks.gather(told), self.ranks.rank)

    def evaluate(self, model: Any, evaluate: Evaluate | None) -> None:
        """Measure the global model on every rank; rank 0's metrics are what counts."""
        started = time.monotonic()
        metrics, samples = self._measured(model, evaluate)
        submission = Submission(
            samples=samples, metrics=metrics, seconds=time.monotonic() - started
        )
        self.together(lambda: self.store.publish_evaluation(submission))

    def personalize(self, model: Any, evaluate: Evaluate | None) -> Iterator[Round]:
        """Yield the global model once more, to be trained for this participant alone.

        Measured before and after; only the metrics are published. For the script it is the round
        after the last, with `final` set.
        """
        task = self.store.task
        before, _ = self._measured(model, evaluate)
        number = task.round + 1
        # Whatever evaluate() drew must not decide how the training goes.
        seeds.reseed(seeds.derive(task.seed, number, task.participant, self.ranks.rank))
        self.home.pull(task)

        def submit(told: Submission | FedtrainError) -> None:
            submission = self._agreed(told)
            after, samples = self._measured(model, evaluate)
            final = replace(submission, metrics=after, samples=samples)
            self.together(lambda: self._publish_personal(final, before))

        rnd = Round(
            number=number,
            participant=task.participant,
            parameters=MappingProxyType(dict(task.parameters)),
            seed=seeds.derive(task.seed, number, task.participant),
            deadline=task.deadline,
            state=self.together(lambda: self.store.memory().state()),
            final=True,
            _proximal=self.weights.proximal(0),
            _personal=self.home.personal,
            _submit=submit,
        )
        yield from self._entered(rnd)

    def _publish_personal(self, submission: Submission, before: Mapping[str, float]) -> None:
        metrics = {"before": before, "after": submission.metrics}
        self.home.publish(self.store.memory(), metrics)
        self.store.publish_personalization(submission, before)

    def _measured(self, model: Any, evaluate: Evaluate | None) -> tuple[dict[str, float], int]:
        """Metrics of the model, and of the personal model, if there is one, as `personal_...`."""
        if evaluate is None:
            sentence = "an evaluation is asked for: pass evaluate= to rounds(...)"
            raise ContractError("NoEvaluate", sentence)
        metrics, samples = measured(evaluate(model))
        if self.home.personal is not None:
            own, _ = measured(evaluate(self.home.personal.model))
            named = {f"personal_{name}": value for name, value in own.items()}
            metrics = checked_metrics({**metrics, **named})
        return metrics, samples

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


def _plain(
    model: Any, evaluate: Evaluate | None, personal: Any, personal_optimizer: Any
) -> Iterator[Round]:
    """Outside a federation: one round, whose result is said and not published."""
    ranks = collective.join(torch_model=not isinstance(model, Mapping))
    seeds.reseed(seeds.derive(0, 1, "local", ranks.rank))

    def submit(told: Any) -> None:
        submission = agree(ranks.gather(told), ranks.rank)
        if ranks.rank == 0:
            _say(f"trained on {submission.samples} samples {_shown(submission.metrics)}")

    yield Round(
        number=1,
        participant="local",
        parameters=MappingProxyType({}),
        seed=seeds.derive(0, 1, "local"),
        deadline=None,
        state=State(),
        _proximal=without_term(model),
        _personal=None if personal is None else Personal(personal, personal_optimizer),
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
