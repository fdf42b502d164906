"""The hub of a training whose pods stay: tasks go out to participants, reports come back.

It is the training's preparation that goes on (`pods: Resident`): the same pod, which sees the whole
exchange and runs our own code. Everybody calls it, it calls nobody. A message is a line of JSON:

    participant  {"hello": {participant, token, carrier, rank}}, {"report": id, state, result}
    operator     {"operator": token}, {"tasks": {id: {carrier, task}}, "ended", "round", "over"}
    hub          {"task": ...} and {"end": 1} to participants, {"reports": {id: ...}} to operators
    all          {"beat": 1}

The operator always says all that is to be done; the hub remembers nothing that it could not be told
again, so its end costs nobody anything but the time to make another. Tasks for the aggregator are
done in a forked child, so that a crash costs one aggregation and its memory goes with it. One
thread, so that forking is safe. A participant can say something of its own tasks only.
"""

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtrain.aggregation.lines import BRACKETS, PIECE, Lines
from fedtrain.aggregation.log import say
from fedtrain.contract import (
    CARRIER_ENV,
    HUB_BEAT,
    HUB_ENV,
    HUB_FILE,
    HUB_LINE_LIMIT,
    HUB_REPORTS_EACH,
    HUB_TOKEN_ENV,
    MOUNT,
    ROOT_ENV,
    TASK_ENV,
    Exit,
    Message,
    PrepareTask,
    decode_task,
    parted_id,
    task_id,
    work_id,
)
from fedtrain.errors import ContractError, TryAgain
from fedtrain.publication import TEMPORARY_PREFIX, rename_without_replacing

OWN_LINE_LIMIT = 16 * 1024
"""Bytes of one message of a participant."""

CONNECTIONS_EACH = 1024
"""Of one participant: one for each of its ranks."""

UNHEARD_LIMIT = 8 * 1024 * 1024
"""Bytes that wait for somebody who does not listen; who lets more come is cut off."""

STRANGERS = 512
"""Callers who have not said yet who they are; one more, and the first of them is cut off."""

AT_ONCE = 100
"""Reports in one message."""

GOODBYE_SECONDS = 30.0
_O_TOKEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Attempt = Callable[[Mapping[str, str]], tuple[Exit, Message]]
"""Does the task in an environment, whatever becomes of it."""


def stay(environment: Mapping[str, str], prepared: Message, attempt: Attempt) -> Message:
    """Serve until the operator says that the training is over; `attempt` does the hub's own tasks.

    Raises Terminated by SIGTERM, ContractError, OSError.
    """
    address = environment[HUB_ENV]
    name, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ContractError("BadTask", f"{HUB_ENV} is {address!r}, not host:port")
    token = environment.get(HUB_TOKEN_ENV, "")
    if len(token) < 16:
        raise ContractError("BadTask", f"{HUB_TOKEN_ENV} is missing or too short")
    task = decode_task(environment[TASK_ENV])
    hub = Hub(Path(environment.get(ROOT_ENV, MOUNT)), token, environment, attempt)
    hub.begin(task_id(task), prepared)
    if isinstance(task, PrepareTask):
        give_tokens(hub.root, task.participants)
    # In a pod that is the name of a Service; on a machine of several hubs each has an address.
    host = name if name.startswith("127.") or name == "localhost" else None
    try:
        terminated = asyncio.run(hub.serve(host, int(port)))
    finally:
        hub.end()
    if terminated:
        raise TryAgain("Terminated", "stopped by SIGTERM")
    return Message(message="the training is over")


