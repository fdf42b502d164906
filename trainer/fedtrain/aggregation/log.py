"""What the aggregator says while it works: plain lines for `kubectl logs`."""

import time
from dataclasses import dataclass, field


def say(line: str) -> None:
    print(line, flush=True)


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
    """Bytes: the most that this process, or any one of its children, has had in memory."""
    import resource

    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in who) * 1024
