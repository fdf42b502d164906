"""FederatedRound: one per round, the lab book and the lineage. `kubectl get fedr` reads it."""

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fedoperator.api.base import (
    ATOMIC,
    GlobalModel,
    Metrics,
    Model,
    Name,
    Sentence,
    Short,
    StatusModel,
)
from fedoperator.api.status import Personalized, Spreads

KIND = "FederatedRound"
PLURAL = "federatedrounds"

State = Literal[
    "Invited",  # its child is asked for, not all its pods are ready
    "Running",  # all its pods have been ready
    "Retrying",  # its attempt failed; the next one starts at notBefore
    "Suspended",  # its child was taken away by suspend; the next attempt starts on resume
    "Reported",  # it succeeded
    "Accepted",  # its update is part of the global model
    "Rejected",  # its update did not pass inspection
    "Failed",  # no attempt is left
    "Late",  # the deadline passed
    "Dropped",  # it is no participant of the training any more
]
OPEN: frozenset[State] = frozenset({"Invited", "Running", "Retrying", "Suspended"})
LIVE: frozenset[State] = frozenset({"Invited", "Running"})
LOST: frozenset[State] = frozenset({"Failed", "Late", "Rejected", "Dropped"})


class Assignment(StatusModel):
    """One piece of work of a round given to one pod set, through all its attempts."""

    name: Short = ""
    """The participant; empty for the preparation and the aggregation."""

    state: State = "Invited"
    """Where it stands. Accepted is final; participants that are Failed, Late, Rejected or Dropped
    are invited again if the quorum is missed."""

    attempt: int = 1
    """The latest, from 1."""

    failures: int = 0
    """Attempts that count against spec.retries."""

    failure: Short = ""
    """The class of the last failure: Free, Counted, Contract, Data, or Verdicts: an aggregation
    found updates that cannot be accepted, and the round is decided again."""

    last_failure: Sentence = ""
    """What the last failed attempt failed of, also when a later one succeeded."""

    reason: Short = ""
    """Why it is not further, now: of a failure, a rejection, or of pods that cannot start."""

    message: Sentence = ""
    """The reason as a sentence."""

    started_at: datetime | None = None
    """When all pods of this attempt were first ready. Of 500 invited or more, only while it is
    open."""

    not_before: datetime | None = None
    """When the next attempt starts."""

    samples: int | None = None
    """As reported, in the unit of spec.weight."""

    weight: float | None = None
    """Its share of the mean, n_k/n."""

    seconds: float | None = None
    """As the process measured itself."""

    norm: float | None = None
    """Of an accepted update's parameters, in three digits; of some 150 or fewer."""

    cosine: float | None = None
    """Between an accepted update and what the round combined, of samples of both."""

    digest: Short | None = None
    """Of the published update or model."""

    base_model: Short | None = None
    """Digest of the frozen base model, as the init role found it."""

    metrics: Metrics = {}
    """As the script reported them."""

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A thousand times `"failures":0,"failure":""` would take more room than the digests."""
        kept = {key: v for key, v in dump(self).items() if v not in ("", {}) and v is not None}
        if not self.failures:
            del kept["failures"]
        return kept

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def is_lost(self) -> bool:
        """Whether it is over without a part in the model."""
        return self.state in LOST


class FineTuned(Assignment):
    """What a participant makes of the last global model for itself; metrics are those after."""

    before: Metrics = {}
    """The metrics of the global model here, before it was trained."""


class Candidate(StatusModel):
    """An attempt whose update the aggregation reads."""

    name: Short
    """The participant."""

    attempt: int = 1
    """Which of the participant's attempts published it; left out if it was the first."""

    @model_serializer(mode="wrap")
    def _without_the_first(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: v for key, v in dump(self).items() if v != 1}


class Range(StatusModel):
    """Of a value that each accepted update has."""

    least: float
    """Of all."""

    median: float
    """Half of them are below."""

    most: float
    """Of all."""


class Measured(StatusModel):
    """What the aggregation measured of itself."""

    bytes: int = 0
    """Read from update files."""

    seconds: float = 0.0
    """From its start to the published model."""

    peak_memory: int = 0
    """Bytes."""

    residual: float | None = None
    """Of adapters: how far the published products are from the exact weighted sum of the
    participants', relative to its size, in the Frobenius norm."""

    norms: Range | None = None
    """Of the accepted updates."""

    cosines: Range | None = None
    """Between each accepted update and what they were combined to."""

    exchange_free: int | None = None
    """Bytes left on the exchange's volume."""

    exchange_size: int | None = None
    """Bytes of the exchange's volume."""


class Accelerators(StatusModel):
    """Seconds of accelerators, GPUs for example, summed over all pods of a round."""

    held: float = 0.0
    """While all pods of an attempt were ready; of pods that stay, all through the round."""

    used: float = 0.0
    """As measured by the processes whose attempts reported."""


