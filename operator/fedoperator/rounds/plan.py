"""What `decide` returns: a value that a shell commits in one order, always.

First what was learned (records, then the training's status), then creations, then deletions. A
crash after any prefix of these writes is safe; deletions before the status would count an attempt
twice (tests/rounds/test_crashes.py shows both).
"""

from dataclasses import dataclass
from datetime import datetime

from fedoperator.api.round import Record
from fedoperator.api.status import TrainingStatus
from fedoperator.rounds.observed import Child
from fedoperator.rounds.workloads import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Kubernetes event about the training; emitted only once its status has been written."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next writes, and when to look again without being woken (None: only when woken).

    records: those that are new (resource_version "") or whose status changed. forget_before:
    FederatedRounds of rounds before this one are beyond spec.history (said with every plan).
    handed: all work that those who stay are to have now, said again with every plan; released: who
    of them is to end when it can; over: all of them.
    """

    status: TrainingStatus
    records: tuple[Record, ...] = ()
    create: tuple[Workload, ...] = ()
    delete: tuple[Child, ...] = ()
    handed: tuple[Workload, ...] = ()
    released: tuple[str, ...] = ()
    over: bool = False
    forget_before: int | None = None
    events: tuple[Event, ...] = ()
    wake_at: datetime | None = None
