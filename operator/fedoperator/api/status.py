"""The status of a FederatedTraining: how far, how good, why not."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from fedoperator.api.base import Condition, GlobalModel, Metrics, Sentence, Short, StatusModel


class Counts(StatusModel):
    """The participants of the current round."""

    invited: int = 0
    """Everyone invited in this round, also those that were removed from the spec since."""

    running: int = 0
    """With all their pods ready."""

    reported: int = 0
    """Reported or Accepted."""

    failed: int = 0
    """Failed, Late, Rejected or Dropped."""

    quarantined: int = 0
    """Left out for having lost too many rounds."""


class Best(StatusModel):
    """A global model by the value of a metric: stop.metric, or keep.metric."""

    metric: Short = ""
    """What the metric was; the best of another one does not count."""

    mode: Literal["Max", "Min"] = "Max"
    """Whether more or less of it was better."""

    round: int
    """Of the global model."""

    value: float
    """Of the metric."""

    of: Literal["Mean", "Worst", "Best"] = "Mean"
    """What stop.of was; keep.metric is read by its mean."""

    model: GlobalModel | None = None
    """The one that was measured; keep.best says how many of these stay on the exchange."""


class Extreme(StatusModel):
    """The value of a metric at one participant."""

    name: Short
    """Of the participant."""

    value: float
    """What it measured."""


class Spread(StatusModel):
    """Where a metric is worst, and where it is best."""

    worst: Extreme
    """Of those that measured it; the first by name of several that are equal."""

    best: Extreme
    """Of those that measured it; the first by name of several that are equal."""


Spreads = Annotated[dict[str, Spread], Field(max_length=20)]


class Personalized(StatusModel):
    """A metric before and after the participants trained the global model for themselves."""

    before: float
    """Mean of the global model over the participants that have both values."""

    after: float
    """Mean of their own models."""

    worst: Extreme
    """The participant whose own model is worst."""

    best: Extreme
    """The participant whose own model is best."""


Phase = Literal[
    "Pending",
    "Initialising",
    "Training",
    "Aggregating",
    "Evaluating",
    "Personalizing",
    "Suspended",
    "Blocked",
    "Succeeded",
    "Failed",
]


class TrainingStatus(StatusModel):
    """How far, how good, why not."""

    observed_generation: int = 0
    """Of the spec that this status is about."""

    phase: Phase = "Pending"
    """Succeeded and Failed are final; Blocked says what to do and is tried again."""

    round: int = 0
    """The round in progress; 0 is the making of the initial model."""

    progress: Short = ""
    """Rounds published of rounds asked for."""

    reported: Short = ""
    """Participants reported of participants invited, in this round."""

    score: Short = ""
    """One metric of the last evaluated global model."""

    reason: Short = ""
    """Why not further, in one CamelCase word."""

    message: Sentence = ""
    """The same in a sentence, with the remedy."""

    participants: Counts = Counts()
    """How the current round stands."""

    quarantine: Short = ""
    """Who is left out of this round, and up to which, as far as it fits."""

    global_model: GlobalModel | None = None
    """The last one published: the result so far."""

    prepared_generation: int = 0
    """The spec for which every participant has its folder on the exchange."""

    evaluated_round: int | None = None
    """The round of the global model that metrics belongs to."""

    metrics: Metrics = {}
    """Of the last evaluated global model, weighted over those that evaluated it."""

    spread: Spreads = {}
    """Of the last evaluated global model, who is worst and who is best by each metric."""

    best: Best | None = None
    """What stop compares with."""

    kept: Annotated[list[Best], Field(max_length=100)] = []
    """The models that keep.best keeps, the best first."""

    personalized: Annotated[dict[str, Personalized], Field(max_length=20)] = {}
    """By metric, what personalization.fineTune gave."""

    started_at: datetime | None = None
    """When the training was first looked at."""

    finished_at: datetime | None = None
    """When it succeeded or failed."""

    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = []
    """Complete, Failed, Suspended, Blocked."""

    @property
    def terminal(self) -> bool:
        return self.phase in ("Succeeded", "Failed")
