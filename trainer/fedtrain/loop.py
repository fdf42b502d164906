"""`rounds`: the loop that turns an ordinary training script into a participant of a federation.

    for rnd in rounds(model, optimizer=optimizer, evaluate=evaluate):
        ...                                     # an ordinary training loop
        rnd.submit(samples=len(data), metrics={"loss": loss})

What the process is there for comes from `FEDTRAIN_TASK`: it publishes untrained weights, trains one
round or many, or evaluates; without a task it is a plain local run. The script never learns which.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from fedtrain import collective, midround, outcome, seeds
from fedtrain.contract import MOUNT, ROOT_ENV, TASK_ENV, ParticipantTask, decode_task
from fedtrain.ditto import Personal
from fedtrain.errors import ContractError
from fedtrain.home import Home
from fedtrain.kept import Kept
from fedtrain.log import say
from fedtrain.meeting import Meeting
from fedtrain.models import weights_of, without_term
from fedtrain.round import Round
from fedtrain.session import Evaluate, Session
from fedtrain.state import State
from fedtrain.store import Store
from fedtrain.told import agree, measured, submitted_twice
from fedtrain.work import Work


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
            say(f"{task.output} has its receipt already: that is the result")
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


def _plain(
    model: Any, evaluate: Evaluate | None, personal: Any, personal_optimizer: Any
) -> Iterator[Round]:
    """Outside a federation: one round, whose result is said and not published."""
    ranks = collective.join(torch_model=not isinstance(model, Mapping))
    seeds.reseed(seeds.derive(0, 1, "local", ranks.rank))

    submitted = False

    def submit(told: Any) -> None:
        nonlocal submitted
        if submitted:
            raise submitted_twice()
        submitted = True
        submission = agree(ranks.gather(told), ranks.rank)
        if ranks.rank == 0:
            say(f"trained on {submission.samples} samples {_shown(submission.metrics)}".rstrip())

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
    if not submitted and ranks.rank == 0:
        say(f"in a federation this fails (NoSubmit): {outcome.NO_SUBMIT}")
    if evaluate is not None:
        metrics, _ = measured(evaluate(model))
        if ranks.rank == 0:
            say(f"evaluated {_shown(metrics)}".rstrip())


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
