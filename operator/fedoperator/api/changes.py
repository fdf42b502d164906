"""What may change once a training has started, in CEL and in Python."""

import operator
from collections.abc import Iterator

from fedoperator.api.training import Participant, TrainingSpec

FIXED = (
    "strategy",
    "selection",
    "weight",
    "aggregation.precision",
    "compression",
    "model",
    "parameters",
    "exchange",
    "personalization",
    "seed",
    "security",
)
"""Fields of a spec whose change would make another training of it."""

_OPTIONAL = frozenset({"compression", "personalization"})
"""Those of them that may be missing."""

IS_FIXED = "is fixed once the training has started; undo the change, or make another training"
WHILE_SUSPENDED = "changes only while suspended; set suspend: true with the change, then false"
PARTICIPANT_SUSPENDED = (
    "those that are there already change only while suspended; "
    "set suspend: true with the change, then false"
)


def transitions() -> Iterator[tuple[str, str, str]]:
    """(field, CEL over self and oldSelf at the root, sentence): what may change after the start."""
    # Of spec.parameters, which has no schema, the API server does not see that a name was
    # exchanged for another (1.37: it compares only names that both sides have); `changes` does.
    before = "!has(oldSelf.status) || !has(oldSelf.status.round)"
    for name in FIXED:
        field = f"spec.{name}"
        same = f"self.{field} == oldSelf.{field}"
        if name in _OPTIONAL:
            here, there = f"has(self.{field})", f"has(oldSelf.{field})"
            same = f"({here} == {there} && (!{here} || {same}))"
        yield field, f"{before} || {same}", IS_FIXED
    before += " || self.spec.suspend"
    unchanged = "self.spec.trainer == oldSelf.spec.trainer"
    yield "spec.trainer", f"{before} || {unchanged}", WHILE_SUSPENDED
    # The sum of two lists keyed by name keeps the later of two entries of one name, and equality
    # ignores the order: so the sums differ only where somebody in both lists changed. Linear,
    # where looking up each name in the other list is not affordable.
    new, old = "self.spec.participants", "oldSelf.spec.participants"
    yield "spec.participants", f"{before} || {new} + {old} == {old} + {new}", PARTICIPANT_SUSPENDED


def refused(old: TrainingSpec, new: TrainingSpec) -> Iterator[tuple[str, str]]:
    """(field, sentence) of what a started training does not let go; `transitions` in Python."""
    for name in FIXED:
        field = operator.attrgetter(name)
        if field(old) != field(new):
            yield f"spec.{name}", IS_FIXED
    if new.suspend:
        return
    if old.trainer != new.trainer:
        yield "spec.trainer", WHILE_SUSPENDED
    before: dict[str, Participant] = {p.name: p for p in old.participants}
    for index, participant in enumerate(new.participants):
        if before.get(participant.name, participant) != participant:
            yield f"spec.participants[{index}]", f"{participant.name} {WHILE_SUSPENDED}"
