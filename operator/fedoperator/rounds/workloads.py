"""A workload: one attempt at one piece of work of a round, as a value any shell can carry out."""

import hashlib
from dataclasses import dataclass

from fedoperator.api.adapters import BaseCopy
from fedoperator.api.base import seconds
from fedoperator.api.round import Assignment, Record
from fedoperator.api.strategy import DEFAULTS
from fedoperator.api.trainer import TrainerFields, processes_per_node
from fedoperator.api.training import Data, Scratch, Training, TrainingSpec
from fedoperator.rounds.observed import Identity
from fedtrain import contract
from fedtrain.contract import ModelRef, Role, Task

NAME_LIMIT = 58
"""An Indexed Job's pods get `<name>-<index>` as host name, 63 characters at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to start. trainer is None where the controller's own image does the work.

    training: its spec says exchange, security and claims; task: what the processes are told.
    stays: whether they take further tasks after this one. carrier: the uid of the child that stays
    and is to take it; None: it gets processes of its own.
    """

    training: Training
    identity: Identity
    task: Task
    trainer: TrainerFields | None = None
    data: Data | None = None
    scratch: Scratch | None = None
    base: BaseCopy | None = None
    stays: bool = False
    carrier: str | None = None

    @property
    def name(self) -> str:
        return workload_name(self.training.name, self.identity)

    @property
    def nodes(self) -> int:
        if isinstance(self.task, contract.AggregateTask):
            return self.task.shards
        return (self.trainer.nodes if self.trainer else None) or 1

    @property
    def processes_per_node(self) -> int:
        return processes_per_node(self.trainer) if self.trainer else 1

    @property
    def has_scratch(self) -> bool:
        """Whether its pods see the participant's own folder: the script trains or evaluates."""
        return self.identity.role in (Role.TRAIN, Role.EVALUATE, Role.PERSONALIZE)

    @property
    def folder(self) -> str:
        """The training's folder on the exchange."""
        return contract.training_folder(self.training.name, self.training.uid)


def workload_name(training: str, identity: Identity) -> str:
    """`digits-train-3-north-1`: the same for the same work; a long one is cut and hashed."""
    parts = [training, identity.role, str(identity.round), identity.participant]
    name = "-".join([part for part in parts if part] + [str(identity.attempt)])
    if len(name) <= NAME_LIMIT:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: NAME_LIMIT - 11].rstrip('-')}-{digest}"


def workload(
    training: Training, record: Record, role: Role, assignment: Assignment
) -> Workload | None:
    """The child that a live assignment asks for; None if its participant is gone."""
    number = record.spec.round
    identity = Identity(role, number, assignment.name, assignment.attempt)
    if role is Role.PREPARE:
        task: Task = _prepare(training, record, assignment)
        return Workload(training=training, identity=identity, task=task)
    if role is Role.AGGREGATE:
        return Workload(
            training=training, identity=identity, task=_aggregate(training, record, assignment)
        )
    if role is Role.INIT and training.spec.model.claim_name is not None:
        task = contract.ImportTask(
            training=training.name,
            uid=training.uid,
            round=number,
            attempt=assignment.attempt,
            source=f"{contract.IMPORT_MOUNT}/{training.spec.model.path}",
            output=contract.global_folder(number, assignment.attempt),
            include=tuple(training.spec.exchange.include or ()),
            exclude=tuple(training.spec.exchange.exclude or ()),
        )
        return Workload(training=training, identity=identity, task=task)
    participant = training.spec.site(assignment.name)
    if participant is None:
        return None
    return Workload(
        training=training,
        identity=identity,
        task=_participant(training, record, role, assignment),
        trainer=training.spec.trainer_of(participant),
        data=participant.data,
        scratch=participant.scratch,
        base=training.spec.base_of(participant),
    )


def _prepare(training: Training, record: Record, assignment: Assignment) -> contract.PrepareTask:
    names = {site.name for site in training.spec.sites} | set(record.spec.invited)
    return contract.PrepareTask(
        training=training.name,
        uid=training.uid,
        round=record.spec.round,
        attempt=assignment.attempt,
        participants=tuple(sorted(names)),
    )


