"""The processes of pods that stay: the real hub, and the participant's real end of its line.

Both are forked from the zygote and know the scenario by its name; what their tasks come to is the
scenario's, everything else is the program's own code.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtrain import contract, resident
from fedtrain.aggregation import hub as hubs
from fedtrain.aggregation import process
from fedtrain.contract import Exit, Message, ParticipantTask
from tests.faults.scenarios import SCENARIOS, Outcome, result

DISRUPTED = 99
"""The exit code of a process whose pod is lost."""

FOREVER = 3600.0


def hub(scenario: str) -> int:
    """The preparation, which stays. Its task and its address are in the environment."""

    def attempted(environment: Mapping[str, str]) -> tuple[Exit, Message]:
        told = json.loads(environment[contract.TASK_ENV])
        if told["role"] == "prepare":
            return process.attempted(environment)
        outcome = SCENARIOS[scenario].outcome(told)
        time.sleep(_lasting(outcome))
        if outcome.code:
            return Exit(outcome.code), Message(reason=outcome.reason, message="as it was written")
        return Exit.OK, Message(result=result(told, outcome))

    code, message = process.attempted(os.environ)
    if code is not Exit.OK:
        print(message, flush=True)
        return int(code)
    hubs.stay(os.environ, message, attempted)
    return 0


def participant(scenario: str) -> int:
    """One task after the other, until the hub says that there are no more."""
    task: ParticipantTask | None = _own_task()
    assert task is not None, "made for a first one"
    root = Path(os.environ[contract.ROOT_ENV])
    line = resident.line_of_this_process(root, task, rank=0)
    assert line is not None, "one that stays has a hub"
    while task is not None:
        told: dict[str, Any] = json.loads(contract.encode_task(task))
        outcome = SCENARIOS[scenario].outcome(told)
        line.ready(task)
        time.sleep(_lasting(outcome))
        if outcome.disrupted or outcome.code:
            return DISRUPTED if outcome.disrupted else outcome.code
        line.done(task, result(told, outcome))
        task = line.next()
    return 0


def _own_task() -> ParticipantTask:
    task = contract.decode_task(os.environ[contract.TASK_ENV])
    assert isinstance(task, ParticipantTask), "the hub's is another role"
    return task


def _lasting(outcome: Outcome) -> float:
    """Processes see no records: long enough to be seen is what they can be."""
    if outcome.seen:
        return 1.2
    return FOREVER if outcome.seconds is None else outcome.seconds
