"""What may go wrong in one run, as values: numbered, drawn from a seed, told in a sentence."""

import random
from dataclasses import asdict, dataclass
from typing import Any

POSITIONS = ("before", "unanswered", "after")
"""The operator is killed: before its write is forwarded; after the commit and before the reply;
after the reply and before the next write."""

CODES = (409, 429, 500, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, at the `at`-th of what its kind counts, from 1.

    at a write: kill (position; stranger: its successor has another identity, and so waits for the
    lease to run out), lose (the reply). At a request: answer (code, in the server's place), delay
    (seconds). At a list: stale (that list as it was `age` answers before, `code` times). At an
    event of a watch: repeat, late (seconds), freeze (nothing comes for that long, then the
    connection breaks), cut, expire (410). At a Job of pods that stay: hub (it dies).
    """

    kind: str
    at: int
    position: str = ""
    stranger: bool = False
    code: int = 0
    seconds: float = 0.0
    age: int = 0

    def __str__(self) -> str:
        what = {
            "kill": f"killed {self.position} write {self.at}",
            "lose": f"the reply to write {self.at} is lost",
            "answer": f"request {self.at} is answered with {self.code}",
            "delay": f"request {self.at} takes {self.seconds:g} s",
            "stale": f"list {self.at} and {self.code - 1} more are {self.age} answers old",
            "repeat": f"event {self.at} comes twice",
            "late": f"event {self.at} comes {self.seconds:g} s late",
            "freeze": f"event {self.at} and all others are lost for {self.seconds:g} s",
            "cut": f"the connection breaks in place of event {self.at}",
            "expire": f"410 in place of event {self.at}",
        }[self.kind]
        return what + (", followed by a stranger" if self.stranger else "")

    def document(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value}


COUNTED = {
    "kill": "write",
    "lose": "write",
    "answer": "request",
    "delay": "request",
    "stale": "list",
    **dict.fromkeys(("repeat", "late", "freeze", "cut", "expire"), "event"),
}


def two_crashes(seed: str, writes: int) -> tuple[Fault, ...]:
    """Two kills anywhere; every tenth time the successor is a stranger."""
    draw = random.Random(seed)
    first, second = sorted((draw.randint(1, writes), draw.randint(1, writes)))
    stranger = draw.random() < 0.1
    return (
        Fault(kind="kill", at=first, position=draw.choice(POSITIONS), stranger=stranger),
        # The write in which it is killed is often made again, so this one may be the same.
        Fault(kind="kill", at=second + 1, position=draw.choice(POSITIONS)),
    )


def a_mix(seed: str, writes: int) -> tuple[Fault, ...]:
    """Three to eight faults of any kind."""
    draw = random.Random(seed)
    many = {"write": writes, "request": 5 * writes, "list": writes, "event": 2 * writes}
    found = []
    for _ in range(draw.randint(3, 8)):
        kind = draw.choice(sorted(COUNTED))
        fault = Fault(
            kind=kind,
            at=draw.randint(1, many[COUNTED[kind]]),
            position=draw.choice(POSITIONS) if kind == "kill" else "",
            stranger=kind == "kill" and draw.random() < 0.05,
            seconds=draw.choice((0.3, 1, 3, 11))
            if kind == "delay"
            else draw.choice((1, 3, 8))
            if kind in ("late", "freeze")
            else 0.0,
            code=draw.choice(CODES)
            if kind == "answer"
            else draw.randint(1, 4)
            if kind == "stale"
            else 0,
            age=draw.randint(1, 4) if kind == "stale" else 0,
        )
        found.append(fault)
    return tuple(found)
