"""The bench's end of the zygote: processes to start, to kill, and to wait for."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]


class Process:
    """One process. The handle is of this very process, whoever gets its number later."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting: asyncio.Task[None] | None = None
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._handle = -1

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    async def end(self) -> int:
        """Killed, and gone; its exit code."""
        self.kill()
        async with asyncio.timeout(20):
            return await asyncio.shield(self.ended)

    def over(self, code: int) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if not self.ended.done():
            self.ended.set_result(code)


class Nursery:
    """The zygote, and every process that it has forked and that is not over."""

    def __init__(self, zygote: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.zygote = zygote
        self.seconds = 0.0
        """Processor time of those that are over."""
        self._control = control
        self._asked: deque[asyncio.Future[Process]] = deque()
        self._running: dict[int, Process] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, planted: str = "") -> AsyncIterator["Nursery"]:
        ours, theirs = socket.socketpair()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "FEDTRAIN_PLANTED": planted,
        }
        with ours:
            with theirs:
                zygote = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "tests.faults.zygote"),
                    stdin=theirs,
                    env=environment,
                    start_new_session=True,
                )
            ours.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=ours)
            nursery = cls(zygote, ours)
            nursery._writer = writer
            listening = asyncio.create_task(nursery._listen(reader))
            try:
                yield nursery
            finally:
                zygote.kill()  # The kernel ends its children with it.
                await zygote.wait()
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                writer.close()

    _writer: asyncio.StreamWriter

    async def start(
        self, role: str, environment: Mapping[str, str], log: pathlib.Path, *arguments: Any
    ) -> Process:
        asked: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        wanted = {
            "role": role,
            "environment": {"PATH": os.environ["PATH"], **environment},
            "log": str(log),
            "arguments": arguments,
        }
        self._writer.write(json.dumps(wanted).encode() + b"\n")
        return await asked

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            said = json.loads(line)
            if "pid" in said:
                process = self._running[said["pid"]] = Process(said["pid"])
                self._asked.popleft().set_result(process)
            elif "ended" in said:
                self.seconds += said["seconds"]
                self._running.pop(said["ended"]).over(said["code"])
        for asked in self._asked:
            asked.set_exception(RuntimeError("the zygote is gone"))


async def start_plainly(environment: Mapping[str, str], log: pathlib.Path) -> Process:
    """`python -m fedoperator`, without any zygote."""
    with log.open("a") as output:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "fedoperator"),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    process = Process(started.pid)

    async def wait() -> None:
        process.over(await started.wait())

    process.waiting = asyncio.create_task(wait())
    return process
