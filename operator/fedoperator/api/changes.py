"""What may change once a training has started, in CEL and in Python."""

import operator
from collections.abc import Iterator
from typing import Any

from pydantic.alias_generators import to_camel

from fedoperator.api.personal import Personalization
from fedoperator.api.training import Participant, TrainingSpec

FIXED = (
    "strategy",
    "selection",
    "weight",
    "aggregation.precision",
    "compression",
    "adapters",
    "model",
    "parameters",
    "optimizer_state",
    "exchange",
    "pods",
    "personalization",
    "seed",
    "security",
    "network",
)
"""Fields of a spec whose change would make another training of it."""

_OPTIONAL = frozenset({"compression", "adapters", "personalization"})
"""Those of them that may be missing."""

IS_FIXED = "is fixed once the training has started; undo the change, or make another training"
WHILE_SUSPENDED = "changes only while suspended; set suspend: true with the change, then false"
SCAFFOLD_KEEPS = (
    "with SCAFFOLD participants neither come nor go, as the server's control variate is the mean "
    "of all of theirs; undo the change, or make another training"
)
PARTICIPANT_SUSPENDED = (
    "those that are there already change only while suspended; "
    "set suspend: true with the change, then false"
)


def _spelled(name: str) -> str:
    return ".".join(["spec", *map(to_camel, name.split("."))])


def _same_or_missing(field: str) -> str:
    """CEL: an optional field is what it was."""
    here, there = f"has(self.{field})", f"has(oldSelf.{field})"
    return f"({here} == {there} && (!{here} || self.{field} == oldSelf.{field}))"


def transitions() -> Iterator[tuple[str, str, str]]:
    """(field, CEL over self and oldSelf at the root, sentence): what may change after the start."""
    # Of spec.parameters, which has no schema, the API server does not see that a name was
    # exchanged for another (1.37: it compares only names that both sides have); `policy` does.
    before = "!has(oldSelf.status) || !has(oldSelf.status.round)"
    for name in FIXED:
        field = _spelled(name)
        same = f"self.{field} == oldSelf.{field}"
        if name in _OPTIONAL:
            same = _same_or_missing(field)
        yield field, f"{before} || {same}", IS_FIXED
    new, old = "self.spec.participants", "oldSelf.spec.participants"
    # The sum of two lists keyed by name has each name once.
    same = f"size({new}) == size({old}) && size({new} + {old}) == size({old})"
    other = "self.spec.strategy.name != 'SCAFFOLD'"
    yield "spec.participants", f"{before} || {other} || ({same})", SCAFFOLD_KEEPS
    before += " || self.spec.suspend"
    unchanged = "self.spec.trainer == oldSelf.spec.trainer"
    yield "spec.trainer", f"{before} || {unchanged}", WHILE_SUSPENDED
    unchanged = _same_or_missing("spec.scheduling")
    yield "spec.scheduling", f"{before} || {unchanged}", WHILE_SUSPENDED
    # The sum keeps the later of two entries of one name, and equality ignores the order: so the
    # sums differ only where somebody in both lists changed. Linear, where looking up each name in
    # the other list is not affordable.
    yield "spec.participants", f"{before} || {new} + {old} == {old} + {new}", PARTICIPANT_SUSPENDED


def same(old: Any, new: Any) -> bool:
    """Equality as Kubernetes has it: true is not 1, though 1.0 is."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        pairs = zip(old, new, strict=False)
        return len(old) == len(new) and all(same(*pair) for pair in pairs)
    if isinstance(old, Personalization) and isinstance(new, Personalization):
        return same(old.to_dict(), new.to_dict())
    return bool(old == new)


def refused(old: TrainingSpec, new: TrainingSpec) -> Iterator[tuple[str, str]]:
    """(field, sentence) of what a started training does not let go; `transitions` in Python."""
    for name in FIXED:
        field = operator.attrgetter(name)
        if not same(field(old), field(new)):
            yield _spelled(name), IS_FIXED
    if new.strategy.name == "SCAFFOLD":
        there, here = ({p.name for p in spec.participants} for spec in (old, new))
        if there != here:
            yield "spec.participants", SCAFFOLD_KEEPS
    if new.suspend:
        return
    if old.trainer != new.trainer:
        yield "spec.trainer", WHILE_SUSPENDED
    if old.scheduling != new.scheduling:
        yield "spec.scheduling", WHILE_SUSPENDED
    before: dict[str, Participant] = {p.name: p for p in old.participants}
    for index, participant in enumerate(new.participants):
        if before.get(participant.name, participant) != participant:
            yield f"spec.participants[{index}]", f"{participant.name} {WHILE_SUSPENDED}"
