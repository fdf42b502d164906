"""The Transformers Trainer as a participant: both modes, whoever's process a round is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import StepLR

transformers = pytest.importorskip("transformers")
from fedtrain import Round, hf, rounds  # noqa: E402
from fedtrain.contract import ParticipantTask, Receipt  # noqa: E402
from fedtrain.errors import ContractError, DataError  # noqa: E402
from fedtrain.tensorfile import TensorFile  # noqa: E402

EVERY = 6
WHOLE = 4 * EVERY
RATE = 1e-2
SGD_RATE = 0.3
PLAIN_SGD = {
    "optim": "sgd",
    "learning_rate": SGD_RATE,
    "train_sampling_strategy": "sequential",
    "max_grad_norm": 0,
}
Model = dict[str, np.ndarray]


def a_model(dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            vocab_size=32,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=16,
            attention_dropout=dropout,
        )
    )


def text(count: int = 26, length: int = 8) -> list[dict[str, Any]]:
    drawn = torch.randint(0, 32, (count, length), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": one, "labels": one} for one in drawn]


def a_trainer(folder: Path, *, dropout: float = 0.0, **options: Any) -> Any:
    """options: of the Trainer or of its arguments."""
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "learning_rate": RATE,
        "max_steps": WHOLE,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 4,
    }
    given: dict[str, Any] = {"model": a_model(dropout), "train_dataset": text()}
    given["eval_dataset"] = text(5)
    for name, value in options.items():
        of_trainer = name in ("train_dataset", "eval_dataset", "optimizers", "callbacks", "model")
        (given if of_trainer or name == "model_init" else arguments)[name] = value
    return transformers.Trainer(args=transformers.TrainingArguments(**arguments), **given)


class Participant:
    """Participant north, to whom the tasks of a federation are given one after the other."""

    def __init__(self, federation: Any, folder: Path) -> None:
        self.exchange, self._perform, self._folder = federation.exchange, federation.perform, folder

    def trainer(self, **options: Any) -> Any:
        return a_trainer(self._folder, **options)

    def tasks(self, *numbers: int, attempt: int = 1, **changes: Any) -> list[ParticipantTask]:
        train = self.exchange.train
        return [train(round=number, attempt=attempt, **changes) for number in numbers]

    def perform(
        self, mode: Callable[[Any], None], trainer: Any, *tasks: ParticipantTask
    ) -> list[tuple[Model, Receipt]]:
        """Each task as a call of its own, of one trainer; what they handed in."""
        for task in tasks:
            self._perform(task)
            mode(trainer)
        return [self.update(task) for task in tasks]

    def live_through(self, *tasks: ParticipantTask) -> Callable[..., Iterator[Round]]:
        """`rounds` as a process sees it that lives through all of the tasks."""

        def yielded(*given: Any, **named: Any) -> Iterator[Round]:
            for task in tasks:
                self._perform(task)
                yield from rounds(*given, **named)

        return yielded

    def update(self, task: ParticipantTask) -> tuple[Model, Receipt]:
        with TensorFile.open(self.exchange.root / task.output / "update.safetensors") as file:
            update = {name: file.read(name) for name in file.tensors}
        return update, self.exchange.receipt(task)

    def metrics(self, mode: Callable[[Any], None], trainer: Any) -> Receipt:
        task = self.exchange.evaluate()
        self._perform(task)
        mode(trainer)
        receipt: Receipt = self.exchange.receipt(task)
        return receipt


@pytest.fixture
def north(federation: Any, tmp_path: Path) -> Participant:
    federation.begin(a_model())
    return Participant(federation, tmp_path / "trainer")


def each(trainer: Any) -> None:
    hf.train_each_round(trainer)


def across(trainer: Any) -> None:
    hf.train_across_rounds(trainer, every=EVERY)


BOTH = pytest.mark.parametrize("mode", [each, across])


def learned(steps: range, whole: int) -> tuple[Model, float]:
    """What a plain loop of SGD over the text makes of the first global model, and its mean loss."""
    model, data, losses = a_model(), text(), []
    begin = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [data[start : start + 4] for start in range(0, len(data), 4)]
    for number, step in enumerate(steps):
        ids = torch.stack([one["input_ids"] for one in batches[number % len(batches)]])
        loss = model(input_ids=ids, labels=ids).loss
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= SGD_RATE * (1 - step / whole) * parameter.grad
        losses.append(loss.item())
    after = model.state_dict()
    return {name: (after[name] - begin[name]).numpy() for name in begin}, sum(losses) / len(losses)


def distance(one: Model, other: Model) -> float:
    """The largest relative distance of a tensor, by its norm."""
    assert one.keys() == other.keys()
    return max(
        float(np.linalg.norm(one[name].ravel() - other[name].ravel()) / np.linalg.norm(other[name]))
        for name in other
    )


def same(one: Model, other: Model) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_each_round_is_a_train_of_its_own_as_a_plain_loop_would_do_it(north: Participant) -> None:
    trainer = north.trainer(**PLAIN_SGD, max_steps=9)
    expected, loss = learned(range(9), whole=9)
    for update, receipt in north.perform(each, trainer, *north.tasks(1, 2)):
        assert distance(update, expected) < 1e-5  # the second begins with a fresh schedule
        assert receipt.metrics["loss"] == pytest.approx(loss, rel=1e-5)
        assert (receipt.steps, receipt.samples) == (9, 26)


def test_across_rounds_the_schedule_goes_on_where_the_federation_is(north: Participant) -> None:
    handed_in = north.perform(across, north.trainer(**PLAIN_SGD), *north.tasks(1, 2, 4))
    for number, (update, receipt) in zip((1, 2, 4), handed_in, strict=True):
        steps = range((number - 1) * EVERY, number * EVERY)
        expected, loss = learned(steps, whole=WHOLE)
        assert distance(update, expected) < 1e-5
        assert receipt.metrics["loss"] == pytest.approx(loss, rel=1e-5)
        assert (receipt.steps, receipt.samples) == (EVERY, 26)


@BOTH
def test_one_process_for_all_rounds_and_one_for_each_hand_in_the_same(
    north: Participant, mode: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"dropout": 0.3, "gradient_accumulation_steps": 2}
    apart = [
        north.perform(mode, north.trainer(**options), task)[0] for task in north.tasks(1, 3, 4)
    ]
    together = north.tasks(1, 3, 4, attempt=2)
    monkeypatch.setattr(hf, "rounds", north.live_through(*together))
    trainer = north.trainer(**options)
    mode(trainer)
    for (update, receipt), task in zip(apart, together, strict=True):
        again, said = north.update(task)
        assert same(update, again)
        assert (receipt.metrics, receipt.samples) == (said.metrics, said.samples)
    assert not same(apart[0][0], apart[1][0])  # another order of the data, other dropout
    if mode is across:
        assert trainer.state.global_step == 4 * EVERY


@BOTH
def test_a_process_that_has_nothing_to_train_publishes_and_measures(
    north: Participant, mode: Callable[[Any], None]
) -> None:
    receipt = north.metrics(mode, north.trainer())
    with torch.no_grad():
        ids = torch.stack([one["input_ids"] for one in text(5)])
        loss = a_model()(input_ids=ids, labels=ids).loss.item()
    assert receipt.samples == 5
    assert dict(receipt.metrics) == {"loss": pytest.approx(loss, rel=1e-5)}


def test_several_sets_are_measured_by_name(north: Participant) -> None:
    receipt = north.metrics(each, north.trainer(eval_dataset={"long": text(4), "short": text(3)}))
    assert receipt.samples == 7
    assert receipt.metrics.keys() == {"long_loss", "short_loss"}


@BOTH
def test_weight_by_tokens_counts_those_of_the_round(
    north: Participant, mode: Callable[[Any], None]
) -> None:
    data = [one | {"attention_mask": torch.arange(8) < 5} for one in text(24)]
    trainer = north.trainer(train_dataset=data, max_steps=6 if mode is each else WHOLE)
    for _, receipt in north.perform(mode, trainer, *north.tasks(1, 2, unit="Tokens")):
        assert receipt.samples == 6 * 4 * 5


class Endless(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from text()


@BOTH
def test_a_dataset_without_a_length_counts_by_what_was_trained_on(
    north: Participant, mode: Callable[[Any], None]
) -> None:
    trainer = north.trainer(train_dataset=Endless(), max_steps=6 if mode is each else WHOLE)
    for _, receipt in north.perform(mode, trainer, *north.tasks(1, 2)):
        assert receipt.samples == 6 * 4


class Enough(transformers.TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step % EVERY == 2


def test_a_callback_that_stops_the_training_ends_its_round_early(
    north: Participant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = north.tasks(1, 2)
    monkeypatch.setattr(hf, "rounds", north.live_through(*tasks))
    across(north.trainer(callbacks=[Enough()]))
    assert [north.update(task)[1].steps for task in tasks] == [2, 2]


def test_a_round_beyond_the_schedule_is_refused(north: Participant) -> None:
    with pytest.raises(ContractError, match=r"round 5 ends at step 30;.*max_steps=24") as caught:
        north.perform(across, north.trainer(), *north.tasks(5))
    assert caught.value.reason == "ScheduleTooShort"


def test_a_schedule_that_is_not_a_function_of_the_step_is_refused(north: Participant) -> None:
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = north.trainer(model=model, optimizers=(optimizer, StepLR(optimizer, 5)))
    for mode in (each, across):
        with pytest.raises(ContractError, match="StepLR") as caught:
            north.perform(mode, trainer, *north.tasks(1))
        assert caught.value.reason == "BadSchedule"
    with pytest.raises(ContractError, match="every=0"):
        hf.train_across_rounds(trainer, every=0)
    with pytest.raises(ContractError, match="max_steps=-1"):
        across(north.trainer(max_steps=-1))


def test_data_that_fill_no_batch_are_said_to_be_none(north: Participant) -> None:
    trainer = north.trainer(train_dataset=text(3), dataloader_drop_last=True)
    with pytest.raises(DataError, match="a single batch"):
        north.perform(across, trainer, *north.tasks(1))


def test_a_trainer_whose_model_the_federation_would_not_see_is_refused(north: Participant) -> None:
    trainer = north.trainer(model=None, model_init=a_model)
    with pytest.raises(ContractError, match="model_init"):
        north.perform(each, trainer, *north.tasks(1))
    trainer = north.trainer()
    trainer.is_deepspeed_enabled = True  # as the Trainer finds it, where DeepSpeed is installed
    with pytest.raises(ContractError, match="ZeRO-3") as caught:
        north.perform(across, trainer, *north.tasks(1))
    assert caught.value.reason == "DeepSpeedUnsupported"


def test_the_trainer_is_left_as_it_was(north: Participant) -> None:
    trainer = north.trainer()
    north.perform(across, trainer, *north.tasks(1))
    assert not any(isinstance(one, hf._Exchange) for one in trainer.callback_handler.callbacks)
    assert trainer.accelerator._dataloaders == []
    assert len(trainer.get_train_dataloader()) == 7


RANKS = """\
import sys
sys.path.insert(0, {folder!r})
from test_hf import EVERY, PLAIN_SGD, a_trainer
from fedtrain import hf
trainer = a_trainer({output!r}, **PLAIN_SGD, **{options!r})
hf.train_across_rounds(trainer, every=EVERY)
assert trainer.accelerator.num_processes == {processes}
"""


def handed_in_by_ranks(
    north: Participant, folder: Path, processes: int, **options: Any
) -> tuple[Model, Receipt]:
    """Of round 2, by a torchrun of so many processes, who share batches of four."""
    options |= {"per_device_train_batch_size": 4 // processes}
    script = RANKS.format(
        folder=str(Path(__file__).parent),
        output=str(folder),
        options=options,
        processes=processes,
    )
    (task,) = north.tasks(2)
    ended = north.exchange.run(script, task, processes=processes, env={"OMP_NUM_THREADS": "1"})
    assert ended.code == 0, ended.log
    return north.update(task)


@pytest.mark.processes
def test_two_ranks_learn_what_one_process_does(north: Participant, tmp_path: Path) -> None:
    update, receipt = handed_in_by_ranks(north, tmp_path / "ranks", 2)
    expected, loss = learned(range(EVERY, 2 * EVERY), whole=WHOLE)
    assert distance(update, expected) < 1e-5
    assert receipt.metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert (receipt.steps, receipt.samples) == (EVERY, 26)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("fsdp", [False, True])
def test_on_gpus_plain_or_sharded_it_learns_the_same(
    north: Participant, tmp_path: Path, fsdp: bool
) -> None:
    processes = 2 if torch.cuda.device_count() > 1 else 1
    options: dict[str, Any] = {"use_cpu": False} | ({"fsdp": True} if fsdp else {})
    update, receipt = handed_in_by_ranks(north, tmp_path / "ranks", processes, **options)
    expected, loss = learned(range(EVERY, 2 * EVERY), whole=WHOLE)
    assert distance(update, expected) < 1e-3  # other kernels
    assert receipt.metrics["loss"] == pytest.approx(loss, rel=1e-3)


def test_outside_a_federation_it_is_one_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDTRAIN_TASK", raising=False)
    trainer = a_trainer(tmp_path)
    across(trainer)
    assert trainer.state.global_step == EVERY
    assert "trained on 26 samples" in capsys.readouterr().err
