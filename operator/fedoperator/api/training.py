"""FederatedTraining: the resource a user applies. Types, schema and documentation in one place."""

import functools
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_serializer
from pydantic.alias_generators import to_camel

from fedoperator.api.adapters import Adapters, BaseCopy, BaseModel, Rank
from fedoperator.api.aggregation import Aggregation, Compression
from fedoperator.api.base import (
    ATOMIC,
    KEYED_BY_NAME,
    WHOLE,
    Duration,
    Model,
    Name,
    Rule,
    Short,
    StatusModel,
    seconds,
)
from fedoperator.api.fields import (
    MetricName,
    MountPath,
    ObjectName,
    Quantity,
    RelativePath,
    free_path,
)
from fedoperator.api.network import Network
from fedoperator.api.personal import Ditto, FineTune, Personalization
from fedoperator.api.scheduling import Scheduling
from fedoperator.api.status import TrainingStatus
from fedoperator.api.strategy import Strategy
from fedoperator.api.tracking import Tracking
from fedoperator.api.trainer import Trainer, TrainerFields, TrainerOverride, merged

KIND = "FederatedTraining"
PLURAL = "federatedtrainings"


Seed = Annotated[int, Field(ge=-WHOLE, le=WHOLE)]
Id = Annotated[int, Field(ge=1, le=2**31 - 1, title="user or group id other than root's")]


class Stop(Model):
    """Stop before the last round, on a metric that the evaluation reports."""

    rules = (
        Rule(
            cel="has(self.target) || has(self.patience)",
            holds=lambda stop: stop.target is not None or stop.patience is not None,
            says="gives no reason to stop; add target, patience, or both",
        ),
    )

    metric: MetricName
    """A key of what the script's evaluate() returns."""

    target: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Stop once the metric is at least (Max) or at most (Min) this."""

    patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Stop after this many evaluations in a row without a new best."""

    mode: Literal["Max", "Min"] | None = None
    """Whether more or less of the metric is better; left out, as evaluation.lessIsBetter says."""

    of: Literal["Mean", "Worst", "Best"] = "Mean"
    """Which value of the metric: the weighted mean over the evaluators, or that of the evaluator
    where it is worst, or best."""


class Selection(Model):
    """A random subset of the participants each round, reproducible from the seed."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the participants; rounded up."""

    minimum: Annotated[int, Field(ge=1, le=1000)] = 1
    """At least this many, however small the fraction."""

    seed: Seed = 0
    """Another seed draws other subsets."""


class Quorum(Model):
    """How many must report, by when, and what happens if they do not."""

    rules = (
        Rule(
            field="deadline",
            cel="!has(self.deadline) || self.deadline.matches('[1-9]')",
            holds=lambda quorum: quorum.deadline is None or seconds(quorum.deadline) > timedelta(),
            says="{0} is no time at all; use 1s or more, or leave it out to wait for everybody",
            values=(("self.deadline", lambda quorum: quorum.deadline),),
        ),
    )

    minimum: Annotated[int, Field(ge=1, le=1000)] = 1
    """A round with fewer reports is not aggregated."""

    deadline: Duration | None = None
    """Per participant, from the moment all its pods are ready: time in a queue does not count."""

    on_miss: Literal["Retry", "Fail"] = "Retry"
    """Retry keeps what was reported and invites the others again; Fail ends the training."""


class Quarantine(Model):
    """Leave out for a while who keeps losing its rounds. A round that has too few without it
    invites it all the same, the longest quarantined first."""

    after: Annotated[int, Field(ge=0, le=1000)] = 3
    """Rounds in a row that a participant was invited to and lost by its own fault: it failed, its
    update was rejected, or it ran past the deadline. 0: nobody is ever left out."""

    rounds: Annotated[int, Field(ge=1, le=10000)] = 5
    """It is then left out of so many. Invited again, it is left out anew as soon as it loses one
    more, and cleared as soon as an update of it is accepted."""


