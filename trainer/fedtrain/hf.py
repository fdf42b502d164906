"""The Transformers `Trainer`, and with it PEFT, as a participant of a federation.

    from fedtrain import hf

    hf.train_each_round(trainer)                 # one trainer.train() per round
    hf.train_across_rounds(trainer, every=50)    # one long train(), which exchanges every 50 steps

In the first, everything that train() makes begins anew with the round: the schedule of the learning
rate, the order of the data, the count of steps. In the second these follow the federation: round n
trains the steps from (n-1)·every on of one schedule over `max_steps`, whether one process lives
through all rounds or each round has its own. The optimizer's state is the federation's business in
both, as for any script that gives its optimizer to `rounds`.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import has_length

from fedtrain import modeltexts
from fedtrain.errors import ContractError, DataError
from fedtrain.loop import rounds
from fedtrain.peftmodel import peft_model
from fedtrain.round import Round
from fedtrain.session import Evaluate

_TOO_SHORT = (
    "TrainingArguments(max_steps={}): it is the whole schedule, {} steps for each of spec.rounds, "
    "and for the last phase if there is personalization.fineTune"
)
_TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "preparation_time", "epoch")


def train_each_round(trainer: Trainer, *, evaluate: Evaluate | None = None) -> None:
    """Train one `trainer.train()` per round, by the trainer's own arguments, and hand it in.

    evaluate: as in `rounds`; left out, `trainer.evaluate()` if there is an `eval_dataset`. With
    weight.by Samples a participant counts by the length of its `train_dataset` (a dataset without
    one by what it trained on), with Tokens by the tokens it trained on. Raises ContractError for
    trainers that cannot take part.
    """
    given = trainer.lr_scheduler
    for rnd in _rounds(trainer, evaluate):
        _begin(trainer, rnd)
        if given is not None:  # one of the trainer's own making is made anew by train()
            _seek(given, 0)
        trainer.model_wrapped = trainer.model  # type: ignore[assignment]  # a new DDP each round
        steps = _Steps(rnd)
        trainer.add_callback(steps)
        try:
            result = trainer.train()
        finally:
            trainer.remove_callback(steps)
        rnd.submit(
            samples=_samples(trainer, rnd, result.global_step, trainer.state.num_input_tokens_seen),
            steps=result.global_step,
            metrics={"loss": result.training_loss},
        )


def train_across_rounds(trainer: Trainer, *, every: int, evaluate: Evaluate | None = None) -> None:
    """Train one long `trainer.train()` that exchanges after every `every` optimizer steps.

    `max_steps` of the trainer's arguments is the whole schedule, of all rounds together. A callback
    that stops the training ends its round early. What the trainer calls an epoch is a round.
    evaluate and samples: as in `train_each_round`. Raises ContractError as that does, and for a
    schedule that is too short, or that does not follow from the step alone.
    """
    if every < 1:
        raise ContractError("BadSchedule", f"every={every} is not a number of steps; use 1 or more")
    if trainer.args.max_steps < every:
        raise ContractError("ScheduleTooShort", _TOO_SHORT.format(trainer.args.max_steps, every))
    yielded = _rounds(trainer, evaluate)
    first = next(yielded, None)
    if first is None:  # there is nothing to train in this process
        return
    exchange = _Exchange(trainer, first, yielded, every)
    own = trainer.get_train_dataloader
    trainer.add_callback(exchange)
    trainer.get_train_dataloader = lambda: _Passes(trainer, own)  # type: ignore
    try:
        trainer.train()
    finally:
        trainer.get_train_dataloader = own  # type: ignore[method-assign]
        trainer.remove_callback(exchange)


class _Steps(TrainerCallback):
    """Says of each step, and of each batch of an evaluation, that this rank goes on."""

    def __init__(self, rnd: Round) -> None:
        self._round = rnd

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._round.step()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._round.alive()


class _Exchange(_Steps):
    """Between two rounds of one train(): submit, take the next, go to its place in the schedule."""

    def __init__(
        self, trainer: Trainer, first: Round, yielded: Iterator[Round], every: int
    ) -> None:
        super().__init__(first)
        self._trainer, self._yielded, self._every = trainer, yielded, every
        self._losses = _Losses(0)
        self._tokens = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._enter(state)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        set_seed(self._round.seed)  # whatever was drawn since: an evaluation, another's round

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._round.step()
        if state.global_step >= self._round.number * self._every or control.should_training_stop:
            control.should_log = True  # so that the loss of all its steps is known
            control.should_epoch_stop = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self._losses.add(given["logs"], state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        steps = state.global_step - (self._round.number - 1) * self._every
        tokens = state.num_input_tokens_seen - self._tokens
        self._round.submit(
            samples=_samples(self._trainer, self._round, steps, tokens),
            steps=steps,
            metrics=self._losses.metrics(),
        )
        following = next(self._yielded, None)
        control.should_training_stop = following is None
        if following is not None:
            self._round = following
            self._enter(state)

    def _enter(self, state: TrainerState) -> None:
        """Go to the round's first step, also from a round that this process had no part in."""
        trainer, begin = self._trainer, (self._round.number - 1) * self._every
        if begin + self._every > state.max_steps:
            raise ContractError(
                "ScheduleTooShort",
                f"round {self._round.number} ends at step {begin + self._every}; "
                + _TOO_SHORT.format(state.max_steps, self._every),
            )
        _begin(trainer, self._round)
        # train() remembers these two from before its callbacks could say where it begins.
        trainer._initial_global_step += begin - state.global_step
        trainer._globalstep_last_logged += begin - state.global_step
        state.global_step = begin
        _seek(trainer.lr_scheduler, begin)
        self._losses = _Losses(begin)
        self._tokens = state.num_input_tokens_seen


