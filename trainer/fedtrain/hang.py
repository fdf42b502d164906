"""A rank that makes no progress is found, named and ended, not waited for.

`fedtrain.launch` looks at the hearts of its ranks. A rank is watched from its first `rnd.step` to
its submit; if it shows no step for `trainer.hangTimeout`, all ranks are asked where they are. In
lock step all of them stop when one does: the guilty one is behind the others, or does not answer,
or is the one that is not in a collective, where the others wait for it. Standard library only.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedtrain import heart
from fedtrain.contract import Exit, Message
from fedtrain.heart import Beat
from fedtrain.log import say
from fedtrain.outcome import Verdict

ELSEWHERE_SECONDS = 15.0
"""How much longer a node waits whose ranks all wait: for the guilty one's own to speak first."""

_FRAME = re.compile(r'^  File "([^"]+)", line (\d+) in (.+)$', re.MULTILINE)
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib/python3")
_WAITING = re.compile(
    r"/torch/(distributed|autograd|nn/parallel)/|/torch/_tensor\.py|/fedtrain/collective\.py"
)


class Watch:
    """A thread that looks at the ranks of one node; a context manager.

    end: called once if a rank hangs, to end the command. verdict: what is said of it then.
    """

    def __init__(
        self, prefix: Path | None, timeout: float | None, nodes: int, end: Callable[[], None]
    ) -> None:
        self.verdict: Verdict | None = None
        self._prefix = prefix
        self._timeout = timeout
        self._nodes = nodes
        self._end = end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        if self._timeout is not None and self._prefix is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)

    def _watch(self) -> None:
        assert self._prefix is not None
        assert self._timeout is not None
        while not self._over.wait(min(1.0, self._timeout / 4)):
            now = time.monotonic()
            beats = suspects(heart.hearts(self._prefix), now, self._timeout)
            if not beats:
                continue
            said = heart.stacks(self._prefix, beats)
            rank = guilty(beats, said)
            longest = now - min(beat.at for beat in beats.values())
            if rank is None and self._nodes > 1 and longest < self._timeout + ELSEWHERE_SECONDS:
                continue
            for one, text in said.items():
                say(f"rank {one} is at\n{text}")
            sentence = sentence_of(rank, beats, said, now)
            message = Message(reason="RankHung", message=sentence)
            self.verdict = Verdict(exit=Exit.TRY_AGAIN, message=message)
            self._end()
            return


def suspects(beats: Mapping[int, Beat], now: float, timeout: float) -> dict[int, Beat]:
    """The watched ranks that stand still, once one of them has done so for the timeout.

    In lock step they stop within a step of each other: all that are beyond half of it.
    """
    watched = {rank: beat for rank, beat in beats.items() if beat.watched}
    if not any(now - beat.at >= timeout for beat in watched.values()):
        return {}
    return {rank: beat for rank, beat in watched.items() if now - beat.at >= timeout / 2}


def guilty(beats: Mapping[int, Beat], stacks: Mapping[int, str]) -> int | None:
    """The rank that the others wait for, or None if all of them wait for somebody else."""
    silent = [rank for rank in beats if not stacks[rank]]
    if silent:
        return silent[0]
    last = max(beat.steps for beat in beats.values())
    behind = [rank for rank, beat in beats.items() if beat.steps < last]
    running = [rank for rank in beats if not waits(stacks[rank], beats[rank].main)]
    candidates = [rank for rank in behind if rank in running] or behind or running
    return min(candidates, key=lambda rank: beats[rank].at) if candidates else None


def waits(stack: str, main: int) -> bool:
    """Whether the main thread is inside a collective, or a backward pass that has them."""
    frames = _frames(stack, main)
    return bool(frames) and bool(_WAITING.search(frames[0][0]))


def sentence_of(
    rank: int | None, beats: Mapping[int, Beat], stacks: Mapping[int, str], now: float
) -> str:
    if rank is None:
        longest = max(now - beat.at for beat in beats.values())
        ranks = f"rank {', '.join(map(str, beats))}"
        return f"{ranks}: no step for {longest:.0f} s, and nothing but waiting in a collective"
    beat, frames = beats[rank], _frames(stacks[rank], beats[rank].main)
    where = f"it is at {_place(frames)}" if frames else f"it does not answer ({_state(beat.pid)})"
    since = f"for {now - beat.at:.0f} s, since step {beat.steps}"
    others = ", ".join(str(other) for other in beats if other != rank)
    waiting = f"; waiting for it: rank {others}" if others else ""
    return f"rank {rank} has made no step {since}: {where}{waiting}"


def _frames(stack: str, main: int) -> list[tuple[str, str, str]]:
    """(file, line, function) of the main thread, the innermost first."""
    for part in re.split(r"\n(?=(?:Current thread|Thread) 0x)", stack):
        named = re.match(r"(?:Current thread|Thread) 0x([0-9a-f]+)", part)
        if named and int(named[1], 16) == main:
            return _FRAME.findall(part)
    return []


def _place(frames: Sequence[tuple[str, str, str]]) -> str:
    """The innermost frame, and the innermost one of a file that is no library's."""
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])]
    places = dict.fromkeys([frames[0], *own[:1]])
    return ", called from ".join(
        f"{Path(file).name}:{line} ({name})" for file, line, name in places
    )


def _state(pid: int) -> str:
    """As the kernel says it: "state T (stopped)"."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "its process is gone"
    return "state " + next(line.split(maxsplit=1)[1] for line in lines if line.startswith("State:"))
