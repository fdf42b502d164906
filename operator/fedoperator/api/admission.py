"""What is wrong with a FederatedTraining, each in one sentence for the person who wrote it.

Everything that the schema and CEL of the CRD refuse, and what they cannot afford to look at.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pydantic
import pydantic_core

from fedoperator.api import API_VERSION, changes, crd, metadata, rules, sentences
from fedoperator.api.sentences import Path
from fedoperator.api.trainer import TrainerFields
from fedoperator.api.training import KIND, Participant, TrainingSpec

PARAMETERS_LIMIT = 32 * 1024
"""Bytes of spec.parameters as JSON: they travel in an environment variable."""

PARAMETERS_DEPTH = 64
"""Levels of mappings and lists in spec.parameters; what reads JSON anywhere reads as many."""

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """field: where, as kubectl spells it. sentence: what is wrong there, and the remedy.

    beyond: neither the schema nor CEL of the CRD can say it; the operator does, in a condition.
    """

    field: str
    value: object
    sentence: str
    beyond: bool = False

    def __str__(self) -> str:
        return f"{self.field}: {self.sentence}"


def problems(old: dict[str, Any] | None, new: dict[str, Any]) -> list[Problem]:
    """What the API server or the operator would refuse; none for a training that can be run.

    old: the training as it is in the cluster, or None for a new one. Both are plain documents.
    """
    foreign = list(_foreign(new))
    if any(problem.value is not None for problem in foreign):
        return foreign
    found = [*foreign, *_around(new)]
    spec = new.get("spec")
    if not isinstance(spec, dict):
        what = "is missing" if spec is None else f"{sentences.shown(spec)} is not a mapping"
        return [*found, Problem("spec", spec, f"{what}; write what is wanted there")]
    found += _duplicates(spec, crd.spec_schema(), ("spec",))
    spec = _with_whole_numbers(spec, crd.spec_schema())
    try:
        parsed = TrainingSpec.model_validate(spec, strict=True, by_alias=True, by_name=False)
    except pydantic.ValidationError as error:
        return [*found, *(_from_pydantic(detail) for detail in error.errors(include_url=False))]
    found += _across(parsed)
    found += _exchange_mounted(parsed, new)
    return [*found, *_changed(old, parsed)]


def _foreign(document: dict[str, Any]) -> Iterator[Problem]:
    """Something else than a FederatedTraining of this version has no spec to look at."""
    for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        given = document.get(field)
        if given is None:
            yield Problem(field, None, f"is missing; write {wanted}")
        elif given != wanted:
            yield Problem(field, given, f"{sentences.shown(given)} is not {wanted}; write that")


def _around(document: dict[str, Any]) -> Iterator[Problem]:
    """Beside the spec."""
    for field in document:
        if field not in _TOP:
            yield Problem(str(field), field, sentences.unknown(field, _TOP))
    for field, value, sentence in metadata.found(document.get("metadata")):
        yield Problem(field, value, sentence)


def _duplicates(value: Any, schema: crd.Schema, path: Path) -> Iterator[Problem]:
    """In lists keyed by name and in sets, wherever they are."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key in schema.get("properties", {}):
                yield from _duplicates(child, schema["properties"][key], (*path, key))
    if not isinstance(value, list):
        return
    kind = schema.get("x-kubernetes-list-type")
    first: dict[str, int] = {}
    for index, item in enumerate(value):
        name = item.get("name") if kind == "map" and isinstance(item, dict) else item
        if kind in ("map", "set") and isinstance(name, str):
            before = first.setdefault(name, index)
            if before != index:
                here = (*path, index, "name") if kind == "map" else (*path, index)
                remedy = f"is {sentences.spelled((*path, before))} already; give it once"
                yield Problem(sentences.spelled(here), name, f"{sentences.shown(name)} {remedy}")
        yield from _duplicates(item, schema.get("items", {}), (*path, index))


def _with_whole_numbers(value: Any, schema: crd.Schema) -> Any:
    """As on the API server, where 5.0 is a whole number like 5."""
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        known = ((key, child, properties.get(key, others)) for key, child in value.items())
        return {key: _with_whole_numbers(v, of) if of else v for key, v, of in known}
    if isinstance(value, list) and "items" in schema:
        return [_with_whole_numbers(item, schema["items"]) for item in value]
    whole = schema.get("type") == "integer" or schema.get("x-kubernetes-int-or-string")
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


def _from_pydantic(detail: pydantic_core.ErrorDetails) -> Problem:
    path: Path = ("spec", *detail["loc"])
    if detail["type"] == "rule":
        path = (*path, *filter(None, detail["ctx"]["field"].split(".")))
        return Problem(sentences.spelled(path), detail["input"], detail["ctx"]["sentence"])
    value = None if detail["type"] == "missing" else detail["input"]
    return Problem(sentences.spelled(path), value, sentences.of(detail, crd.spec_schema()))


def _across(spec: TrainingSpec) -> Iterator[Problem]:
    for rule in rules.SPEC:
        if not rule.holds(spec):
            value = rule.values[0][1](spec) if rule.values else None
            yield Problem(f"spec.{rule.field}", value, rule.sentence(spec))
    yield from _parameters(spec)
    yield from _mounts(spec)
    yield from _shared_scratch(spec)