class _Losses:
    """The mean loss of a round's steps, from what the trainer logs of some of them at a time."""

    def __init__(self, begin: int) -> None:
        self._begin = self._end = begin
        self._sum = 0.0

    def add(self, logs: Mapping[str, Any], step: int) -> None:
        if "loss" in logs:
            self._sum += float(logs["loss"]) * (step - self._end)
            self._end = step

    def metrics(self) -> dict[str, float]:
        steps = self._end - self._begin
        return {"loss": self._sum / steps} if steps else {}


class _Passes:
    """One loader per round, gone through again and again: the exchange says when it is enough.

    It has no length on purpose, for then train() counts no epochs of its own.
    """

    def __init__(self, trainer: Trainer, make: Callable[[], Any]) -> None:
        self._trainer, self._make = trainer, make

    def __iter__(self) -> Iterator[Any]:
        prepared = self._trainer.accelerator._dataloaders
        loader = self._make()  # with the seed of the round
        try:
            while True:
                batches = 0
                for batch in loader:
                    batches += 1
                    yield batch
                if not batches:
                    raise DataError("NoSamples", "the train_dataset does not fill a single batch")
        finally:
            loader.end()  # accelerate would take one that was broken off for the one in use,
            prepared.remove(loader)  # and keep it, with its workers, for ever


def _rounds(trainer: Trainer, evaluate: Evaluate | None) -> Iterator[Round]:
    _refuse(trainer)
    files = _texts(trainer)
    optimizer = trainer.create_optimizer()  # made before the round, which resets or restores it
    if trainer.is_fsdp_enabled:  # sharded before the round, too: what train() finds is left alone
        prepared = trainer.accelerator.prepare(trainer.model, optimizer)
        trainer.model = trainer.model_wrapped = prepared[0]
    if evaluate is None and trainer.eval_dataset is not None:
        evaluate = lambda _: measured(trainer)  # noqa: E731
    return rounds(trainer.model, optimizer=optimizer, evaluate=evaluate, files=files)


