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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar, cast

from fedtrain import collective, errors, looks, memory, midround, outcome, resident, seeds
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
    result_of,
)
from fedtrain.control import Control, remembered
from fedtrain.correction import Correction, NoCorrection, Steps
from fedtrain.ditto import Personal
from fedtrain.errors import ContractError, DataError, FedtrainError
from fedtrain.home import Home
from fedtrain.kept import Kept
from fedtrain.meeting import Meeting
from fedtrain.midround import Midround
from fedtrain.models import weights_of, without_term
from fedtrain.proximal import UNUSED, Proximal
from fedtrain.state import State
from fedtrain.store import Store, Submission
from fedtrain.weights import Tiles, Weights

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
    rank may set it, rank 0's is saved with the submit, and all ranks begin with the same. unit:
    what `samples` is to count: "Samples", "Tokens", or "Uniform" (then nobody looks). final:
    True after the last round, where a participant trains the global model for itself alone.
    """

    number: int
    participant: str
    parameters: Mapping[str, Any]
    seed: int
    deadline: float | None
    state: State
    unit: str = "Samples"
    _midround: Midround = field(repr=False)
    final: bool = False
    _proximal: Proximal = field(repr=False)
    _personal: Personal | None = field(repr=False, default=None)
    _submit: Callable[[Submission | FedtrainError], None] = field(repr=False)
    _correction: Correction = field(repr=False, default_factory=NoCorrection)
    _entered: float = field(repr=False, default_factory=time.monotonic)

    def submit(
        self,
        *,
        samples: int,
        metrics: Mapping[str, Any] | None = None,
        steps: int = 0,
        learning_rate: float | None = None,
        momentum: float = 0.0,
    ) -> None:
        """Hand in what was trained: once, by all ranks together.

        samples: the *participant's* total over all ranks, in the unit of `spec.weight`. steps:
        optimizer steps taken. learning_rate, momentum: of SGD, where a script of numpy arrays is
        part of SCAFFOLD or FedNova; of a torch optimizer they are counted. Raises ContractError or
        DataError, on every rank the same.
        """
        self._midround.submitting()
        seconds = time.monotonic() - self._entered
        try:
            count = _samples(samples)
            said = Steps(steps=operator.index(steps), learning_rate=learning_rate)
            took = self._correction.counted(said, momentum)
            told: Submission | FedtrainError = Submission(
                samples=count,
                steps=took.steps,
                learning_rate=took.learning_rate,
                norm=took.norm,
                seconds=seconds,
                metrics=checked_metrics(metrics or {}),
            )
        except FedtrainError as error:
            told = error
        self._submit(told)

    def attach(self, optimizer: Any) -> None:
        """As `rounds(optimizer=optimizer)`, for one that is made in the body of the loop.

        What the strategy adds to gradients (FedProx, SCAFFOLD) is added in its steps, and the steps
        are counted (SCAFFOLD, FedNova), until the round is over; with other strategies nothing
        happens. Raises ContractError for an optimizer that the strategy is not defined for.
        """
        self._correction.attach(optimizer)

    def gradient_terms(self) -> dict[str, Any]:
        """What the strategy adds to the gradients of numpy arrays, by name; zeros if nothing.

        As the arrays are now: w −= learning_rate · (gradient + rnd.gradient_terms()["w"]).
        """
        return self._correction.added_to(self._proximal.gradients())

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

        For those who step without a torch.optim.Optimizer: where one is attached, the gradient is
        added in its steps, and this is zero. A scalar tensor with a gradient; zero, and free,
        unless the strategy is FedProx (Li et al. 2020, see `fedtrain.proximal`). Under DDP every
        rank adds the whole of it.
        """
        return self._proximal.term()

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
    files: Mapping[str, str] | None = None,
    personal: Any = None,
    personal_optimizer: Any = None,
) -> Iterator[Round]:
    """Yield each round that this process trains; load, publish and evaluate as the task says.

    model: a torch module (plain, wrapped in DDP or torch.compile, or sharded by fully_shard) or a
    mapping of names to numpy arrays, changed in place; of a PeftModel the adapter travels alone.
    optimizer: its state is reset when a round begins, and the strategy's part in the training
    takes place in its steps, see `Round.attach`. evaluate: model -> metrics by name; the key
    "samples" says over how many samples they are the mean. files: name -> text, what lies beside
    each global model, so that others can open it: config.json, tokenizer.json,
    adapter_config.json. personal: a second model, this participant's own, which the body trains
    beside the first: it begins as the global one, is kept from accepted round to accepted round,
    and is never sent; personal_optimizer: its torch optimizer, whose steps are drawn to the global
    model (Ditto).
    Errors: ContractError if script and federation disagree, DataError for unusable numbers.
    """
    text = os.environ.get(TASK_ENV)
    if text is None:
        yield from _plain(model, evaluate, personal, personal_optimizer)
        return
    _leave_the_outcome_of_any_exception()
    try:
        first = decode_task(text)
    except ValueError as error:
        raise ContractError("BadTask", str(error)) from error
    if not isinstance(first, ParticipantTask):
        raise ContractError("BadTask", f"{TASK_ENV} holds a {type(first).__name__}")
    root = Path(os.environ.get(ROOT_ENV, MOUNT))
    ranks = Meeting(collective.join(torch_model=not isinstance(model, Mapping)))
    work, kept = Work(root, first, ranks), Kept(model, optimizer, ranks)
    home: Home | None = None
    for task in work.tasks():
        store = Store(root=root, task=task)
        receipt = ranks.tell(store.published())  # rank 0's eyes, lest the ranks part ways
        if receipt is not None:
            _say(f"{task.output} has its receipt already: that is the result")
            work.done(task, receipt)
            continue
        home = home or Home(
            whole=weights_of(model, ranks, task.adapters),
            include=task.include,
            exclude=task.exclude,
            personal=None if personal is None else Personal(personal, personal_optimizer),
        )
        if home.whole.sharded:
            store = replace(store, ranks=ranks)
        session = Session(
            store=store,
            ranks=ranks,
            home=home,
            model=model,
            optimizer=optimizer,
            kept=kept,
            files=files,
            done=work.done,
        )
        yield from session.carried_out(evaluate)


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


