"""One task of a participant, from the global model to what it publishes; see `fedtrain.loop`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar, cast

from fedtrain import errors, looks, midround, outcome, seeds
from fedtrain.contract import ParticipantTask, Role
from fedtrain.control import Control, remembered
from fedtrain.correction import Correction, NoCorrection
from fedtrain.errors import ContractError, FedtrainError
from fedtrain.home import Home
from fedtrain.kept import Kept
from fedtrain.log import say
from fedtrain.meeting import Meeting
from fedtrain.proximal import UNUSED, Proximal
from fedtrain.round import Round
from fedtrain.state import State
from fedtrain.store import Store, Submission
from fedtrain.told import agree, checked_metrics, measured, submitted_twice
from fedtrain.weights import Tiles, Weights

Evaluate = Callable[[Any], Mapping[str, Any]]
T = TypeVar("T")


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
            self.evaluate(evaluate)
        elif task.role is Role.PERSONALIZE:
            yield from self.personalize(evaluate)
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
        proximal = self.weights.proximal(task.proximal)
        correction = self._correction(proximal)
        self.home.pull(task)
        rnd = self._round(task.round, self.submit, proximal=proximal, correction=correction)
        yield from self._entered(rnd)
        if task.proximal and not proximal.asked and self.ranks.rank == 0:
            say(UNUSED)

    def _round(
        self,
        number: int,
        submit: Callable[[Submission | FedtrainError], None],
        *,
        proximal: Proximal,
        correction: Correction,
        final: bool = False,
    ) -> Round:
        task = self.store.task
        return Round(
            number=number,
            participant=task.participant,
            parameters=MappingProxyType(dict(task.parameters)),
            seed=seeds.derive(task.seed, number, task.participant),
            deadline=task.deadline,
            state=self.state,
            final=final,
            unit=task.unit,
            _midround=midround.of(task, self.model, self.ranks, self._begin_again),
            _proximal=proximal,
            _personal=self.home.personal,
            _submit=submit,
            _correction=correction,
        )

    def _entered(self, rnd: Round) -> Iterator[Round]:
        """Have the script run the body, insist on its submit, and leave nothing of the round."""
        try:
            yield rnd
            if not self.submitted:
                rnd._submit(_no_submit())
        except GeneratorExit:  # a `break`, after which nothing of ours runs
            # Or the interpreter's end, after an exception, where the script holds the generator.
            if not self.submitted and not rnd._midround.ended:
                outcome.of_exception(_no_submit(), self.ranks.rank).leave(over_another=False)
            raise
        finally:
            self.home.end()
            rnd._correction.detach()
            rnd._midround.close(submitted=self.published)

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
            raise submitted_twice()
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

    def evaluate(self, evaluate: Evaluate | None) -> None:
        """Measure the global model on every rank; rank 0's metrics are what counts."""
        started = time.monotonic()
        metrics, samples = self._measured(evaluate)
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

    def personalize(self, evaluate: Evaluate | None) -> Iterator[Round]:
        """Yield the global model once more, to be trained for this participant alone.

        Measured before and after; only the metrics are published. For the script it is the round
        after the last, with `final` set.
        """
        task = self.store.task
        before, _ = self._measured(evaluate)
        number = task.round + 1
        # Whatever evaluate() drew must not decide how the training goes.
        seeds.reseed(seeds.derive(task.seed, number, task.participant, self.ranks.rank))
        self.home.pull(task)

        def submit(told: Submission | FedtrainError) -> None:
            submission = self._agreed(told)
            after, samples = self._measured(evaluate)
            final = replace(submission, metrics=after, samples=samples)
            receipt = self.together(lambda: self._publish_personal(final, before))
            self.done(task, receipt)
            self.published = True

        self.state = self.together(lambda: self.store.memory().state())
        proximal = self.weights.proximal(0)
        yield from self._entered(
            self._round(number, submit, proximal=proximal, correction=NoCorrection(), final=True)
        )

    def _publish_personal(self, submission: Submission, before: Mapping[str, float]) -> str:
        metrics = {"before": before, "after": submission.metrics}
        self.home.publish(self.store.memory(), metrics)
        return self.store.publish_personalization(submission, before)

    def _measured(self, evaluate: Evaluate | None) -> tuple[dict[str, float], int]:
        """Metrics of the model, and of the personal model, if there is one, as `personal_...`."""
        if evaluate is None:
            sentence = "an evaluation is asked for: pass evaluate= to rounds(...)"
            raise ContractError("NoEvaluate", sentence)
        metrics, samples = measured(evaluate(self.model))
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


def _no_submit() -> ContractError:
    return ContractError("NoSubmit", outcome.NO_SUBMIT)