def _texts(trainer: Trainer) -> dict[str, str]:
    """Config and tokenizer as they would be saved, so that others can open the global model."""
    adapted = peft_model(trainer.model)
    whole: Any = trainer.model
    with tempfile.TemporaryDirectory() as folder:
        if adapted is not None:
            adapted.peft_config[adapted.active_adapter].save_pretrained(folder)
        elif hasattr(whole, "save_pretrained"):
            config = copy.deepcopy(whole.config)
            config.architectures = [type(whole).__name__]
            config.save_pretrained(folder)
            if getattr(whole, "generation_config", None) is not None:
                whole.generation_config.save_pretrained(folder)
        if trainer.processing_class is not None:
            trainer.processing_class.save_pretrained(folder)
        files = sorted(Path(folder).iterdir())
        return {
            file.name: file.read_text(encoding="utf-8")
            for file in files
            if file.name.endswith(modeltexts.ENDINGS)
        }


def measured(trainer: Trainer) -> dict[str, Any]:
    """`trainer.evaluate()` as `rounds` wants it: without eval_ and timings, with the samples."""
    metrics: dict[str, Any] = {
        name.removeprefix("eval_"): value
        for name, value in trainer.evaluate().items()
        if not name.endswith(_TIMINGS) and isinstance(value, int | float)
    }
    tests: Any = trainer.eval_dataset
    several = list(tests.values()) if isinstance(tests, dict) else [tests]
    if all(map(has_length, several)):
        metrics["samples"] = sum(map(len, several))
    return metrics


def _refuse(trainer: Trainer) -> None:
    if trainer.is_deepspeed_enabled:
        raise ContractError(
            "DeepSpeedUnsupported",
            "the Trainer uses DeepSpeed, which keeps the weights where a global model does not "
            "reach them (ZeRO-3 in pieces, ZeRO-1 and 2 as copies in its optimizer); use DDP, or "
            "FSDP2 by TrainingArguments(fsdp=True)",
        )
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise ContractError(
            "ModelUnsupported",
            "the Trainer uses the first FSDP, whose flat parameters have no names; use FSDP2 by "
            "TrainingArguments(fsdp=True, fsdp_config={'version': 2})",
        )
    if trainer.model_init is not None:
        raise ContractError(
            "ModelUnsupported",
            "Trainer(model_init=...) builds another model in each train(), which the federation "
            "does not see; pass model= instead",
        )


def _begin(trainer: Trainer, rnd: Round) -> None:
    """Leave the trainer as a process of this round's own would have it."""
    # All ranks alike, as the Trainer does it: its samplers count on drawing the same order.
    set_seed(rnd.seed)
    trainer.accelerator.dataloader_config.data_seed = rnd.seed
    if rnd.unit == "Tokens" and trainer.args.include_num_input_tokens_seen == "no":
        trainer.args.include_num_input_tokens_seen = "non_padding"


def _samples(trainer: Trainer, rnd: Round, steps: int, tokens: int) -> int:
    """The participant's total in the unit of `spec.weight`, over all its ranks."""
    if rnd.unit == "Tokens":
        return tokens
    if has_length(trainer.train_dataset):
        return len(trainer.train_dataset)
    return steps * trainer.get_total_train_batch_size(trainer.args)


def _seek(scheduler: Any, step: int) -> None:
    """Put a schedule of the learning rate where it is after `step` steps, forwards or back."""
    if not isinstance(scheduler, LambdaLR):
        raise ContractError(
            "BadSchedule",
            f"{type(scheduler).__name__}: in a federation the learning rate follows from the step "
            "alone; use an lr_scheduler_type that does, or a LambdaLR",
        )
    scheduler.last_epoch = step - 1
    with warnings.catch_warnings():  # torch sees no optimizer step before it, and warns
        warnings.simplefilter("ignore", UserWarning)
        scheduler.step()  # in any case: the rates may have been reset together with the optimizer