def _participant(
    training: Training, record: Record, role: Role, assignment: Assignment
) -> contract.ParticipantTask:
    number, attempt, spec = record.spec.round, assignment.attempt, training.spec
    # Training starts from the model that counts; what comes after a round is about its own model.
    after = role in (Role.EVALUATE, Role.PERSONALIZE)
    model = record.status.global_model if after else training.status.global_model
    output = {
        Role.INIT: contract.global_folder(number, attempt),
        Role.TRAIN: contract.update_folder(assignment.name, number, attempt),
        Role.EVALUATE: contract.evaluation_folder(assignment.name, number, attempt),
        Role.PERSONALIZE: contract.personalization_folder(assignment.name, number, attempt),
    }[role]
    trains = role is Role.TRAIN
    deadline = spec.quorum.deadline if trains or role is Role.PERSONALIZE else None
    parameters = spec.parameters
    if role is Role.PERSONALIZE and spec.fine_tune is not None:
        parameters = {**parameters, **spec.fine_tune.parameters}
    codec = spec.compression.document if spec.compression is not None and trains else None
    adapters = None
    if spec.adapters is not None:
        # The initial model is the global one, whoever makes it.
        own = None if role is Role.INIT else _rank_of(spec, assignment.name)
        adapters = spec.adapters.document(own)
    pulled = trains and "mu" in DEFAULTS[spec.strategy.name]
    return contract.ParticipantTask(
        role=role,
        training=training.name,
        uid=training.uid,
        round=number,
        participant=assignment.name,
        attempt=attempt,
        output=output,
        model=None if model is None else ModelRef(path=model.folder, digest=model.digest),
        seed=spec.seed,
        parameters=parameters,
        deadline=None if deadline is None else seconds(deadline).total_seconds(),
        codec=codec,
        proximal=float(spec.strategy.parameter("mu") or 0) if pulled else 0.0,
        strategy=spec.strategy.name if trains else "FedAvg",
        unit=spec.weight.by,
        adapters=adapters,
        base=None if spec.model.base is None else spec.model.base.digest,
        optimizer_state=spec.optimizer_state if trains else "Reset",
        include=tuple(spec.exchange.include or ()),
        exclude=tuple(spec.exchange.exclude or ()),
        pull=None if spec.ditto is None else spec.ditto.pull,
    )


def _rank_of(spec: TrainingSpec, name: str) -> int | None:
    participant = spec.participant(name)
    return None if participant is None else participant.adapter_rank


def _aggregate(
    training: Training, record: Record, assignment: Assignment
) -> contract.AggregateTask:
    model, spec = training.status.global_model, training.spec
    assert model is not None, "a round is trained before it is aggregated"
    candidates = record.status.candidates
    learned = {p.name for p in record.status.participants if p.digest is not None}
    # First those whose message was lost; the others' word is checked as far as there is room.
    order = sorted((c.name for c in candidates), key=lambda name: (name in learned, name))
    adapters = None
    if spec.adapters is not None:
        ranks = {c.name: rank for c in candidates if (rank := _rank_of(spec, c.name)) is not None}
        adapters = {"aggregation": spec.adapters.aggregation, "ranks": ranks}
    return contract.AggregateTask(
        training=training.name,
        uid=training.uid,
        round=record.spec.round,
        attempt=assignment.attempt,
        model=ModelRef(path=model.folder, digest=model.digest),
        output=contract.global_folder(record.spec.round, assignment.attempt),
        candidates=tuple((c.name, c.attempt) for c in candidates),
        minimum=spec.quorum.minimum,
        population=len(spec.participants),
        strategy=spec.strategy.document,
        norm_bound=spec.strategy.norm_bound,
        codec=None if spec.compression is None else spec.compression.document,
        precision=spec.aggregation.precision,
        shards=spec.aggregation.shards,
        weight=spec.weight.by,
        weight_max=spec.weight.max,
        missing=tuple(order),
        keep_globals=spec.keep.last,
        keep=tuple(best.model.folder for best in training.status.kept if best.model is not None),
        keep_updates=spec.keep.updates,
        adapters=adapters,
    )