class Weight(Model):
    """How much a participant counts in the mean."""

    by: Literal["Samples", "Tokens", "Uniform"] = "Samples"
    """The unit of what the script submits as samples; Uniform counts everyone alike."""

    max: Annotated[int, Field(ge=1, le=WHOLE)] | None = None
    """A participant's total is capped here."""


class Data(Model):
    """The participant's own data, mounted read-only."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    rules = (free_path(),)

    claim_name: ObjectName
    """Of a PersistentVolumeClaim in the namespace of the training."""

    mount_path: MountPath = "/data"
    """In the participant's containers."""


class Scratch(Model):
    """The participant's own folder, mounted at /scratch: what stays with it between rounds."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    claim_name: ObjectName
    """Of a PersistentVolumeClaim in the namespace of the training, of this participant alone; all
    its pods mount it at the same time."""


class Participant(Model):
    """One owner of data."""

    name: Name
    """Its identity in every round, folder and metric."""

    trainer: TrainerOverride | None = None
    """Only what differs from spec.trainer."""

    data: Data | None = None
    """What it trains on; never leaves its pods."""

    scratch: Scratch | None = None
    """Where rnd.state outlives its pods; if left out, it goes with them."""

    base: BaseCopy | None = None
    """Its own copy of model.base; that of model.base if left out."""

    adapter_rank: Rank | None = None
    """Of its adapter, at most adapters.rank, which it is if left out; it sees as much of the global
    adapter."""


class Init(Model):
    """Start from the weights that the script itself builds (at the first participant)."""


class InitialModel(Model):
    """Where global/0 comes from: the script's own untrained weights, or safetensors."""

    rules = (
        Rule(
            cel="has(self.claimName) == has(self.path)",
            holds=lambda model: (model.claim_name is None) == (model.path is None),
            says="claimName and path go together; give both or neither",
        ),
        Rule(
            cel="has(self.init) != has(self.claimName)",
            holds=lambda model: (model.init is None) != (model.claim_name is None),
            says="give either init, or claimName and path",
        ),
    )

    init: Init | None = None
    claim_name: ObjectName | None = None
    """Of a PersistentVolumeClaim in the namespace of the training."""

    path: RelativePath | None = None
    """Of a safetensors file, of the index file of a sharded checkpoint, or of a folder that holds
    either, relative to the claim's root."""

    base: BaseModel | None = None
    """The frozen model that the adapters of all participants stand on."""


Pattern = Annotated[str, Field(min_length=1, max_length=253, title="pattern of names")]
Patterns = Annotated[list[Pattern], Field(min_length=1, max_length=64)]