def give_tokens(root: Path, participants: tuple[str, ...]) -> None:
    """Leave in each participant's folder what its processes are known by, once.

    It appears whole: of one that is empty, whatever ended us, its participant would never be known.
    """
    for participant in participants:
        path = root / "updates" / participant / HUB_FILE
        if os.path.lexists(path):
            continue
        new = path.with_name(f"{TEMPORARY_PREFIX}token-{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(new, flags, 0o660), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(16))
            with contextlib.suppress(FileExistsError):
                rename_without_replacing(new, path)
        finally:
            new.unlink(missing_ok=True)


@dataclass(eq=False, slots=True)
class Caller:
    """Somebody at the other end of a line, once it is known who. told: tasks it was given."""

    writer: asyncio.StreamWriter
    participant: str = ""
    carrier: str = ""
    told: set[str] = field(default_factory=set)

    def send(self, message: Mapping[str, Any]) -> None:
        if self.writer.transport.get_write_buffer_size() > UNHEARD_LIMIT:
            self.writer.transport.abort()
        elif not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


class Hub:
    """root: of the training's folder. environment, attempt: how our own tasks are done."""

    def __init__(
        self, root: Path, token: str, environment: Mapping[str, str], attempt: Attempt
    ) -> None:
        self.root = root
        self._attempt = attempt
        self._token = token
        self._environment = {k: v for k, v in environment.items() if k != HUB_TOKEN_ENV}
        self._carrier = environment.get(CARRIER_ENV, "")
        self._tasks: dict[str, dict[str, str]] = {}
        self._ended: set[str] = set()
        self._over = False
        self._reports: dict[str, dict[str, Any]] = {}
        self._strangers: dict[Caller, None] = {}
        self._participants: set[Caller] = set()
        self._operators: set[Caller] = set()
        self._mine: list[str] = []
        self._child = 0
        self._stop = asyncio.Event()
        self._gone = asyncio.Event()
        self._terminated = False

    def begin(self, task: str, message: Message) -> None:
        """The task that this process was started with is done."""
        self._reports[task] = self._finished(Exit.OK, message)

    async def serve(self, host: str | None, port: int) -> bool:
        """Until it is over; whether that was SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        server = await asyncio.start_server(
            self._called, host, port, limit=PIECE, reuse_address=True
        )
        async with server:
            say(f"the hub listens on port {port}")
            beat = loop.create_task(self._beat())
            await self._stop.wait()
            beat.cancel()
            for caller in (*self._participants, *self._operators):
                caller.writer.close()
        return self._terminated

    def end(self) -> None:
        """No child of ours outlives us."""
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)

    def _terminate(self) -> None:
        self._terminated = True
        self._stop.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HUB_BEAT)
            for caller in (*self._participants, *self._operators):
                caller.send({"beat": 1})

    # Whoever calls.

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller, lines = Caller(writer), Lines(reader)
        self._strangers[caller] = None
        if len(self._strangers) > STRANGERS:
            first_of_them = next(iter(self._strangers))
            del self._strangers[first_of_them]
            first_of_them.writer.transport.abort()
        try:
            first = await lines.next(OWN_LINE_LIMIT, BRACKETS)
            if "operator" in first:
                await self._talk_with_operator(first, lines, caller)
            else:
                await self._talk_with_participant(first, lines, caller)
        except (EOFError, ConnectionError):
            return  # how most lines end
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"cut off {caller.participant or 'somebody'}: {error}")
        except asyncio.CancelledError:
            return  # the hub ends
        finally:
            self._strangers.pop(caller, None)
            self._participants.discard(caller)
            self._gone.set()
            self._operators.discard(caller)
            writer.transport.abort()

    # Participants.

    async def _talk_with_participant(
        self, first: dict[str, Any], lines: Lines, caller: Caller
    ) -> None:
        hello = first["hello"]
        participant, carrier = str(hello["participant"]), str(hello["carrier"])
        if not self._knows(participant, str(hello["token"])):
            raise ValueError(f"{participant[:80]!a} showed a token that is not its own")
        caller.participant, caller.carrier = participant, carrier
        self._strangers.pop(caller, None)
        of_it = sum(one.participant == caller.participant for one in self._participants)
        if of_it >= CONNECTIONS_EACH:
            raise ValueError(f"{of_it} lines are enough")
        caller.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._participants.add(caller)
        self._hand_to(caller)
        while True:
            message = await lines.next(OWN_LINE_LIMIT, BRACKETS)
            if "report" in message:
                self._heard(caller, message)
            await asyncio.sleep(0)  # who has much to say takes turns with the others

    def _knows(self, participant: str, token: str) -> bool:
        if not participant or "/" in participant or participant.startswith("."):
            return False
        try:
            fd = os.open(self.root / "updates" / participant / HUB_FILE, _O_TOKEN)
            with open(fd, "rb") as file:
                known = file.read(256).strip()
        except OSError:
            return False
        return len(known) >= 16 and hmac.compare_digest(known, token.encode())

    def _heard(self, caller: Caller, message: Mapping[str, Any]) -> None:
        task, state = str(message["report"]), message["state"]
        identity = parted_id(task)
        own = identity[2] == caller.participant and work_id(*identity) == task
        if state not in ("Ready", "Succeeded") or not own:
            raise ValueError(f"a report of {task[:80]!a} is not its own business")
        result = message.get("result")
        self._told(
            task,
            {
                "carrier": caller.carrier,
                "state": state,
                "result": result if isinstance(result, dict) else None,
            },
        )
        all_own = [t for t in self._reports if parted_id(t)[2] == caller.participant]
        for old in all_own[:-HUB_REPORTS_EACH]:
            del self._reports[old]

    def _hand_to(self, caller: Caller) -> None:
        for name, task in self._tasks.items():
            own = task["carrier"] == caller.carrier and parted_id(name)[2] == caller.participant
            if own and name not in caller.told:
                caller.told.add(name)
                caller.send({"task": task["task"]})
        if self._over or caller.carrier in self._ended:
            caller.send({"end": 1})

    # The operator.

    async def _talk_with_operator(
        self, first: Mapping[str, Any], lines: Lines, caller: Caller
    ) -> None:
        if not hmac.compare_digest(self._token.encode(), str(first["operator"]).encode()):
            raise ValueError("somebody who is not the operator said to be it")
        caller.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._strangers.pop(caller, None)
        self._operators.add(caller)
        known = list(self._reports.items())
        for start in range(0, max(1, len(known)), AT_ONCE):
            more = start + AT_ONCE < len(known)
            caller.send({"reports": dict(known[start : start + AT_ONCE]), "more": more})
        while True:
            message = await lines.next(HUB_LINE_LIMIT)
            if "tasks" in message:
                self._asked(message)

    def _asked(self, message: Mapping[str, Any]) -> None:
        self._tasks = dict(message["tasks"])
        self._ended = set(message.get("ended") or ())
        oldest = int(message.get("round") or 0) - 2
        self._reports = {
            name: report
            for name, report in self._reports.items()
            if name in self._tasks or parted_id(name)[1] >= oldest
        }
        for caller in list(self._participants):
            self._hand_to(caller)
        for name, task in self._tasks.items():
            if task["carrier"] == self._carrier and name not in (*self._mine, *self._reports):
                self._mine.append(name)
        self._work()
        if message.get("over") and not self._over:
            self._over = True
            for caller in list(self._participants):
                caller.send({"end": 1})
            asyncio.get_running_loop().create_task(self._say_goodbye())

    async def _say_goodbye(self) -> None:
        """Participants have a script to end; the last of them, or patience, ends us."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                while self._participants:
                    self._gone.clear()
                    await self._gone.wait()
        self._stop.set()

    def _told(self, task: str, report: dict[str, Any]) -> None:
        """Remember it, as the last of its participant, and pass it on if it is news."""
        before = self._reports.pop(task, None)
        if before is not None and before["state"] in ("Succeeded", "Failed"):
            report = before
        self._reports[task] = report
        if report != before:
            for operator in self._operators:
                operator.send({"reports": {task: report}, "more": False})

    # What the hub does itself.

    def _work(self) -> None:
        """Begin the next of our own tasks, unless one is under way."""
        if self._child or not self._mine:
            return
        name = self._mine[0]
        text = self._tasks.get(name, {}).get("task")
        if text is None:  # nobody wants it any more
            self._mine.pop(0)
            self._work()
            return
        self._told(name, {"carrier": self._carrier, "state": "Ready", "result": None})
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_the_child(text, theirs)
        os.close(theirs)
        self._child = pid
        answer = bytearray()
        os.set_blocking(ours, False)
        asyncio.get_running_loop().add_reader(ours, self._collect, ours, answer, name)

    def _be_the_child(self, text: str, pipe: int) -> None:
        """Never returns. Everything inherited but the standard streams and the pipe is closed."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(pipe, 3)
            os.closerange(4, 65536)
            done, message = self._attempt({**self._environment, TASK_ENV: text})
            if done is Exit.OK:
                task = decode_task(text)
                if isinstance(task, PrepareTask):
                    give_tokens(self.root, task.participants)
            answer = json.dumps(self._finished(done, message)).encode()
            with open(3, "wb") as stream:
                stream.write(answer)
            code = 0
        finally:
            os._exit(code)

    def _collect(self, pipe: int, answer: bytearray, name: str) -> None:
        chunk = os.read(pipe, 1 << 16)
        if chunk:
            answer += chunk
            return
        asyncio.get_running_loop().remove_reader(pipe)
        os.close(pipe)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        self._mine.pop(0)
        try:
            report = json.loads(answer)
        except ValueError:
            code = os.waitstatus_to_exitcode(status)
            sentence = f"the aggregator's process ended with {code} and left no word"
            lost = Message(reason="AggregatorDied", message=sentence)
            report = self._finished(Exit.TRY_AGAIN, lost)
        self._told(name, report)
        self._work()

    def _finished(self, code: Exit, message: Message) -> dict[str, Any]:
        report: dict[str, Any] = {
            "carrier": self._carrier,
            "state": "Succeeded" if code is Exit.OK else "Failed",
            "result": dict(message.result),
        }
        if code is not Exit.OK:
            report |= {"exit": int(code), "reason": message.reason, "message": message.message}
        return report