Rounds = Annotated[
    dict[str, Annotated[int, Field(ge=1)]], Field(max_length=1000, json_schema_extra=ATOMIC)
]
Durations = Annotated[
    dict[str, Annotated[float, Field(ge=0)]], Field(max_length=10, json_schema_extra=ATOMIC)
]
RoundPhase = Literal["Preparing", "Initialising", "Training", "Aggregating", "Published"]


class RoundSpec(Model):
    """Written once, when the round begins."""

    training: Name
    """Name of the FederatedTraining."""

    round: Annotated[int, Field(ge=0)]
    """0 is the making of the initial model."""

    generation: int = 1
    """Of the training, when the round began."""

    invited: Annotated[list[Name], Field(min_length=1, max_length=1000)]
    """The participants selected for this round."""

    losing: Rounds = {}
    """By participant, rounds lost in a row before this one, by its own fault."""

    quarantined: Rounds = {}
    """By participant, the last round that it is left out of, until an update of it is accepted; one
    that is invited all the same was needed."""


class RoundStatus(StatusModel):
    """Who took part, with what, and what came of it."""

    phase: RoundPhase = "Preparing"
    """Published is final."""

    started_at: datetime | None = None
    """When the round began, before anything of it ran."""

    phase_since: datetime | None = None
    """When the round came into this phase, or was suspended in it."""

    durations: Durations = {}
    """Seconds spent so far in each phase that is over, in Suspended, and in Evaluating, which
    overlaps the next round."""

    accelerators: Accelerators | None = None
    """Of the participants' pods that are over, if they have any."""

    published_at: datetime | None = None
    """When its global model was there; the evaluation may come later."""

    quorum_at: datetime | None = None
    """When the quorum's minimum had reported: the clock of those that never started."""

    misses: int = 0
    """How often the quorum was missed."""

    not_before: datetime | None = None
    """After a missed quorum: when the others are invited again."""

    prepare: Assignment | None = None
    """The making of the participants' folders on the exchange."""

    prepare_generation: int = 0
    """Of the training: the spec whose participants the preparation is for."""

    init: Assignment | None = None
    """Of round 0: the pods that make or import the initial model."""

    participants: Annotated[list[Assignment], Field(max_length=1000)] = []
    """Everyone invited."""

    candidates: Annotated[list[Candidate], Field(max_length=1000)] = []
    """Fixed before the aggregation reads the first byte. Of 500 invited or more they are left out
    once the model is published: Accepted and Rejected say the same."""

    aggregation: Assignment | None = None
    """The pod that makes the global model of the candidates."""

    measured: Measured | None = None
    """By the aggregation that made the global model."""

    evaluating_since: datetime | None = None
    """The clock of evaluations that never started."""

    evaluation: Annotated[list[Assignment], Field(max_length=1000)] = []
    """Who measures this round's global model."""

    global_model: GlobalModel | None = None
    """What came of the round."""

    metrics: Metrics = {}
    """Of this round's global model, weighted over those that evaluated it."""

    spread: Spreads = {}
    """Who is worst and who is best by each metric, of those that evaluated it."""

    personalizing_since: datetime | None = None
    """The clock of fine-tuning that never started."""

    personalization: Annotated[list[FineTuned], Field(max_length=1000)] = []
    """Who trains the last global model for itself, and its metrics before and after."""

    personalized: Annotated[dict[str, Personalized], Field(max_length=20)] = {}
    """By metric, what came of it."""

    accepted: Short = ""
    """Accepted of invited."""

    shares: Short = ""
    """Who was accepted, with how many samples and which share, shortened for a column."""

    score: Short = ""
    """The metrics, shortened for a column."""

    worst: Short = ""
    """Where the metric of the column is worst, if several evaluated it."""

    def trained(self, metric: str) -> float | None:
        """What the accepted reported of it while they trained, in the mean that they counted in.

        None if nobody reported a finite value.
        """
        total = whole = 0.0
        for p in self.participants:
            value = p.metrics.get(metric)
            if p.state == "Accepted" and value is not None and math.isfinite(value):
                weight = 1.0 if p.weight is None else p.weight
                total, whole = total + weight * value, whole + weight
        return total / whole if whole and math.isfinite(total / whole) else None


class Record(StatusModel):
    """A FederatedRound as read from the cluster. resource_version is empty until it exists."""

    name: str
    uid: str = ""
    resource_version: str = ""
    spec: RoundSpec
    status: RoundStatus = RoundStatus()

    @classmethod
    def from_object(cls, document: dict[str, Any]) -> "Record":
        meta = document["metadata"]
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
            spec=RoundSpec.model_validate(document["spec"]),
            status=RoundStatus.model_validate(document.get("status") or {}),
        )


def record_name(training: str, number: int) -> str:
    """FederatedRounds are named after their training and number, padded to sort."""
    return f"{training}-{number:05d}"