class Exchange(Model):
    """The volume that carries models and updates: an existing claim, or one made by its size; and
    which tensors of the model it carries."""

    rules = (
        Rule(
            cel="has(self.claimName) != has(self.size)",
            holds=lambda exchange: (exchange.claim_name is None) != (exchange.size is None),
            says="give either claimName, of a claim that exists, or size, for a new one",
        ),
    )

    claim_name: ObjectName | None = None
    """Of a claim that exists and that all pods can mount at the same time."""

    size: Quantity | None = None
    """Of the claim to make; it outlives the training, as there is a model on it."""

    storage_class_name: ObjectName | None = None
    """Of the claim to make; the cluster's default if left out."""

    access_modes: Annotated[
        list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]],
        Field(min_length=1, max_length=3, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ["ReadWriteMany"]
    """Of the claim to make."""

    include: Patterns | None = None
    """Tensors that travel, as patterns (*, ?, [abc]) on their names; all if left out. The others
    stay with each participant as its own: they are never on the exchange."""

    exclude: Patterns | None = None
    """Of these, tensors that stay with each participant all the same, as patterns."""

    @property
    def keeps_at_home(self) -> bool:
        return self.include is not None or self.exclude is not None

    def claim_of(self, training: str) -> str:
        """The claim: the user's, or the one made for the training of this name."""
        return self.claim_name or f"{training}-exchange"


class Evaluator(Model):
    """One who measures the global models with data of its own, and trains nothing."""

    name: Name
    """No participant's."""

    trainer: TrainerOverride | None = None
    """Only what differs from spec.trainer."""

    data: Data | None = None
    """What it measures on."""


class Evaluation(Model):
    """Measure global models by the script's evaluate(); the last one always."""

    rules = (
        Rule(
            field="by",
            cel="!has(self.evaluator) || self.by == 'Participants'",
            holds=lambda given: given.evaluator is None or given.by == "Participants",
            says="{0} would evaluate, and so would evaluator; leave one of them out",
            values=(("self.by", lambda given: given.by),),
        ),
    )

    by: Short = "Participants"
    """Participants, for all of them; or the name of the one participant that evaluates."""

    evaluator: Evaluator | None = None
    """Who measures instead of the participants."""

    every: Annotated[int, Field(ge=1, le=10000)] = 1
    """Rounds."""

    less_is_better: Annotated[
        list[MetricName], Field(max_length=20, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ["loss", "perplexity"]
    """Metrics of which less is better; of all others more is. It decides who is named as worst and
    best; for stop.metric stop.mode decides, if it is given. Those of a personal model count by
    their own name."""


class Keep(Model):
    """How much history stays on the exchange."""

    last: Annotated[int, Field(ge=2, le=10000)] = 3
    """Rounds whose global model is kept; at least 2, as the model before the last may still be
    under evaluation."""

    updates: Annotated[int, Field(ge=1, le=10000)] = 1
    """Rounds whose update files are kept."""

    best: Annotated[int, Field(ge=0, le=100)] = 0
    """Rounds whose global model is kept, however old, for being among the best evaluated."""

    metric: MetricName | None = None
    """What decides which are best, by its mean; stop.metric, as stop reads it, if left out."""


class Security(Model):
    """The one identity of all pods of a training; null leaves the choice to the platform."""

    run_as_user: Id | None = 65532
    """Of the processes; null for OpenShift, say, where the namespace decides."""

    run_as_group: Id | None = 65532
    """Of the processes."""

    fs_group: Id | None = 65532
    """Group of the files on volumes."""

    @model_serializer
    def _with_null(self) -> dict[str, int | None]:
        """Null is a choice here, and must not be left out."""
        return {to_camel(name): getattr(self, name) for name in type(self).model_fields}


class TrainingSpec(Model):
    """Federated training of one model over data that never leaves its owners."""

    rounds: Annotated[int, Field(ge=1, le=10000)]
    """The upper bound."""

    trainer: Trainer
    participants: Annotated[
        list[Participant],
        Field(min_length=1, max_length=1000, json_schema_extra=KEYED_BY_NAME),
    ]
    """The owners of data, each with a name of its own."""

    exchange: Exchange
    stop: Stop | None = None
    strategy: Strategy = Strategy()
    selection: Selection = Selection()
    quorum: Quorum = Quorum()
    weight: Weight = Weight()
    aggregation: Aggregation = Aggregation()
    compression: Compression | None = None
    adapters: Adapters | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """Counted failures allowed per participant and round."""

    quarantine: Quarantine = Quarantine()
    pods: Literal["PerRound", "Resident"] = "PerRound"
    """PerRound: pods for every round, which hold nothing while they wait. Resident: each
    participant's pods stay from round to round, with what they have imported and loaded, and so
    does the aggregator."""

    idle_timeout: Duration | None = None
    """Resident: pods that had nothing to do for so long are let go; they are made again when their
    participant is invited. Left out: they stay to the end."""

    model: InitialModel = InitialModel(init=Init())
    parameters: Annotated[dict[str, Any], Field(max_length=100)] = {}
    """Free; the script reads them as rnd.parameters."""

    optimizer_state: Literal["Reset", "Keep"] = "Reset"
    """What a round does with the optimizer's state of the round before: Reset begins anew; Keep
    goes on from this participant's last accepted round (the script passes optimizer= to rounds)."""

    seed: Seed = 0
    """What every generator of every rank is seeded from, together with round and participant."""

    evaluation: Evaluation | None = None
    personalization: Personalization | None = None
    keep: Keep = Keep()
    history: Annotated[int, Field(ge=2, le=10000)] = 1000
    """FederatedRounds kept; older ones are deleted."""

    tracking: Tracking | None = None
    scheduling: Scheduling | None = None
    security: Security = Security()
    network: Network = Network()
    suspend: bool = False
    """Stop at once what trains, keep everything; false goes on with the same round."""

    def participant(self, name: str) -> Participant | None:
        return self.by_name.get(name)

    @functools.cached_property
    def by_name(self) -> dict[str, Participant]:
        """A thousand participants are each looked for several times in a look."""
        return {p.name: p for p in self.participants}

    def __copy__(self) -> Self:
        """Without what was kept of the participants, which may be others in the copy."""
        copied = super().__copy__()
        copied.__dict__.pop("by_name", None)
        return copied

    def base_of(self, participant: Participant) -> BaseCopy | None:
        """Where the participant has the base model from."""
        return participant.base or self.model.base

    @property
    def ditto(self) -> Ditto | None:
        return self.personalization.ditto if self.personalization else None

    @property
    def fine_tune(self) -> FineTune | None:
        return self.personalization.fine_tune if self.personalization else None

    @property
    def evaluator(self) -> Evaluator | None:
        return self.evaluation.evaluator if self.evaluation else None

    @property
    def sites(self) -> list[Participant]:
        """Everybody whose pods run the script: the participants, and the evaluator beside them."""
        if self.evaluator is None:
            return self.participants
        fields = {name: getattr(self.evaluator, name) for name in ("name", "trainer", "data")}
        return [*self.participants, Participant(**fields)]

    def site(self, name: str) -> Participant | None:
        found = self.participant(name)
        if found is None and self.evaluator is not None and self.evaluator.name == name:
            return self.sites[-1]
        return found

    def less_is_better(self, metric: str) -> bool:
        """Whether a smaller value of it is the better one."""
        if self.stop is not None and self.stop.metric == metric and self.stop.mode is not None:
            return self.stop.mode == "Min"
        return metric.removeprefix("personal_") in (self.evaluation or Evaluation()).less_is_better

    @property
    def stopping(self) -> Stop | None:
        """`stop`, with its mode."""
        if self.stop is None:
            return None
        return self.stop.model_copy(update={"mode": self._mode(self.stop.metric)})

    @property
    def ranking(self) -> Stop | None:
        """How models are compared for keep.best, with its mode; None if nothing says how."""
        if self.keep.metric is None:
            return self.stopping
        return Stop(metric=self.keep.metric, mode=self._mode(self.keep.metric), patience=1)

    def _mode(self, metric: str) -> Literal["Max", "Min"]:
        return "Min" if self.less_is_better(metric) else "Max"

    def trainer_of(self, participant: Participant) -> TrainerFields:
        return merged(self.trainer, participant.trainer)


class Training(StatusModel):
    """A FederatedTraining as read from the cluster: identity, spec, status."""

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str = ""
    deleting: bool = False
    spec: TrainingSpec
    status: TrainingStatus = TrainingStatus()

    @classmethod
    def from_object(cls, document: dict[str, Any]) -> "Training":
        """Raises pydantic.ValidationError for a spec that this version does not understand."""
        meta = document["metadata"]
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            generation=meta.get("generation", 1),
            resource_version=meta.get("resourceVersion", ""),
            deleting="deletionTimestamp" in meta,
            spec=TrainingSpec.model_validate(document["spec"]),
            status=TrainingStatus.model_validate(document.get("status") or {}),
        )
