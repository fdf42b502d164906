"""One process, one task: from the environment to an exit code and a termination message."""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from fedtrain.aggregation import engine, importing, prepare
from fedtrain.aggregation.log import say
from fedtrain.aggregation.peers import Alone, Peers
from fedtrain.aggregation.verdicts import VerdictsError
from fedtrain.contract import (
    DEFAULT_MESSAGE_PATH,
    HUB_ENV,
    MESSAGE_ENV,
    MOUNT,
    ROOT_ENV,
    SHARD_ENV,
    TASK_ENV,
    AggregateTask,
    Exit,
    ImportTask,
    Message,
    PrepareTask,
    decode_task,
)
from fedtrain.errors import ContractError, FedtrainError

THREADS_ENV = "FEDTRAIN_THREADS"
MOST_THREADS = 8


class Terminated(BaseException):
    """SIGTERM: not an Exception, so that nothing on the way mistakes it for a failure."""


def main() -> int:
    """Do the task of the environment; returns the exit code of `fedtrain.contract`.

    With an address for a hub in the environment the process stays, and does the tasks that come.
    """
    signal.signal(signal.SIGTERM, _terminate)
    code, message = attempted(os.environ)
    if code is Exit.OK and os.environ.get(HUB_ENV):
        from fedtrain.aggregation import hub

        code, message = _told_of(lambda: hub.stay(os.environ, message, attempted))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"{message.reason}{': ' if message.message else ''}{message.message} (exit {int(code)})")
    _leave(message)
    return int(code)


def attempted(environment: Mapping[str, str]) -> tuple[Exit, Message]:
    """Do the task of that environment: what came of it, whatever that is."""
    return _told_of(lambda: perform(environment))


def _told_of(act: Callable[[], Message]) -> tuple[Exit, Message]:
    try:
        return Exit.OK, act()
    except FedtrainError as error:
        result = error.result if isinstance(error, VerdictsError) else {}
        return error.exit, Message(reason=error.reason, message=str(error), result=result)
    except OSError as error:
        traceback.print_exc()
        return _of_oserror(error)
    except Terminated:
        return Exit.TRY_AGAIN, Message(reason="Terminated", message="stopped by SIGTERM")
    except Exception as error:
        traceback.print_exc()
        reason = type(error).__name__
        return Exit.TRY_AGAIN, Message(reason=reason, message=str(error) or reason)


def perform(environment: Mapping[str, str]) -> Message:
    """Raises FedtrainError with the exit code that the contract has for it, or OSError."""
    try:
        task = decode_task(environment[TASK_ENV])
    except KeyError as error:
        raise ContractError("BadTask", f"the task has no {error.args[0]}") from None
    except ValueError as error:
        raise ContractError("BadTask", str(error)) from error
    root = Path(environment.get(ROOT_ENV, MOUNT))
    match task:
        case PrepareTask():
            return prepare.prepare(task, root)
        case ImportTask():
            return importing.import_model(task, root)
        case AggregateTask():
            with _peers(task, root, environment) as peers:
                return engine.aggregate(task, root, threads(environment), peers)
    raise ContractError("BadTask", f"{TASK_ENV} holds a {type(task).__name__}, not one of ours")


def _peers(task: AggregateTask, root: Path, environment: Mapping[str, str]) -> Peers:
    """Who else works on this aggregation, by the task and our index among the Job's pods."""
    if task.shards == 1:
        return Alone(task, root)
    from fedtrain.aggregation.shards import Shards

    try:
        index = int(environment[SHARD_ENV])
    except (KeyError, ValueError):
        sentence = f"{SHARD_ENV} must say which of {task.shards} shards this process is"
        raise ContractError("BadTask", sentence) from None
    return Shards(task, root, index)


def threads(environment: Mapping[str, str]) -> int:
    """How many threads, and children at intake; the bytes do not depend on it."""
    wanted = environment.get(THREADS_ENV)
    return int(wanted) if wanted else min(len(os.sched_getaffinity(0)), MOST_THREADS)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _of_oserror(error: OSError) -> tuple[Exit, Message]:
    """A full or read-only exchange is charged to nobody; other failures of storage pass."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        sentence = f"the exchange is full: {error}; enlarge its claim or keep fewer rounds"
        return Exit.EXCHANGE, Message(reason="ExchangeFull", message=sentence)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        sentence = f"uid {os.getuid()} may not write to the exchange: {error}"
        return Exit.EXCHANGE, Message(reason="ExchangeNotWritable", message=sentence)
    return Exit.TRY_AGAIN, Message(reason=type(error).__name__, message=str(error))


def _leave(message: Message, environment: Mapping[str, Any] = os.environ) -> None:
    with contextlib.suppress(OSError):
        Path(environment.get(MESSAGE_ENV, DEFAULT_MESSAGE_PATH)).write_bytes(message.encode())
    sys.stdout.flush()
