"""How a participant's pod set is run: a closed set of typed fields, never a pod template.

Fields of Kubernetes keep Kubernetes' names and meaning; what is left out here cannot be set, and
so every rendered pod passes Pod Security *restricted*.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from fedoperator.api.base import (
    ATOMIC,
    KEYED_BY_NAME,
    WHOLE,
    Duration,
    Model,
    Name,
    Rule,
    Short,
    seconds,
)
from fedoperator.api.fields import (
    MountPath,
    ObjectName,
    Quantity,
    RelativePath,
    free_path,
    one_of,
)
from fedtrain import contract

Labels = Annotated[dict[str, Short], Field(max_length=32)]


class KeyRef(Model):
    """A key of a ConfigMap or Secret in the namespace of the training."""

    name: ObjectName
    """Of the ConfigMap or Secret."""

    key: Annotated[
        str,
        Field(
            pattern="^[-._a-zA-Z0-9]+$",
            max_length=253,
            title="key",
            json_schema_extra={"example": "token"},
        ),
    ]
    """Whose value it is."""

    optional: bool | None = None
    """Whether the object or the key may be missing."""


class EnvSource(Model):
    """Where the value comes from: exactly one of the two."""

    rules = (one_of("secret_key_ref", "config_map_key_ref"),)

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class EnvVar(Model):
    """An environment variable; names that fedtrain sets itself are refused."""

    rules = (
        Rule(
            field="name",
            cel=" && ".join(
                [
                    f"!(self.name in {sorted(contract.RESERVED_ENV)})",
                    *(f"!self.name.startsWith('{p}')" for p in contract.RESERVED_ENV_PREFIXES),
                ]
            ),
            holds=lambda env: (
                env.name not in contract.RESERVED_ENV
                and not env.name.startswith(contract.RESERVED_ENV_PREFIXES)
            ),
            says="{0} is set by fedtrain itself; leave it out or use another name",
            values=(("self.name", lambda env: env.name),),
        ),
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            holds=lambda env: (env.value is None) != (env.value_from is None),
            says="{0} needs either value (which may be empty) or valueFrom",
            values=(("self.name", lambda env: env.name),),
        ),
    )

    name: Annotated[
        str,
        Field(
            pattern="^[A-Za-z_][A-Za-z0-9_.-]*$",
            max_length=128,
            title="name of an environment variable",
            json_schema_extra={"example": "NCCL_DEBUG"},
        ),
    ]
    """Not one of those that torchrun and fedtrain read."""

    value: Annotated[str, Field(max_length=8192)] | None = None
    """As is; it may be empty."""

    value_from: EnvSource | None = None


class Resources(Model):
    """Requests and limits; extended resources such as nvidia.com/gpu pass through untouched."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None
    """The least that each pod gets."""

    limits: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None
    """The most that each pod gets; accelerators stand here."""


