"""Progress for whoever waits, bounded waits, and the one exception that ends a verb."""

import collections.abc
import contextlib
import pathlib
import sys
import time

Ready = collections.abc.Callable[[], bool]


class DevclusterError(Exception):
    """A verb cannot go on; the message is one sentence for the user, then the evidence if any."""


def say(message: str) -> None:
    """One line of progress on stderr, so that stdout stays usable in ``$(...)``."""
    print(f"devcluster: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what: str) -> collections.abc.Iterator[None]:
    """Announce a step that takes a while, and its seconds once it is done."""
    say(f"{what} ...")
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.1f} s")


def tail(log: pathlib.Path, lines: int = 15) -> str:
    """The last lines of a log, empty when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 256 * 1024))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def wait_for(
    what: str,
    ready: Ready,
    *,
    seconds: float,
    log: pathlib.Path | None = None,
    alive: Ready | None = None,
) -> None:
    """Return as soon as `ready` holds; raise after `seconds`, or at once when `alive` fails.

    Every wait of this package goes through here, so none is without a limit: an unbounded loop
    outlives its terminal and then fights with the next one over the same pods.
    """
    began = time.monotonic()
    told = began
    while not ready():
        now = time.monotonic()
        dead = alive is not None and not alive()
        if dead or now - began > seconds:
            fate = "ended" if dead else f"is not ready after {seconds:.0f} s"
            evidence = f"\n--- {log}\n{tail(log)}" if log is not None else ""
            raise DevclusterError(f"{what} {fate}{evidence}")
        if now - told >= 5:
            told = now
            say(f"still waiting for {what} ({now - began:.0f} of at most {seconds:.0f} s)")
        time.sleep(0.1)
