"""What is measured, and what a measurement is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A federation of `participants` of whom `invited` take part in each of `rounds` rounds.

    kind: of the model, see `work`: empty, large or digits. framework: torch or numpy. only: the
    end of the names of the systems it is for; what else is compared elsewhere would take hours.
    """

    name: str
    kind: str
    framework: str = "torch"
    participants: int
    invited: int
    rounds: int
    limit: float = 600.0
    only: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What `work` reads; one thread for everybody, as fedtrain has it by default."""
        return {
            "BENCH_KIND": self.kind,
            "BENCH_FRAMEWORK": self.framework,
            "BENCH_PARTS": str(self.participants),
            "OMP_NUM_THREADS": "1",
        }


TASKS: tuple[Task, ...] = (
    Task(name="empty, numpy", kind="empty", framework="numpy", participants=2, invited=2, rounds=5),
    Task(name="empty", kind="empty", participants=2, invited=2, rounds=5),
    Task(name="empty, 8 participants", kind="empty", participants=8, invited=8, rounds=4),
    Task(
        name="handover, 8 participants",
        kind="empty",
        participants=8,
        invited=8,
        rounds=41,
        only="Resident",
    ),
    Task(name="100 M parameters", kind="large", participants=2, invited=2, rounds=4),
    Task(name="digits", kind="digits", participants=5, invited=3, rounds=10, limit=900.0),
)


class Marks:
    """When each round's first participant began and its last one ended, by the wall clock."""

    def __init__(self) -> None:
        self._began: dict[int, float] = {}
        self._ended: dict[int, float] = {}

    def add(self, number: int, what: str, moment: float) -> None:
        if what == "began":
            self._began[number] = min(moment, self._began.get(number, moment))
        else:
            self._ended[number] = max(moment, self._ended.get(number, moment))

    @classmethod
    def of_stamps(cls, folder: Path) -> Self:
        """As `work.stamp` has left them."""
        marks = cls()
        for path in folder.iterdir():
            for line in path.read_text().splitlines():
                number, what, moment = line.split()
                marks.add(int(number), what, float(moment))
        return marks

    @classmethod
    def of_records(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """As `script` has put them into the metrics of FederatedRounds."""
        marks = cls()
        for record in records:
            for participant in record["status"].get("participants", ()):
                for what in ("began", "ended"):
                    if what in participant.get("metrics", {}):
                        number = record["spec"]["round"]
                        marks.add(number, what, participant["metrics"][what])
        return marks

    def periods(self, rounds: int) -> list[float]:
        """From the first step of each round to that of the next. Raises ValueError."""
        self._check(rounds)
        return [self._began[n + 1] - self._began[n] for n in range(1, rounds)]

    def gaps(self, rounds: int) -> list[float]:
        """From the last hand-in of each round to the first step of the next. Raises ValueError."""
        self._check(rounds)
        return [self._began[n + 1] - self._ended[n] for n in range(1, rounds)]

    def _check(self, rounds: int) -> None:
        if not sorted(self._began) == sorted(self._ended) == list(range(1, rounds + 1)):
            raise ValueError(f"rounds {sorted(self._began)} began, of {rounds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """total: seconds from the command to the final model. peak: bytes of resident memory of all
    processes of the system together. processor: seconds of processor that all of them took, with
    start and end. failed: why there are no figures.
    """

    system: str
    task: Task
    periods: Sequence[float] = ()
    gaps: Sequence[float] = ()
    total: float = 0.0
    peak: int = 0
    processor: float = 0.0
    accuracy: float | None = None
    failed: str = ""


def measured(system: str, task: Task, marks: Marks, **more: Any) -> Measured:
    periods, gaps = marks.periods(task.rounds), marks.gaps(task.rounds)
    return Measured(system=system, task=task, periods=periods, gaps=gaps, **more)
