"""The operator's end of the line to a training's hub; see `fedtrain.aggregation.hub` for the other.

Both shells use it. A thread keeps the line up; what it hears is there to be read at any time, and
everything that the hub is to know is said again on every new line, so that neither side's end
loses anything.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fedoperator.rounds import observed, results
from fedoperator.rounds.observed import Report
from fedoperator.rounds.plan import Plan
from fedtrain import contract

SILENCE = 3 * contract.HUB_BEAT
LONGEST_PAUSE = 2.0

BYTES_A_SECOND = 8 * 1024 * 1024
"""That are taken from one hub: who says more is read later, and takes no look from the others."""

MOST_TELLERS = 2048
"""Of one training: a thousand participants, as many that came for others, an evaluator and the hub.
Of whatever else answers at a hub's address no more is remembered either."""


class Link:
    """One hub, at an address that is its own: another hub is another link.

    news: called in the link's thread whenever a report has come.
    """

    def __init__(
        self, address: tuple[str, int], token: str, news: Callable[[], None] = lambda: None
    ) -> None:
        self.address = address
        self.token = token
        self.problem = ""
        """Why there is no line, in a sentence; empty while there is one."""
        self.heard_since: datetime | None = None
        """Since when this hub has told everything that it knows."""
        self.begun_at = time.monotonic()
        self._broken_at: float | None = None
        """Since when there has been no line that told everything; None while there is one."""
        self._news = news
        self._reports: dict[str, dict[str, Report]] = {}
        """Participant → id of a piece of work → what was last told of it."""
        self._wanted: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._synced = threading.Event()
        self._socket: socket.socket | None = None
        self._closed = False
        threading.Thread(target=self._keep, name="hub", daemon=True).start()

    def reports(self) -> tuple[Report, ...]:
        """All that was heard and is not too old to matter."""
        with self._lock:
            return tuple(r for of_one in self._reports.values() for r in of_one.values())

    def wait(self, seconds: float) -> bool:
        """Until the hub has told everything that it knows; whether it has."""
        return self._synced.wait(seconds)

    def is_lost(self) -> bool:
        """Whether the line has been broken for longer than a hub may be silent."""
        broken = self._broken_at
        return broken is not None and time.monotonic() - broken > SILENCE

    def tell(self, plan: Plan) -> None:
        """What is to be done now, if that has changed since the last time."""
        tasks = {
            contract.task_id(w.task): {
                "carrier": w.carrier or "",
                "task": contract.encode_task(w.task),
            }
            for w in plan.handed
        }
        wanted = {
            "tasks": tasks,
            "ended": list(plan.released),
            "round": plan.status.round,
            "over": plan.over,
        }
        with self._lock:
            if wanted == self._wanted:
                return
            self._wanted = wanted
            oldest = plan.status.round - 2
            left = {
                who: {n: r for n, r in of_one.items() if r.identity.round >= oldest or n in tasks}
                for who, of_one in self._reports.items()
            }
            self._reports = {who: of_one for who, of_one in left.items() if of_one}
            self._send(wanted)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the listener notices, and makes another line
                self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _keep(self) -> None:
        pause = 0.02
        while not self._closed:
            try:
                with socket.create_connection(self.address, timeout=SILENCE) as line:
                    # A free port may be taken for our own end, and nobody could listen there then.
                    if line.getsockname() == line.getpeername():
                        raise OSError("nobody listens there, the line leads back to us")
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    with self._lock:
                        self._socket = line
                        self._send({"operator": self.token})
                        if self._wanted is not None:
                            self._send(self._wanted)
                    pause = 0.02
                    self._listen(line)
            except (OSError, ValueError) as error:
                self.problem = f"the hub at {self.address[0]}:{self.address[1]}: {error}"
            finally:
                with self._lock:
                    self._socket = None
                    self._broken_at = self._broken_at or time.monotonic()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _listen(self, line: socket.socket) -> None:
        rest, heard_at, beat_at = b"", time.monotonic(), 0.0
        line.settimeout(contract.HUB_BEAT)
        while not self._closed:
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + contract.HUB_BEAT
                with self._lock:
                    self._send({"beat": 1})
            with contextlib.suppress(TimeoutError):
                chunk = line.recv(1 << 18)
                if not chunk:
                    raise OSError("it closed the line")
                rest, heard_at = rest + chunk, time.monotonic()
                time.sleep(len(chunk) / BYTES_A_SECOND)
            if time.monotonic() - heard_at > SILENCE:
                raise OSError(f"nothing was heard for {SILENCE:.0f} s")
            *texts, rest = rest.split(b"\n")
            if len(rest) > contract.HUB_LINE_LIMIT:
                raise ValueError("a message is too long")
            self._heard([_message(text) for text in texts])

    def _heard(self, messages: Sequence[Mapping[str, Any]]) -> None:
        now, news = datetime.now(UTC), False
        for message in messages:
            for name, said in (message.get("reports") or {}).items():
                found = observed.report(name, said, now)
                if found is not None:
                    kept = results.kept(found.identity.role, found.result)
                    with self._lock:
                        news |= self._remember(name, replace(found, result=kept))
            if "reports" in message and not message.get("more"):
                self.problem = ""
                news |= self._broken_at is not None
                self._broken_at = None
                if not self._synced.is_set():
                    self.heard_since, news = now, True
                    self._synced.set()
        if news:
            self._news()

    def _remember(self, name: str, new: Report) -> bool:
        """Whether it is news."""
        of_it = self._reports.setdefault(new.identity.participant, {})
        if len(self._reports) > MOST_TELLERS:
            del self._reports[next(iter(self._reports))]
        old = of_it.get(name)
        if old is not None and (old.carrier, old.state) == (new.carrier, new.state):
            return False
        of_it.pop(name, None)
        of_it[name] = new
        if len(of_it) > contract.HUB_REPORTS_EACH:
            del of_it[next(iter(of_it))]
        return True


def _message(text: bytes) -> Mapping[str, Any]:
    """One of a hub, or of whoever answers at its address. Raises ValueError."""
    try:
        message = json.loads(text)
        if b"\\u" in text:  # As in a termination message: half a surrogate pair is no text.
            whole = json.dumps(message, ensure_ascii=False)
            message = json.loads(whole.encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("a message is nested too deep") from None
    if not isinstance(message, dict) or not isinstance(message.get("reports") or {}, dict):
        raise ValueError("a message is none of a hub's")
    return message
