"""The participant's end of the line to the hub: the next task comes in, what came of it goes out.

A process that stays between rounds (`pods: Resident`) has `FEDTRAIN_HUB` in its environment. It
does the task it was started with, tells the hub, and waits for the next one on a socket, never
inside a collective: every rank has a line of its own. A line that breaks is made again for as long
as it takes; what was not heard is said again, and what is said twice counts once, because tasks
have names. Standard library only. `fedtrain.aggregation.hub` is the other end.
"""

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtrain.contract import (
    CARRIER_ENV,
    HUB_BEAT,
    HUB_ENV,
    HUB_FILE,
    HUB_LINE_LIMIT,
    ParticipantTask,
    decode_task,
    task_id,
)
from fedtrain.errors import ContractError, TryAgain
from fedtrain.log import say

SILENCE = 3 * HUB_BEAT
LONGEST_PAUSE = 1.0
"""Seconds between two tries to reach the hub."""


class Line:
    """One rank's line to the hub, kept up by a thread of its own."""

    def __init__(self, address: str, hello: Mapping[str, Any], token_file: Path) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._hello = dict(hello)
        self._token_file = token_file
        self._tasks: queue.Queue[ParticipantTask | None] = queue.Queue()
        self._seen: set[str] = set()
        self._said: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        threading.Thread(target=self._keep, name="fedtrain-hub", daemon=True).start()

    def ready(self, task: ParticipantTask) -> None:
        """All ranks have it: its clock may start."""
        self._say(task, {"state": "Ready"})

    def done(self, task: ParticipantTask, result: Mapping[str, Any]) -> None:
        """It is published."""
        self._say(task, {"state": "Succeeded", "result": dict(result)})

    def next(self) -> ParticipantTask | None:
        """Wait for the next task; None: there is no more to do, ever."""
        return self._tasks.get()

    def _say(self, task: ParticipantTask, report: dict[str, Any]) -> None:
        name = task_id(task)
        with self._lock:
            self._seen.add(name)
            # What is over is over for the hub, too, once the next task is under way.
            self._said = {n: r for n, r in self._said.items() if r["state"] != "Ready"}
            self._said[name] = report
            while len(self._said) > 4:
                del self._said[next(iter(self._said))]
            self._send({"report": name, **report})

    def _send(self, message: Mapping[str, Any]) -> None:
        """As far as there is a line; what is lost with it is said again on the next."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _keep(self) -> None:
        pause, complained = 0.05, ""
        while True:
            try:
                with socket.create_connection(self._address, timeout=SILENCE) as line:
                    # A free port may be taken for our own end, and nobody could listen there then.
                    if line.getsockname() == line.getpeername():
                        raise OSError("nobody listens there, the line leads back to us")
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._greet(line)
                    pause, complained = 0.05, ""
                    if self._listen(line):
                        return
            except (OSError, ValueError) as error:
                if str(error) != complained:
                    complained = str(error)
                    say(f"no line to the hub at {self._address[0]}: {error}; tries again")
            finally:
                with self._lock:
                    self._socket = None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _greet(self, line: socket.socket) -> None:
        token = self._token_file.read_text().strip()
        with self._lock:
            self._socket = line
            self._send({"hello": {**self._hello, "token": token}})
            for name, report in self._said.items():
                self._send({"report": name, **report})

    def _listen(self, line: socket.socket) -> bool:
        """Until the line breaks; True if the hub says that all is over."""
        rest, beat_at = b"", time.monotonic() + HUB_BEAT
        heard_at = time.monotonic()
        line.settimeout(HUB_BEAT)
        while True:
            with contextlib.suppress(TimeoutError):
                chunk = line.recv(65536)
                if not chunk:
                    raise OSError("it closed the line")
                rest, heard_at = rest + chunk, time.monotonic()
            if time.monotonic() - heard_at > SILENCE:
                raise OSError(f"nothing was heard of it for {SILENCE:.0f} s")
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + HUB_BEAT
                with self._lock:
                    self._send({"beat": 1})
            *lines, rest = rest.split(b"\n")
            if len(rest) > HUB_LINE_LIMIT:
                raise ValueError("a message is too long")
            for text in lines:
                if self._heard(json.loads(text)):
                    return True

    def _heard(self, message: Mapping[str, Any]) -> bool:
        if message.get("end"):
            self._tasks.put(None)
            return True
        if "task" in message:
            task = decode_task(message["task"])
            if not isinstance(task, ParticipantTask):
                raise ValueError(f"a {type(task).__name__} is no task for a participant")
            with self._lock:
                name = task_id(task)
                if name not in self._seen:
                    self._seen.add(name)
                    self._tasks.put(task)
                elif name in self._said:
                    self._send({"report": name, **self._said[name]})
        return False


def line_of_this_process(root: Path, task: ParticipantTask, rank: int) -> Line | None:
    """The line to the hub, if this process is one that stays. Raises ContractError, TryAgain."""
    address = os.environ.get(HUB_ENV)
    if not address:
        return None
    if ":" not in address or not address.rpartition(":")[2].isdigit():
        raise ContractError("BadTask", f"{HUB_ENV} is {address!r}, not host:port")
    token = root / "updates" / task.participant / HUB_FILE
    if not token.exists():
        raise TryAgain("HubUnknown", f"{token} is missing, by which the hub would know us")
    hello = {
        "participant": task.participant,
        "carrier": os.environ.get(CARRIER_ENV, ""),
        "rank": rank,
    }
    return Line(address, hello, token)
