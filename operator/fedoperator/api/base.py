"""The pieces both resources are made of: the model base class, names, durations, conditions."""

import dataclasses
import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import pydantic
import pydantic_core
from pydantic.alias_generators import to_camel

NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_LIMIT = 40
DURATION_PATTERN = "^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$"
WHOLE = 2**53 - 1
"""The largest whole number that every reader of JSON reads exactly."""

KEYED_BY_NAME: dict[str, Any] = {
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}
"""For lists of a spec: a second entry of the same name is refused, and two appliers can share."""


ATOMIC: dict[str, Any] = {"x-kubernetes-map-type": "atomic"}
"""For mappings with one owner: at 1,000 participants, who owns which field of whom would take more
room in etcd than the training."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What types cannot say of a model, twice: in CEL for the API server, in Python for all others.

    says: a sentence with the remedy; {0}, {1} stand for `values`, each (CEL, Python).
    field: whom the sentence is about, below the model, in the names of the API.
    """

    cel: str
    holds: Callable[[Any], bool]
    says: str
    field: str = ""
    values: tuple[tuple[str, Callable[[Any], object]], ...] = ()

    def sentence(self, model: "Model") -> str:
        return self.says.format(*(value(model) for _, value in self.values))


class Model(pydantic.BaseModel):
    """Frozen, closed, camelCase outside and snake_case inside; a docstring is its description."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _null_is_nothing(cls, given: Any) -> Any:
        """As on the API server: null is left out, except where it is a choice, or unknown."""
        if not isinstance(given, dict) or None not in given.values():
            return given
        return {key: v for key, v in given.items() if v is not None or key not in _omitted(cls)}

    @pydantic.model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                context = {"sentence": rule.sentence(self), "field": rule.field}
                raise pydantic_core.PydanticCustomError("rule", "{sentence}", context)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values under the names of the API, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@functools.cache
def _omitted(model: type[Model]) -> frozenset[str]:
    """The fields in which null means the same as nothing, under both of their names."""
    usual = [
        (name, field.alias or name)
        for name, field in model.model_fields.items()
        if field.default is None or type(None) not in get_args(field.annotation)
    ]
    return frozenset(name for names in usual for name in names)


class StatusModel(Model):
    """As `Model`, but open: a newer operator may have written fields that this one ignores."""

    model_config = pydantic.ConfigDict(extra="ignore")


Name = Annotated[
    str,
    pydantic.Field(
        pattern=NAME_PATTERN,
        min_length=1,
        max_length=NAME_LIMIT,
        title="name of lower-case letters, digits and -",
        json_schema_extra={"example": "hospital-a"},
    ),
]
Short = Annotated[str, pydantic.Field(max_length=253, title="text")]
Sentence = Annotated[str, pydantic.Field(max_length=2048, title="text")]
Duration = Annotated[
    str,
    pydantic.Field(
        pattern=DURATION_PATTERN,
        min_length=2,
        max_length=24,
        title="duration",
        json_schema_extra={"example": "1h30m"},
    ),
]
"""Like 90s, 30m or 1h30m."""

Metrics = Annotated[dict[str, float], pydantic.Field(max_length=20)]


@functools.lru_cache(maxsize=1024)
def seconds(duration: str) -> timedelta:
    """The length of a `Duration` that has passed validation."""
    amounts = re.findall(r"([0-9]+)([hms])", duration)
    return timedelta(seconds=sum(int(n) * {"h": 3600, "m": 60, "s": 1}[u] for n, u in amounts))


def timestamp(moment: datetime) -> datetime:
    """A moment as statuses hold it: UTC, whole milliseconds, so that it survives the API server."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Condition(StatusModel):
    """A Kubernetes condition (KEP-1623)."""

    type: Annotated[Short, pydantic.Field(min_length=1)]
    """Complete, Failed, Suspended or Blocked."""

    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""

    reason: Short
    """One CamelCase word; events and metrics use the same."""

    message: Sentence = ""
    """One sentence for whoever must act, with the remedy."""

    last_transition_time: datetime
    """When status last changed."""

    observed_generation: int | None = None
    """Of the spec that this is about."""


class GlobalModel(StatusModel):
    """A published global model."""

    round: int
    """That made it."""

    path: Short
    """Of the safetensors file, or of the index file of several, relative to the root of the
    exchange's claim."""

    digest: Short
    """Layout-free: the same for one file or many shards. A strategy with a state of its own adds
    that state's after a plus sign."""

    base_model: Short | None = None
    """Digest of the frozen base model that it goes with."""

    @property
    def folder(self) -> str:
        """Its folder relative to the training's own folder on the exchange: global/<round>/<n>."""
        return self.path.split("/", 1)[1].rsplit("/", 1)[0]
