"""spec.scheduling: in which queue all pods of a training stand, and with which priority.

The queue is Kueue's, which admits a Job by taking back its suspension and may suspend it again.
"""

from typing import Annotated, Any

from pydantic import Field

from fedoperator.api.base import Model, Rule
from fedoperator.api.fields import ObjectName

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""By which Kueue knows the Jobs that are its own."""


class Scheduling(Model):
    """How all pods of the training are scheduled, those of the operator included; what a trainer
    says of its own pods wins. A change acts on what is made after it."""

    # It becomes a label's value, which is shorter than other names, and has no dots.
    queue_name: (
        Annotated[
            str,
            Field(
                pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                min_length=1,
                max_length=63,
                title="name of a queue",
                json_schema_extra={"example": "team-a"},
            ),
        ]
        | None
    ) = None
    """Of Kueue's LocalQueue in the namespace of the training: every Job is made suspended, and
    starts when it is admitted. Left out: Jobs start at once."""

    priority_class_name: ObjectName | None = None
    """As in core/v1; trainer.priorityClassName wins."""

    scheduler_name: ObjectName | None = None
    """As in core/v1; trainer.schedulerName wins."""

    gang: bool = False
    """Start the pods of a participant with several nodes all together, or none of them: a PodGroup
    each (scheduling.k8s.io/v1beta1). Where the cluster serves none they start one by one, and the
    event GangUnavailable says so."""


def _has_queue(spec: Any) -> bool:
    return spec.scheduling is not None and spec.scheduling.queue_name is not None


def _asks_a_queue(spec: Any) -> bool:
    trainers = [spec.trainer, *(site.trainer for site in spec.sites)]
    topologies = [trainer.topology for trainer in trainers if trainer is not None]
    return any(topology is not None and topology.by == "Queue" for topology in topologies)


def _no_queue_asked(trainer: str) -> str:
    return f"(!has({trainer}.topology) || {trainer}.topology.by == 'Scheduler')"


_QUEUED = "has(self.scheduling) && has(self.scheduling.queueName)"
_EVALUATOR = "self.evaluation.evaluator"
_BY_SCHEDULER = (
    f"{_no_queue_asked('self.trainer')} && "
    f"self.participants.all(p, !has(p.trainer) || {_no_queue_asked('p.trainer')}) && "
    f"(!has(self.evaluation) || !has({_EVALUATOR}) || !has({_EVALUATOR}.trainer) || "
    f"{_no_queue_asked(f'{_EVALUATOR}.trainer')})"
)

SPEC = (
    Rule(
        field="scheduling.queueName",
        cel=f"!({_QUEUED}) || self.pods == 'PerRound'",
        holds=lambda spec: not _has_queue(spec) or spec.pods == "PerRound",
        says=(
            "admits one piece of work after the other, and pods that stay take many; "
            "use pods: PerRound, or leave it out"
        ),
    ),
    Rule(
        field="scheduling.queueName",
        cel=f"({_QUEUED}) || ({_BY_SCHEDULER})",
        holds=lambda spec: _has_queue(spec) or not _asks_a_queue(spec),
        says=(
            "is missing, and a trainer's topology.by is Queue; give it, or use by: Scheduler there"
        ),
    ),
)
"""Of the whole spec."""
