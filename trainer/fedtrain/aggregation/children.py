"""Work on untrusted bytes in child processes, so that a crash costs one result and no more.

Children are forked, since a thousand candidates should not start a thousand interpreters; the
parent has one thread while it forks. Each child has a bound on its address space and answers
through a pipe.
"""

import contextlib
import os
import resource
import selectors
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Crashed:
    """A child that gave no answer; one sentence about how it ended."""

    sentence: str


@dataclass(slots=True)
class _Child:
    number: int
    pid: int
    pipe: int
    answer: bytearray = field(default_factory=bytearray)


def in_children(
    jobs: Sequence[Callable[[], bytes]], at_once: int, memory: int
) -> Iterator[tuple[int, bytes | Crashed]]:
    """(number of the job, its answer or how it crashed), as the children finish.

    memory: bytes of address space that a child may take on top of its parent's.
    """
    waiting = iter(enumerate(jobs))
    running: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                while len(running) < at_once and (job := next(waiting, None)) is not None:
                    with _signals_blocked():
                        child = _start(*job, memory)
                        running[child.pid] = child
                    selector.register(child.pipe, selectors.EVENT_READ, child)
                if not running:
                    return
                for key, _ in selector.select():
                    child = key.data
                    data = os.read(child.pipe, 1 << 20)
                    child.answer += data
                    if not data:
                        selector.unregister(child.pipe)
                        yield child.number, _end(running.pop(child.pid))
        finally:
            for child in running.values():
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                os.close(child.pipe)


def _start(number: int, job: Callable[[], bytes], memory: int) -> _Child:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return _Child(number, pid, reading)
    code = 1
    try:
        os.close(reading)
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        _limit(memory)
        answer = memoryview(job())
        while answer:
            answer = answer[os.write(writing, answer) :]
        code = 0
    except MemoryError:
        code = 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        size = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _end(child: _Child) -> bytes | Crashed:
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return bytes(child.answer)
    if code < 0:
        return Crashed(f"the inspection was killed by {signal.Signals(-code).name}")
    return Crashed("the inspection ran out of memory" if code == 3 else "the inspection crashed")


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """So that no signal finds a child that its parent does not know yet."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
