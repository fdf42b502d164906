"""What is wrong with the metadata of a training: its name, and what is written on it.

The rules of labels and annotations are Kubernetes' own (k8s.io/apimachinery, api/validation).
"""

import re
from collections.abc import Iterator
from typing import Any

import pydantic

from fedoperator.api import sentences
from fedoperator.api.base import NAME_LIMIT, Name

FIELDS = (
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
ANNOTATIONS_LIMIT = 256 * 1024
"""Bytes of all annotations of an object together, keys included."""

_SUFFIX = "x" * 5
"""As long as what the API server appends to generateName."""

_NAME: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Name)
_WORD = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DOMAIN = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"

Found = tuple[str, object, str]


def found(metadata: Any) -> Iterator[Found]:
    """(field, value, sentence) of what the API server would refuse."""
    if not isinstance(metadata, dict):
        yield "metadata", metadata, "is missing; give the training a name there"
        return
    for field in metadata:
        if field not in FIELDS:
            yield f"metadata.{field}", field, sentences.unknown(field, FIELDS)
    yield from _named(metadata.get("name"), metadata.get("generateName"))
    yield from _labels(metadata.get("labels"))
    yield from _annotations(metadata.get("annotations"))


def _named(name: object, generated: object) -> Iterator[Found]:
    remedy = f"use at most {NAME_LIMIT} lower-case letters, digits and -, beginning with a letter"
    if name in (None, ""):
        if generated in (None, ""):
            yield "metadata.name", name, "is missing; give the training a name"
        elif not isinstance(generated, str) or not _is_name(generated + _SUFFIX):
            what = f"{sentences.shown(generated)} and five characters are not the name of a"
            yield "metadata.generateName", generated, f"{what} training; {remedy}"
    elif not _is_name(name):
        sentence = f"{sentences.shown(name)} is not the name of a training; {remedy}"
        yield "metadata.name", name, sentence


def _is_name(given: object) -> bool:
    try:
        _NAME.validate_python(given, strict=True)
    except pydantic.ValidationError:
        return False
    return True


def _texts(field: str, given: object) -> Iterator[Found]:
    """Whatever is not a mapping of texts; null is an empty one."""
    if given is not None and not isinstance(given, dict):
        yield field, given, f"{sentences.shown(given)} is not a mapping; write key: value there"
        return
    for key, value in (given or {}).items():
        if value is not None and not isinstance(value, str):
            what = f"{sentences.shown(value)} is not a text; write it in quotes"
            yield f"{field}.{key}", value, what


def _labels(given: object) -> Iterator[Found]:
    wrong = list(_texts("metadata.labels", given))
    yield from wrong
    if wrong or not isinstance(given, dict):
        return
    for key, value in given.items():
        if not _is_qualified(key):
            yield f"metadata.labels.{key}", key, _not_a_key(key)
        if value and not re.fullmatch(_WORD, value):
            what = f"{sentences.shown(value)} is not the value of a label; use at most 63 letters,"
            yield f"metadata.labels.{key}", value, f"{what} digits, -, _ and ."


def _annotations(given: object) -> Iterator[Found]:
    wrong = list(_texts("metadata.annotations", given))
    yield from wrong
    if wrong or not isinstance(given, dict):
        return
    for key in given:
        if not _is_qualified(key.lower()):
            yield f"metadata.annotations.{key}", key, _not_a_key(key)
    texts = (text or "" for pair in given.items() for text in pair)
    size = sum(len(text.encode(errors="replace")) for text in texts)
    if size > ANNOTATIONS_LIMIT:
        sentence = f"{size} bytes are too much; use {ANNOTATIONS_LIMIT} or less"
        yield "metadata.annotations", size, sentence


def _is_qualified(key: object) -> bool:
    """A name, or a domain, a slash and a name."""
    if not isinstance(key, str):
        return False
    domain, slash, word = key.rpartition("/")
    if slash and not (len(domain) <= 253 and re.fullmatch(_DOMAIN, domain)):
        return False
    return re.fullmatch(_WORD, word) is not None


def _not_a_key(key: object) -> str:
    what = f"{sentences.shown(key)} is not the key of a label or an annotation; write it like"
    return f"{what} example.com/team"