class Toleration(Model):
    """As in core/v1."""

    key: Short | None = None
    """Of the taint; all if left out."""

    operator: Literal["Exists", "Equal"] | None = None
    """Equal if left out."""

    value: Short | None = None
    """Of the taint, for Equal."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """All if left out."""

    toleration_seconds: Annotated[int, Field(ge=-WHOLE, le=WHOLE)] | None = None
    """How long NoExecute is tolerated; for ever if left out."""


class ClaimSource(Model):
    """A PersistentVolumeClaim in the namespace of the training."""

    claim_name: ObjectName
    """Of the PersistentVolumeClaim."""


class NamedSource(Model):
    """A ConfigMap in the namespace of the training."""

    name: ObjectName
    """Of the ConfigMap."""


class SecretSource(Model):
    """A Secret in the namespace of the training."""

    secret_name: ObjectName
    """Of the Secret."""


class EmptyDir(Model):
    """Scratch space that goes with the pod."""

    medium: Literal["", "Memory"] = ""
    """Memory for a tmpfs, which counts as memory of the container."""

    size_limit: Quantity | None = None
    """More than this and the pod is evicted."""


class Volume(Model):
    """A mount: exactly one source of the same namespace, at one path."""

    rules = (
        one_of("persistent_volume_claim", "config_map", "secret", "empty_dir"),
        free_path(),
    )

    name: Name
    """Unique in its list."""

    mount_path: MountPath
    """In the container; not below /fedtrain, /tmp or /scratch."""

    sub_path: RelativePath | None = None
    """Only this folder or file of the volume."""

    read_only: bool = True
    """False for a claim that the trainer writes to; an emptyDir can always be written to."""

    persistent_volume_claim: ClaimSource | None = None
    config_map: NamedSource | None = None
    secret: SecretSource | None = None
    empty_dir: EmptyDir | None = None


class PullSecret(Model):
    """A Secret with registry credentials in the namespace of the training."""

    name: ObjectName
    """Of the Secret."""


class Topology(Model):
    """All pods of one attempt on nodes that are near each other."""

    key: Annotated[
        str,
        Field(
            pattern="^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            max_length=253,
            title="key of a node's label",
            json_schema_extra={"example": "topology.kubernetes.io/zone"},
        ),
    ]
    """Label of nodes; nodes with the same value of it are near each other."""

    mode: Literal["Required", "Preferred"] = "Preferred"
    """Required: the pods wait until they can be. Preferred: they are if possible."""

    by: Literal["Scheduler", "Queue"] = "Scheduler"
    """Scheduler: by affinity of pods. Queue: by Kueue's topology-aware scheduling, whose flavor
    must have a topology with this label as a level; needs scheduling.queueName."""


class TrainerFields(Model):
    """The trainer: what runs at each participant. A participant may override any field."""

    rules = (
        Rule(
            field="hangTimeout",
            cel="!has(self.hangTimeout) || self.hangTimeout.matches('[1-9]')",
            holds=lambda trainer: (
                trainer.hang_timeout is None or seconds(trainer.hang_timeout) > timedelta()
            ),
            says="{0} is no time at all; use 10s or more, or leave it out to wait for ever",
            values=(("self.hangTimeout", lambda trainer: trainer.hang_timeout),),
        ),
    )

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The user's image: the script, torch and the fedtrain SDK."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """As in core/v1."""

    image_pull_secrets: (
        Annotated[list[PullSecret], Field(max_length=8, json_schema_extra=KEYED_BY_NAME)] | None
    ) = None
    """Credentials for the registry of the image."""

    command: (
        Annotated[list[Annotated[str, Field(max_length=4096)]], Field(min_length=1, max_length=256)]
        | None
    ) = None
    """What runs on each node, for example [torchrun, train.py]; nodes and processes come from
    the environment."""

    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=256)] | None = (
        None
    )
    """Appended to command: where participants differ, usually here."""

    env: Annotated[list[EnvVar], Field(max_length=128, json_schema_extra=KEYED_BY_NAME)] | None = (
        None
    )
    """For every rank."""

    nodes: Annotated[int, Field(ge=1, le=1024, title="number of nodes")] | None = None
    """Pods of one participant; 1 if left out."""

    processes_per_node: Annotated[int, Field(ge=1, le=64, title="number of ranks")] | None = None
    """Ranks in each pod; the accelerator count of resources.limits if one is named, else 1."""

    resources: Resources | None = None
    """Of each pod."""

    node_selector: Labels | None = None
    """Labels a node must have."""

    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """Taints a node may have."""

    runtime_class_name: ObjectName | None = None
    """As in core/v1."""

    priority_class_name: ObjectName | None = None
    """As in core/v1."""

    scheduler_name: ObjectName | None = None
    """The cluster's own if left out."""

    topology: Topology | None = None
    shared_memory: Quantity | None = None
    """Size of /dev/shm; the container runtime's 64 MiB if left out."""

    termination_grace_period_seconds: (
        Annotated[int, Field(ge=1, le=86400, title="number of seconds")] | None
    ) = None
    """From SIGTERM to SIGKILL, in which a script that calls rnd.resume saves; 30 if left out."""

    hang_timeout: Duration | None = None
    """A rank that makes no step (rnd.step) for so long is named and its attempt ended; no limit if
    left out."""

    volumes: (
        Annotated[list[Volume], Field(max_length=16, json_schema_extra=KEYED_BY_NAME)] | None
    ) = None
    """Mounts beside those that fedtrain makes."""


class Trainer(TrainerFields):
    """The default for every participant."""


class TrainerOverride(TrainerFields):
    """What this participant does differently; a list or map given here replaces the default's."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)


def merged(default: TrainerFields, override: TrainerFields | None) -> TrainerFields:
    """The default with each field that the override sets replaced by the override's."""
    if override is None:
        return default
    given = {name: getattr(override, name) for name in override.model_fields_set}
    return default.model_copy(update={k: v for k, v in given.items() if v is not None})


def processes_per_node(trainer: TrainerFields) -> int:
    """Ranks per pod: as said, else as many as accelerators, else 1."""
    return trainer.processes_per_node or max(1, accelerators(trainer))


def accelerators(trainer: TrainerFields) -> int:
    """Of each pod: the count of the extended resource named in limits, else 0.

    An extended resource is one with a domain outside kubernetes.io; if several are named (a GPU
    and an RDMA device, say) the first in order of name with a count of more than one decides.
    """
    limits = (trainer.resources.limits if trainer.resources else None) or {}
    counts = [
        int(count)
        for name, count in sorted(limits.items())
        if "/" in name and "kubernetes.io/" not in name and str(count).isdigit()
    ]
    return next((count for count in counts if count > 1), max(counts, default=0))
