"""What the aggregator says while it works: plain lines for `kubectl logs`."""

import contextlib
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path


def say(line: str) -> None:
    """One line whatever is in it: a participant's words neither forge lines nor fail to print."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    print(shown.encode("ascii", "backslashreplace").decode(), flush=True)


@dataclass(slots=True)
class Stopwatch:
    """Started when made; `rate` words an amount of bytes and the seconds that it took."""

    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def rate(self, nbytes: int) -> str:
        seconds = max(self.seconds, 1e-9)
        return f"{nbytes / 1e9:.2f} GB in {seconds:.1f} s, {nbytes / 1e9 / seconds:.2f} GB/s"


def peak_memory() -> int:
    """Bytes: the most that this process, or any one of its children, has had in memory.

    Of ourselves by VmHWM: ru_maxrss survives an exec and would tell of whoever started us.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return max(children, int(line.split()[1]) * 1024)
    return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
