"""How a rank's end becomes the container's: outcomes left by ranks, and the verdict on them all.

torchrun exits 1 whatever its rank said, so the SDK's excepthook leaves an `Outcome` in a file and
`fedtrain.launch` reads it. Standard library only: PID 1 must not load torch.
"""

import contextlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from fedtrain.contract import OUTCOME_ENV, Exit, Message, Role
from fedtrain.errors import FedtrainError

NO_SUBMIT = "the script ended without rnd.submit(...): call it once, after the training loop"
NEVER_ENTERED = (
    "the script ended without entering rounds(...): loop over rounds(model, ...) in every role"
)
TERMINATED = "Terminated"

_PUBLISHED = "-published"
_ENTERED = frozenset({Role.TRAIN, Role.PERSONALIZE})
"""The roles in which the body of the loop is run, and must submit."""

_LOST_TYPES = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError"})
_LOST_TEXT = re.compile(
    r"Connection (closed|reset|refused)|closed by peer|Broken pipe|remote process exited"
    r"|failed to recv|socketPollConnect|NCCL communicator was aborted|Rendezvous\w*Error"
    r"|Timed out waiting \d+ms for (recv|send)|[Ww]atchdog caught collective operation timeout"
)
_EXCEPTION_LINE = re.compile(
    r"^(?:\[rank\d+\]: ?)?([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Failure)): (.*)$"
)
_TORCHRUN_EXITCODE = re.compile(r"^\s+exitcode\s+: (-?\d+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Why a rank failed. at: seconds of the machine's monotonic clock, to find who was first.

    lost_peers: the rank only noticed that another one was gone.
    """

    exit: int
    reason: str
    message: str
    rank: int = 0
    lost_peers: bool = False
    at: float = 0.0

    def leave(self, *, over_another: bool = True) -> None:
        """Write it beside the prefix in `FEDTRAIN_OUTCOME`; nothing if launch did not set one.

        over_another: also if this rank has left an outcome before.
        """
        prefix = os.environ.get(OUTCOME_ENV)
        if prefix is None:
            return
        path = Path(f"{prefix}.{self.rank}")
        if not over_another and path.exists():
            return
        unfinished = path.with_name(f".{path.name}")
        with contextlib.suppress(OSError):
            unfinished.write_text(json.dumps(asdict(self)))
            unfinished.rename(path)


def say_published() -> None:
    """Leave word for launch that something was published, whatever is pruned later."""
    prefix = os.environ.get(OUTCOME_ENV)
    if prefix is not None:
        with contextlib.suppress(OSError):
            Path(f"{prefix}{_PUBLISHED}").touch()


def was_published(prefix: Path) -> bool:
    return Path(f"{prefix}{_PUBLISHED}").exists()


def of_exception(error: BaseException, rank: int) -> Outcome:
    """The outcome of an exception that nothing caught."""
    at = time.monotonic()
    if isinstance(error, FedtrainError):
        return Outcome(exit=error.exit, reason=error.reason, message=str(error), rank=rank, at=at)
    lost = only_lost_its_peers(error)
    text = f"{type(error).__name__}: {error}{_where(error.__traceback__)}"
    reason = "PeersLost" if lost else "ScriptFailed"
    return Outcome(
        exit=Exit.TRY_AGAIN, reason=reason, message=text, rank=rank, lost_peers=lost, at=at
    )


def only_lost_its_peers(error: BaseException) -> bool:
    """True for what gloo, NCCL and the store raise when another rank has gone away."""
    seen: BaseException | None = error
    while seen is not None:
        kind = type(seen).__name__
        if kind in _LOST_TYPES or (kind == "RuntimeError" and _LOST_TEXT.search(str(seen))):
            return True
        seen = seen.__cause__
    return False


def _where(tb: TracebackType | None) -> str:
    """ " (train.py:123)": the innermost line of the user's own script, else of any file."""
    frames = traceback.extract_tb(tb)
    script = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    own = [frame for frame in frames if os.path.abspath(frame.filename) == script]
    chosen = own or frames
    return f" ({os.path.basename(chosen[-1].filename)}:{chosen[-1].lineno})" if chosen else ""


def collect(prefix: Path) -> tuple[Outcome, ...]:
    """What the ranks of this node left, the earliest first."""
    found = []
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Outcome(**json.loads(path.read_text())))
    return tuple(sorted(found, key=lambda outcome: (outcome.at, outcome.rank)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Everything known about a command that has ended without a receipt.

    code: as `os.waitstatus_to_exitcode` gives it, negative for a signal. told: the signal that
    was forwarded to it, or 0. tail: the last text of its standard error. nodes, node: PET's.
    """

    role: Role
    code: int
    outcomes: Sequence[Outcome] = ()
    told: int = 0
    tail: str = ""
    nodes: int = 1
    node: int = 0

    @property
    def guilty(self) -> Outcome | None:
        return next((outcome for outcome in self.outcomes if not outcome.lost_peers), None)

    @property
    def killed_by(self) -> int:
        """The signal that killed the command or the first of its ranks, or 0."""
        if self.code < 0:
            return -self.code
        if 128 < self.code < 128 + signal.NSIG:
            return self.code - 128
        by_rank = _TORCHRUN_EXITCODE.findall(self.tail)
        return max(0, -int(by_rank[-1])) if by_rank else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What PID 1 says and exits with. linger: let the guilty pod fail first."""

    exit: Exit
    message: Message
    linger: bool = False


def judge(ended: Ended) -> Verdict:
    """The verdict on a command that left no receipt; most telling evidence first."""
    guilty = ended.guilty
    terminated = guilty is not None and guilty.reason == TERMINATED
    # Whatever unwinds the loop leaves a NoSubmit first; who is killed then leaves nothing better.
    unwound = guilty is not None and guilty.reason == "NoSubmit" and ended.killed_by
    if guilty is not None and not unwound and (terminated or not ended.told):
        rank = f"rank {guilty.rank}: " if guilty.rank else ""
        verdict = _failed(Exit(guilty.exit), guilty.reason, f"{rank}{guilty.message}")
        # The pod that was evicted has to fail first: that is free, and this would be counted.
        linger = terminated and not ended.told and ended.nodes > 1
        return Verdict(exit=verdict.exit, message=verdict.message, linger=linger)
    if ended.code == 0:
        if ended.node != 0:
            return Verdict(exit=Exit.OK, message=Message(message=f"node {ended.node} is done"))
        sentence = NO_SUBMIT if ended.role in _ENTERED else NEVER_ENTERED
        return _failed(Exit.CONTRACT, "NoSubmit", sentence)
    if ended.told:
        name = signal.Signals(ended.told).name
        return _failed(Exit.TRY_AGAIN, TERMINATED, f"stopped by {name} before it was done")
    if ended.code == 127:
        sentence = "the shell did not find the command: is it installed in the image?"
        return _failed(Exit.CONTRACT, "CommandNotFound", sentence)
    return _judge_without_outcome(ended)


def _judge_without_outcome(ended: Ended) -> Verdict:
    killed, lost = ended.killed_by, ended.outcomes[0].message if ended.outcomes else ""
    last = _last_exception(ended.tail)
    if ended.nodes > 1 and not killed and not lost and _LOST_TEXT.search(last):
        lost = last
    if killed == signal.SIGABRT and ended.nodes > 1 and _LOST_TEXT.search(ended.tail):
        killed, lost = 0, "NCCL's watchdog ended the process"
    if killed:
        name = signal.Signals(killed).name if killed in set(signal.Signals) else str(killed)
        hint = " (out of memory?)" if killed == signal.SIGKILL else ""
        return _failed(Exit.TRY_AGAIN, "ScriptKilled", f"a process was killed by {name}{hint}")
    if lost:
        sentence = f"another process of this participant went away: {lost}"
        verdict = _failed(Exit.TRY_AGAIN, "PeersLost", sentence)
        return Verdict(exit=verdict.exit, message=verdict.message, linger=ended.nodes > 1)
    sentence = last or _last_complaint(ended)
    return _failed(Exit.TRY_AGAIN, "ScriptFailed", sentence)


def _failed(code: Exit, reason: str, sentence: str) -> Verdict:
    return Verdict(exit=code, message=Message(reason=reason, message=sentence))


def _last_complaint(ended: Ended) -> str:
    """For ends without an exception: argparse's complaint, or the last line of the log."""
    lines = [line.strip() for line in ended.tail.splitlines() if line.strip(" =-")]
    complaints = [line for line in lines if ": error: " in line]
    said = (complaints or lines)[-1:]
    return ": ".join([f"the command exited with {ended.code}", *said])


def _last_exception(tail: str) -> str:
    """The last "Type: text" line that is not torchrun's own, for scripts that failed too early."""
    for line in reversed(tail.splitlines()):
        match = _EXCEPTION_LINE.match(line)
        if match and "ChildFailedError" not in match[1]:
            return f"{match[1]}: {match[2]}"
    return ""