@dataclass(slots=True, kw_only=True)
class Session:
    """One task carried out by the ranks of one participant, who all end the same way."""

    store: Store
    ranks: Meeting
    home: Home
    model: Any
    kept: Kept
    done: Callable[[ParticipantTask, str], None]
    """Told at once of what was published, so that others need not wait for the script's rest."""
    optimizer: Any = None
    files: Mapping[str, str] | None = None
    accepted: tuple[int, int] | None = None
    submitted: bool = False
    published: bool = False
    state: State = field(default_factory=State)
    control: Control | None = None

    def carried_out(self, evaluate: Evaluate | None) -> Iterator[Round]:
        """Do the task; yields only if it is to train."""
        task = self.store.task
        base = self.together(self.store.check_base_model)
        if task.role is Role.INIT:
            self.publish(lambda: self.store.publish_untrained(self.weights, self.files, base))
            return
        self._load()
        self.kept.reset()
        seeds.reseed(seeds.derive(task.seed, task.round, task.participant, self.ranks.rank))
        if task.role is Role.EVALUATE:
            self.evaluate(self.model, evaluate)
        elif task.role is Role.PERSONALIZE:
            yield from self.personalize(self.model, evaluate)
        else:
            yield from self.train()

    def _load(self) -> None:
        """The global model, and what of the model is this participant's own."""
        self.ranks.act(lambda: self.store.load(self.weights))
        if self.home.kept:
            self.home.begin(self.store.memory(), self.together)

    @property
    def weights(self) -> Weights:
        """Of the model, what travels."""
        return self.home.weights

    def train(self) -> Iterator[Round]:
        """Yield the round, and insist that it was submitted."""
        task = self.store.task
        # Rank 0 reads it for all: of several nodes' scratch, its own is where it was saved.
        self.state = self.together(lambda: self.store.memory().state())
        self.accepted = self.together(lambda: self.store.memory().accepted)
        self.kept.begin(task, self.accepted)
        middle = midround.of(task, self.model, self.ranks, self._begin_again)
        proximal = self.weights.proximal(task.proximal)
        correction = self._correction(proximal)
        self.home.pull(task)
        rnd = Round(
            number=task.round,
            participant=task.participant,
            parameters=MappingProxyType(dict(task.parameters)),
            seed=seeds.derive(task.seed, task.round, task.participant),
            deadline=task.deadline,
            state=self.state,
            unit=task.unit,
            _midround=middle,
            _proximal=proximal,
            _personal=self.home.personal,
            _submit=self.submit,
            _correction=correction,
        )
        try:
            yield from self._entered(rnd)
        finally:
            correction.detach()
            middle.close(submitted=self.published)
        if task.proximal and not proximal.asked and self.ranks.rank == 0:
            _say(UNUSED)

    def _entered(self, rnd: Round) -> Iterator[Round]:
        """Have the script run the body, and insist on its submit."""
        try:
            yield rnd
        except GeneratorExit:  # a `break`, after which nothing of ours runs
            if not self.submitted and not rnd._midround.ended:
                outcome.of_exception(_no_submit(), self.ranks.rank).leave()
            raise
        finally:
            self.home.end()
        if not self.submitted:
            rnd._submit(_no_submit())

    def submit(self, told: Submission | FedtrainError) -> None:
        """Compare what the ranks say, and publish on rank 0; collective."""
        submission = self._agreed(told)
        self.kept.save(self.store.task, self.accepted)
        control = () if self.control is None else (self.control.after(submission),)
        kept = (*self.home.kept, *control)
        self.publish(lambda: self.store.publish_update(self.weights, submission, self.state, kept))
        self.published = True

    def _agreed(self, told: Submission | FedtrainError) -> Submission:
        """What all ranks hand in; once."""
        if self.submitted:
            raise ContractError("SubmittedTwice", "rnd.submit(...) was called twice in one round")
        self.submitted = True
        told_by_all = self.ranks.gather(told)
        looks.agree(told_by_all)
        return agree(told_by_all, self.ranks.rank)

    def _begin_again(self) -> None:
        """As the round began: after a checkpoint that could not be used after all."""
        self._load()
        self.kept.begin(self.store.task, self.accepted)

    def _correction(self, proximal: Proximal) -> Correction:
        """The strategy's part in this round, attached to the optimizer that `rounds` was given."""
        drift: Iterable[tuple[str, Tiles]] = ()
        if self.store.task.strategy == "SCAFFOLD":
            if self.weights.sharded:
                sentence = "SCAFFOLD: a sharded model has no control variates yet; use DDP"
                raise ContractError("ModelUnsupported", sentence)
            memory = self.store.memory()
            known = self.together(lambda: remembered(memory))
            self.control = Control(
                store=self.store, memory=memory, weights=self.weights, remembered=known
            )
            drift = self.control.drift()
        correction = self.weights.correction(self.store.task.strategy, proximal, drift)
        if self.optimizer is not None:
            correction.attach(self.optimizer)
        return correction

    def evaluate(self, model: Any, evaluate: Evaluate | None) -> None:
        """Measure the global model on every rank; rank 0's metrics are what counts."""
        started = time.monotonic()
        metrics, samples = self._measured(model, evaluate)
        submission = Submission(
            samples=samples, metrics=metrics, seconds=time.monotonic() - started
        )
        receipt = self.together(lambda: self.store.publish_evaluation(submission))
        self.done(self.store.task, receipt)

    def publish(self, act: Callable[[], str]) -> None:
        """Publish where the model is: on all ranks if it is sharded, else on rank 0.

        act: gives the receipt that counts.
        """
        receipt = self.ranks.act(act) if self.weights.sharded else self.together(act)
        self.done(self.store.task, receipt)

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
            receipt = self.together(lambda: self._publish_personal(final, before))
            self.done(task, receipt)

        rnd = Round(
            number=number,
            participant=task.participant,
            parameters=MappingProxyType(dict(task.parameters)),
            seed=seeds.derive(task.seed, number, task.participant),
            deadline=task.deadline,
            state=self.together(lambda: self.store.memory().state()),
            final=True,
            unit=task.unit,
            _midround=midround.of(task, self.model, self.ranks, self._begin_again),
            _proximal=self.weights.proximal(0),
            _personal=self.home.personal,
            _submit=submit,
        )
        yield from self._entered(rnd)

    def _publish_personal(self, submission: Submission, before: Mapping[str, float]) -> str:
        metrics = {"before": before, "after": submission.metrics}
        self.home.publish(self.store.memory(), metrics)
        return self.store.publish_personalization(submission, before)

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
