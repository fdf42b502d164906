"""PID 1 of a participant's container: `python -m fedtrain.launch -- <command...>`.

Runs any command (torchrun as a rule) with the environment that the SDK and torchrun need, forwards
SIGTERM and SIGINT to it, reaps zombies, and turns what the ranks left into the exit code and the
termination message of `fedtrain.contract`. A receipt is the result, whenever it appeared: if it is
there at the start, the command is not run. Standard library only, never torch or numpy.
"""

import contextlib
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path

from fedtrain import publication
from fedtrain.contract import (
    DEFAULT_MESSAGE_PATH,
    HANG_ENV,
    HUB_ENV,
    MANIFEST_FILE,
    MESSAGE_ENV,
    MOUNT,
    RECEIPT_FILE,
    ROOT_ENV,
    TASK_ENV,
    Exit,
    Message,
    ParticipantTask,
    Role,
    decode_task,
    result_of,
)
from fedtrain.errors import FedtrainError, TryAgain
from fedtrain.hang import Watch
from fedtrain.log import say
from fedtrain.outcome import Ended, Verdict, judge
from fedtrain.process import Command

LINGER_SECONDS = 15.0
RESOLVE_SECONDS = 60.0


def main(arguments: Sequence[str]) -> int:
    """Run the command after `--` and return the exit code of the container."""
    command = list(arguments[1:] if arguments[:1] == ["--"] else arguments)
    if not command:
        return _end(_contract("NoCommand", "usage: python -m fedtrain.launch -- COMMAND..."))
    try:
        task = decode_task(os.environ[TASK_ENV])
        if not isinstance(task, ParticipantTask):
            raise ValueError(f"{TASK_ENV} holds a {type(task).__name__}, not a ParticipantTask")
    except KeyError:
        return _end(_contract("NoTask", f"{TASK_ENV} is not set: run the script without launch"))
    except ValueError as error:
        return _end(_contract("BadTask", str(error)))
    folder = Path(os.environ.get(ROOT_ENV, MOUNT)) / task.output
    try:
        already = published(task.role, folder)
        if already is not None and not stays():
            say(f"{task.output} has its receipt already: that is the result, and nothing is run")
            return _end(Verdict(exit=Exit.OK, message=already))
        return _end(_run(command, task, folder))
    except FedtrainError as error:
        message = Message(reason=error.reason, message=str(error))
        return _end(Verdict(exit=error.exit, message=message))


def _run(command: list[str], task: ParticipantTask, folder: Path) -> Verdict:
    nodes, node = int(os.environ.get("PET_NNODES", "1")), int(os.environ.get("PET_NODE_RANK", "0"))
    environment = dict(os.environ)
    prepare_environment(environment, nodes)
    command = without_agent(command, environment)
    with Command(environment) as process:
        master = environment.get("PET_MASTER_ADDR", "")
        if nodes > 1 and not wait_for_name(master, process.linger):
            return _unresolved(master)
        timeout = float(environment[HANG_ENV]) if environment.get(HANG_ENV) else None
        watch = Watch(process.prefix, timeout, nodes, process.kill)
        try:
            with watch:
                code = process.run(command)
        except OSError as error:
            sentence = f"{command[0]!r} cannot be started: {error.strerror or error}"
            return _contract("CommandNotFound", sentence)
        result = published(task.role, folder)
        if stays():
            # Its first round's receipt may be pruned by now, and says nothing of the later ones.
            clean = code == 0 and not process.outcomes() and process.published()
            result = (result or Message()) if clean else None
        if result is not None:
            # The receipt counts, not what the script did afterwards: started again, this
            # container would find it and exit 0.
            if code != 0:
                say(f"the command exited with {code} after its result was published")
            return Verdict(exit=Exit.OK, message=result)
        if watch.verdict is not None:
            return watch.verdict
        verdict = judge(
            Ended(
                role=task.role,
                code=code,
                outcomes=process.outcomes(),
                told=process.told,
                tail=process.tail(),
                nodes=nodes,
                node=node,
            )
        )
        if verdict.linger:
            say(f"lost its peers; waits {LINGER_SECONDS:.0f} s, so that the guilty pod fails first")
            process.linger(LINGER_SECONDS)
        return verdict


def stays() -> bool:
    """Whether the command goes on to further rounds after its first (`pods: Resident`)."""
    return bool(os.environ.get(HUB_ENV))