def _parameters(spec: TrainingSpec) -> Iterator[Problem]:
    """They travel as JSON, in an environment variable."""
    yield from _free("spec.parameters", spec.parameters)
    if spec.fine_tune is not None:
        yield from _free("spec.personalization.fineTune.parameters", spec.fine_tune.parameters)


def _free(field: str, given: dict[str, Any]) -> Iterator[Problem]:
    deep = f"more than {PARAMETERS_DEPTH} levels of mappings and lists; use fewer"
    try:
        text = json.dumps(given, separators=(",", ":"), default=str, allow_nan=False)
    except ValueError:
        what = "NaN, infinity and what contains itself cannot be written as JSON"
        yield Problem(field, None, f"{what}; use numbers, or text in quotes")
        return
    except RecursionError:
        yield Problem(field, None, deep, beyond=True)
        return
    if (size := len(text)) > PARAMETERS_LIMIT:
        remedy = f"use {PARAMETERS_LIMIT} or less, and a file in the image or a ConfigMap for more"
        sentence = f"{size} bytes of JSON are too much; {remedy}"
        yield Problem(field, size, sentence, beyond=True)
    elif _is_deep(given):
        yield Problem(field, None, deep, beyond=True)


def _is_deep(given: dict[str, Any]) -> bool:
    """Whether there are more than PARAMETERS_DEPTH levels, looked through one after the other."""
    level: list[Any] = [given]
    for _ in range(PARAMETERS_DEPTH):
        inside = [list(it.values()) if isinstance(it, dict) else it for it in level]
        level = [it for some in inside for it in some if isinstance(it, dict | list)]
    return bool(level)


def _mounts(spec: TrainingSpec) -> Iterator[Problem]:
    """Two mounts at one path; CEL would have to compare all pairs for every participant."""
    reported = _shared_path(spec.trainer, None)
    if reported:
        yield _mounted_twice("spec.trainer.volumes", reported)
    for index, participant in enumerate(spec.participants):
        path = _shared_path(spec.trainer_of(participant), participant)
        if path and path != reported:
            field = "trainer.volumes" if participant.data is None else "data.mountPath"
            yield _mounted_twice(f"spec.participants[{index}].{field}", path)
    evaluator = spec.evaluator
    if evaluator is not None:
        path = _shared_path(spec.trainer_of(spec.sites[-1]), spec.sites[-1])
        if path and path != reported:
            field = "trainer.volumes" if evaluator.data is None else "data.mountPath"
            yield _mounted_twice(f"spec.evaluation.evaluator.{field}", path)


def _shared_path(trainer: TrainerFields, participant: Participant | None) -> str | None:
    """The first path at which two things of a participant's pods would be mounted."""
    paths = [volume.mount_path.rstrip("/") for volume in trainer.volumes or ()]
    if trainer.shared_memory is not None:
        paths.append("/dev/shm")  # noqa: S108 - a path in the participant's container
    if participant is not None and participant.data is not None:
        paths.append(participant.data.mount_path.rstrip("/"))
    return next((path for path in paths if paths.count(path) > 1), None)


def _shared_scratch(spec: TrainingSpec) -> Iterator[Problem]:
    """One claim as the scratch of two; CEL would have to compare all pairs."""
    first: dict[str, int] = {}
    for index, participant in enumerate(spec.participants):
        if participant.scratch is None:
            continue
        claim = participant.scratch.claim_name
        before = first.setdefault(claim, index)
        if before != index:
            remedy = f"is the scratch of participants[{before}] already; give each one of its own"
            field = f"spec.participants[{index}].scratch.claimName"
            yield Problem(field, claim, f"{claim} {remedy}", beyond=True)


def _exchange_mounted(spec: TrainingSpec, document: dict[str, Any]) -> Iterator[Problem]:
    about = document.get("metadata")
    name = about.get("name") if isinstance(about, dict) else None
    # A name that is still to be generated makes a claim's name that no field can hold; the API
    # server, which knows the name, looks again.
    claim = spec.exchange.claim_of(str(name))
    for field in rules.exchange_mounts(spec, str(name)):
        yield Problem(f"spec.{field}", claim, rules.EXCHANGE_MOUNTED.format(claim))


def _mounted_twice(field: str, path: str) -> Problem:
    sentence = f"{path} is mounted twice; give each volume a path of its own"
    return Problem(field, path, sentence, beyond=True)


def _changed(old: dict[str, Any] | None, new: TrainingSpec) -> Iterator[Problem]:
    """What a training that has started does not let go."""
    status = (old or {}).get("status")
    if old is None or not isinstance(status, dict) or status.get("round") is None:
        return
    try:
        before = TrainingSpec.model_validate(old.get("spec"))
    except pydantic.ValidationError:
        # Stored before a change of the schema; whatever repairs it is welcome.
        return
    for field, sentence in changes.refused(before, new):
        yield Problem(field, None, sentence)
