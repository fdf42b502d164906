"""What a federation will need, before anything of it starts: pods, resources, bytes, space.

Exact where the file decides: pods, by `rehearsal`; sizes, by `sizes`. An early stop makes it less,
failures make it more.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from fedoperator.api.trainer import Resources
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import jobs, sizes
from fedoperator.rounds.rehearsal import Rehearsal, rehearsed
from fedoperator.rounds.sizes import Model
from fedoperator.rounds.workloads import Workload
from fedtrain.contract import Role

_SUFFIXES = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_MEMORY = 64 * 2**20
"""Bytes of an aggregator with two threads, whatever the size of the model and the number of its
updates: 55 MiB were measured with 8 and with 64 (benchmarks/results/2026-11-28-aggregation.md)."""
_STACK = 32 * 2**20
"""Bytes for a piece of every update at once, where a rule puts values in order."""
_ORDERING = ("Median", "TrimmedMean", "Bulyan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Bytes over the exchange in one round, by role: what its pods read, and what they write. Each
    file counts once for every pod that reads it: a second look at it finds it in the page cache."""

    read: Mapping[Role, int]
    written: Mapping[Role, int]

    @property
    def total(self) -> int:
        return sum(self.read.values()) + sum(self.written.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """pods: all, by role. per_round: of the busiest round. at_most: at one time. jobs: Jobs at one
    time, with those that are over and kept for two rounds. held: resources at the time of at_most.
    per_round_resources: asked for by the pods of the busiest round.

    The rest is None where nobody knows how large the model is: moved, in the busiest round;
    moved_in_all; written, all that is ever written; peak and end, bytes on the exchange; memory of
    each aggregator's pod; folded: bytes that one aggregation reads from updates.
    """

    rounds: int
    exact: bool
    pods: Mapping[Role, int]
    per_round: Mapping[Role, int]
    at_most: int
    jobs: int
    held: Mapping[str, Decimal]
    per_round_resources: Mapping[str, Decimal]
    largest: tuple[Workload, ...]
    model_bytes: int | None = None
    update_bytes: int | None = None
    moved: Moved | None = None
    moved_in_all: int | None = None
    peak: int | None = None
    end: int | None = None
    memory: int | None = None
    folded: int | None = None

    @property
    def total(self) -> int:
        return sum(self.pods.values())


def forecast(spec: TrainingSpec, name: str, model: Model | None) -> Forecast:
    """model: None if nobody knows it."""
    play = rehearsed(spec, name)
    busiest = max(play.pods, key=lambda n: (play.pods[n].total(), -n))
    counted = Counter[Role]()
    for counts in play.pods.values():
        counted.update(counts)
    if not play.whole:
        counted = _extended(play, spec, counted)
    result = Forecast(
        rounds=spec.rounds,
        exact=play.whole,
        pods=counted,
        per_round=play.pods[busiest],
        at_most=sum(w.nodes for w in play.most),
        jobs=play.jobs,
        held=asked(play.most),
        per_round_resources=asked(w for w in play.made if w.identity.round == busiest),
        largest=_distinct(play.made),
    )
    return result if model is None else _with_bytes(result, spec, play, model)


def _extended(play: Rehearsal, spec: TrainingSpec, counted: Counter[Role]) -> Counter[Role]:
    """Rounds beyond those played are as the later half of these."""
    first = play.played // 2 + 1
    later = Counter[Role]()
    for number in range(first, play.played + 1):
        later.update(play.pods.get(number, Counter()))
    factor = (spec.rounds - play.played) / (play.played - first + 1)
    return Counter({role: n + round(later[role] * factor) for role, n in counted.items()})


def _with_bytes(result: Forecast, spec: TrainingSpec, play: Rehearsal, model: Model) -> Forecast:
    moved = {number: moved_in(spec, play, model, number) for number in play.invited}
    number = max(moved, key=lambda number: moved[number].total)
    peak, end = space(spec, play, model)
    initial = sizes.global_bytes(model, spec, 0, 0)
    in_all = sum(one.total for one in moved.values()) + initial
    if not play.whole:
        in_all = in_all * spec.rounds // play.played
    updates = [sizes.update_bytes(model, spec, p) for p in spec.participants]
    return replace(
        result,
        model_bytes=sizes.file_bytes(model.tensors),
        update_bytes=max(updates),
        moved=moved[number],
        moved_in_all=in_all,
        peak=peak,
        end=end,
        memory=_MEMORY + (_STACK if spec.strategy.name in _ORDERING else 0),
        folded=moved[number].read[Role.AGGREGATE] - _base_bytes(model, spec, number),
    )


def moved_in(spec: TrainingSpec, play: Rehearsal, model: Model, number: int) -> Moved:
    """In one round: its training, its aggregation, and the evaluation of its model."""
    whole = sizes.file_bytes(model.tensors)
    invited = [p for name in play.invited[number] if (p := spec.participant(name)) is not None]
    updates = sum(sizes.update_bytes(model, spec, p) + sizes.RECEIPT for p in invited)
    read = {
        Role.TRAIN: whole * sum(spec.trainer_of(p).nodes or 1 for p in invited),
        Role.AGGREGATE: updates + _base_bytes(model, spec, number),
    }
    written = {
        Role.TRAIN: updates,
        Role.AGGREGATE: sizes.global_bytes(model, spec, number, len(invited)),
    }
    for role, names in (
        (Role.EVALUATE, play.evaluated.get(number, ())),
        (Role.PERSONALIZE, tuple(p.name for p in spec.participants) if _last(spec, number) else ()),
    ):
        sites = [s for name in names if (s := spec.site(name)) is not None]
        if sites:
            read[role] = whole * sum(spec.trainer_of(s).nodes or 1 for s in sites)
            written[role] = sizes.RECEIPT * len(sites)
    return Moved(read=read, written=written)


def _last(spec: TrainingSpec, number: int) -> bool:
    return spec.fine_tune is not None and number == spec.rounds


def _base_bytes(model: Model, spec: TrainingSpec, number: int) -> int:
    """What an aggregation reads of the model that its round is based on."""
    return sizes.file_bytes(model.tensors) + sizes.state_bytes(model, spec, number - 1)


def space(spec: TrainingSpec, play: Rehearsal, model: Model) -> tuple[int, int]:
    """(most, at the end) bytes of files on the exchange, as `fedtrain.aggregation.prune` leaves
    them: old files go after the new model is there. Models kept for being the best count as if
    none of them were among the last."""
    globals_ = {0: sizes.global_bytes(model, spec, 0, 0)}
    updates: dict[int, int] = {}
    receipts: dict[int, int] = {}
    peak = sum(globals_.values())
    for number in sorted(play.invited):
        written = moved_in(spec, play, model, number).written
        globals_[number] = written[Role.AGGREGATE]
        updates[number] = written[Role.TRAIN]
        peak = max(peak, _sum(globals_, updates, receipts))
        base = number - 1
        globals_ = {
            n: size for n, size in globals_.items() if n > number - spec.keep.last or n == base
        }
        last = number - spec.keep.updates
        updates = {n: size for n, size in updates.items() if n > last}
        receipts = {n: size for n, size in receipts.items() if n >= last}
        receipts[number] = written.get(Role.EVALUATE, 0) + written.get(Role.PERSONALIZE, 0)
        peak = max(peak, _sum(globals_, updates, receipts))
    best = min(spec.keep.best, max(0, spec.rounds - spec.keep.last)) * globals_[max(globals_)]
    return peak + best, _sum(globals_, updates, receipts) + best


def _sum(*parts: Mapping[int, int]) -> int:
    return sum(sum(part.values()) for part in parts)


def asked(workloads: Iterable[Workload]) -> dict[str, Decimal]:
    """Resources by name, over all pods: what limits say, and requests where they say nothing."""
    total: dict[str, Decimal] = {}
    for workload in workloads:
        for name, amount in each(workload).items():
            total[name] = total.get(name, Decimal()) + amount * workload.nodes
    return total


def each(workload: Workload) -> dict[str, Decimal]:
    """What the scheduler looks for, for one pod of it."""
    given: Resources | None = workload.training.spec.aggregation.resources
    if workload.trainer is not None:
        given = workload.trainer.resources
    elif given is None:
        own: Mapping[str, str] = jobs.OWN_RESOURCES["requests"]
        return {name: quantity(amount) for name, amount in own.items()}
    if given is None:
        return {}
    asked_for = {**(given.limits or {}), **(given.requests or {})}
    return {name: quantity(amount) for name, amount in asked_for.items()}


def _distinct(made: Iterable[Workload]) -> tuple[Workload, ...]:
    """One workload for each (role, participant): what a cluster has to have room for."""
    found: dict[tuple[Role, str], Workload] = {}
    for workload in made:
        found.setdefault((workload.identity.role, workload.identity.participant), workload)
    return tuple(found.values())


def quantity(text: str | int) -> Decimal:
    """A Kubernetes quantity that has passed validation: 100m, 1.5Gi, 2e3."""
    given = str(text)
    if given.endswith("i"):
        return Decimal(given[:-2]) * Decimal(1024) ** "_KMGTPE".index(given[-2])
    if given[-1:].isdigit() or given[-1:] == ".":
        return Decimal(given)
    thousands: Decimal = Decimal(given[:-1]) * Decimal(1000) ** _SUFFIXES[given[-1]]
    return thousands