def prepare_environment(environment: MutableMapping[str, str], nodes: int) -> None:
    """Set what the command needs and the user has not set.

    One OpenMP thread per process: sums are then added up in one order, which bit-identity needs,
    and participants on a shared machine do not fight for its cores. A single node's torchrun makes
    its own rendezvous on a free port of the loopback, so that several can run on one machine; a
    flag on the user's command line still wins over any of these.
    """
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.setdefault("PET_NNODES", "1")
    if nodes == 1:
        for name in ("PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_NODE_RANK"):
            environment.pop(name, None)
        environment.setdefault("PET_RDZV_BACKEND", "c10d")
        environment.setdefault("PET_RDZV_ENDPOINT", "localhost:0")
        environment.setdefault("PET_RDZV_ID", str(uuid.uuid4()))
        environment.setdefault("PET_LOCAL_ADDR", "localhost")
    else:
        # Images are pulled at different speeds; torchrun's ten minutes are too few to wait for
        # the last node, and the operator has a deadline of its own.
        environment.setdefault("PET_RDZV_CONF", "timeout=3600")


def without_agent(command: list[str], environment: MutableMapping[str, str]) -> list[str]:
    """`torchrun train.py` of a single process as that process, told what torchrun would tell it.

    torchrun's agent imports torch a second time: over a second of processor and half a gigabyte for
    every round of every small participant, to watch one process that we watch already. A command
    with options of its own for torchrun, or with more than one process, stays as it is.
    """
    single = (environment.get("PET_NNODES"), environment.get("PET_NPROC_PER_NODE")) == ("1", "1")
    plain = Path(command[0]).name == "torchrun" and command[1:2] and command[1].endswith(".py")
    torchrun = shutil.which(command[0], path=environment.get("PATH"))
    python = Path(torchrun).with_name("python") if torchrun else None
    if not (single and plain and python and python.exists()):
        return command
    environment.update(dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK"), "0"))
    environment.update(dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"), "1"))
    environment.update(MASTER_ADDR="localhost", MASTER_PORT="0", ROLE_WORLD_SIZE="1")
    environment["TORCHELASTIC_RUN_ID"] = environment["PET_RDZV_ID"]
    return [str(python), "-u", *command[1:]]


def wait_for_name(
    name: str, pause: Callable[[float], bool], seconds: float = RESOLVE_SECONDS
) -> bool:
    """Wait until node 0's name resolves: a headless Service lags some seconds behind its pods.

    pause: sleeps that long; True when it is time to stop.
    """
    started, told = time.monotonic(), False
    while True:
        try:
            socket.getaddrinfo(name, None)
            return True
        except OSError as error:
            if time.monotonic() - started >= seconds:
                return False
            if not told:
                say(f"waits up to {seconds:.0f} s for {name!r} to resolve ({error})")
                told = True
        if pause(min(1.0, seconds)):
            return False


def published(role: Role, folder: Path) -> Message | None:
    """The message that goes with a published result, or None if there is no receipt yet.

    Raises ExchangeError (ExchangeUnreadable) and TryAgain (ReceiptBroken): neither says that
    nothing was published, so neither may end as a script without a submit.
    """
    name = MANIFEST_FILE if role is Role.INIT else RECEIPT_FILE
    try:
        text = publication.readable(folder, name)
        return None if text is None else Message(result=result_of(role, text))
    except ValueError as error:
        sentence = f"{folder / name} is not a receipt: {error}"
        raise TryAgain("ReceiptBroken", sentence) from error


def _contract(reason: str, sentence: str) -> Verdict:
    return Verdict(exit=Exit.CONTRACT, message=Message(reason=reason, message=sentence))


def _unresolved(name: str) -> Verdict:
    sentence = f"{name!r}, the name of node 0, did not resolve within {RESOLVE_SECONDS:.0f} s"
    message = Message(reason="MasterUnresolved", message=sentence)
    return Verdict(exit=Exit.TRY_AGAIN, message=message)


def _end(verdict: Verdict) -> int:
    """Write the termination message, which never fails the process, and say it in the log."""
    path = os.environ.get(MESSAGE_ENV)
    if path is None and os.access(DEFAULT_MESSAGE_PATH, os.W_OK):
        path = DEFAULT_MESSAGE_PATH
    if path is not None:
        with contextlib.suppress(OSError):
            Path(path).write_bytes(verdict.message.encode())
    if verdict.exit is not Exit.OK:
        say(f"{verdict.message.reason}: {verdict.message.message}")
    return int(verdict.exit)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
