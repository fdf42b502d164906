"""The child workloads as listed: Jobs, and their pods where they tell more, read into values.

A failed Job says why in its conditions, which survive its pods (KEP-3329, pod failure policy); the
termination message of a pod says it better, if it is still there.
"""

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fedoperator.api.scheduling import QUEUE_LABEL
from fedtrain.contract import Exit, Message, Role, parted_id

TRAINING_LABEL = "fedtrain.dev/training"
ROLE_LABEL = "fedtrain.dev/role"
ROUND_LABEL = "fedtrain.dev/round"
PARTICIPANT_LABEL = "fedtrain.dev/participant"
ATTEMPT_LABEL = "fedtrain.dev/attempt"
RESIDENT_LABEL = "fedtrain.dev/resident"
"""On what stays when its first task is done."""
JOB_LABEL = "batch.kubernetes.io/job-name"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"

OVERDUE = timedelta(seconds=30)
"""A Job not ready for this long has its pods and events looked at: an image that cannot be pulled
or a missing claim changes nothing on the Job itself."""


LOST = timedelta(minutes=2)
"""A pod that is still there so long after the moment at which it had to be gone is on a node that
does not answer. Its Job would wait for it for ever (podReplacementPolicy: Failed)."""


class Failure(enum.StrEnum):
    """The classes of a failure, which decide who pays for it."""

    FREE = "Free"
    """Eviction, preemption, drain, a full exchange: tried again, charged to nobody."""
    COUNTED = "Counted"
    """Counted against spec.retries."""
    CONTRACT = "Contract"
    """Fatal: the script cannot work as it is."""
    DATA = "Data"
    """Fatal: this participant's data or model cannot be used."""
    VERDICTS = "Verdicts"
    """Of an aggregation: its verdicts are in, decide the round again."""


class ChildState(enum.StrEnum):
    PENDING = "Pending"
    READY = "Ready"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which piece of work, and which attempt at it."""

    role: Role
    round: int
    participant: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why something does not go on: a CamelCase reason and a sentence with the remedy."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One workload of a training: a Job on a cluster, processes on a laptop."""

    identity: Identity
    name: str
    uid: str = ""
    state: ChildState = ChildState.PENDING
    nodes: int = 1
    created_at: datetime
    ended_at: datetime | None = None
    """When it was over; None if it is not, or nobody says."""
    deleting: bool = False
    failure: Failure | None = None
    trouble: Trouble | None = None
    """Why it failed, or why it is not ready."""
    result: Mapping[str, Any] | None = None
    """What its termination message measured; None if the message is lost."""
    resident: bool = False
    """Whether it stays when its work is done, and takes the next."""
    queued: bool = False
    """Whether it waits for a queue, or whoever else has suspended it, to let it run."""

    @property
    def finished(self) -> bool:
        return self.state in (ChildState.SUCCEEDED, ChildState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the hub tells of one piece of work that somebody who stays has taken.

    carrier: the uid of the child that took it; one made later under its name is another. since:
    when this was first heard.
    """

    identity: Identity
    carrier: str
    state: ChildState
    since: datetime
    failure: Failure | None = None
    trouble: Trouble | None = None
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything listed of one training. troubles: names of workloads that could not be made.

    reports: of the hub, where pods stay. heard_since: since when this hub has told all it knows;
    None if there is none that does.
    """

    children: tuple[Child, ...] = ()
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    heard_since: datetime | None = None


def child(
    job: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]] = (),
    events: Sequence[Mapping[str, Any]] = (),
) -> Child | None:
    """A Job (with its pods and events, where they were asked for) as a value; None if not ours."""
    identity = identity_of(job)
    if identity is None:
        return None
    meta, status = job["metadata"], job.get("status") or {}
    state, failure, trouble = ChildState.PENDING, None, None
    conditions = {c["type"]: c for c in status.get("conditions") or [] if c["status"] == "True"}
    # A Job is over at the first of each pair: on a dead node the second never comes (KEP-3998).
    failed = conditions.get("FailureTarget") or conditions.get("Failed")
    succeeded = conditions.get("SuccessCriteriaMet") or conditions.get("Complete")
    result: Mapping[str, Any] | None = None
    if failed:
        state = ChildState.FAILED
        failure, trouble, result = _failure(failed, pods, identity.role)
    elif succeeded:
        state = ChildState.SUCCEEDED
        result = next((m.result for m in _messages(pods) if m.result), None)
    elif is_suspended(job):
        trouble = _queued(job)
    elif is_ready(job):
        state = ChildState.READY
    else:
        trouble = _waiting(pods, events)
    return Child(
        identity=identity,
        name=meta["name"],
        uid=meta["uid"],
        state=state,
        nodes=_nodes(job),
        created_at=parse_time(meta["creationTimestamp"]),
        ended_at=_since(failed or succeeded),
        deleting="deletionTimestamp" in meta,
        failure=failure,
        trouble=trouble,
        result=result,
        resident=stays(job),
        queued=state is ChildState.PENDING and is_suspended(job),
    )


def _since(condition: Mapping[str, Any] | None) -> datetime | None:
    text = condition.get("lastTransitionTime") if condition is not None else None
    return parse_time(text) if text else None


def lost_at(pods: Iterable[Mapping[str, Any]]) -> datetime | None:
    """When the first of these pods counts as lost, unless it ends before: `with_its_nodes`."""
    return min((due + LOST for pod in pods if (due := _due(pod)) is not None), default=None)


def _due(pod: Mapping[str, Any]) -> datetime | None:
    """When a pod that was told to end, and has not, had to be gone; its grace period is in it."""
    told = pod["metadata"].get("deletionTimestamp")
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return None if told is None or ended else parse_time(told)


def with_its_nodes(found: Child, pods: Sequence[Mapping[str, Any]], now: datetime) -> Child:
    """The child as it is; or failed, if one of its pods is on a node that no longer answers."""
    for pod in pods:
        meta, due = pod["metadata"], _due(pod)
        if found.finished or due is None or now - due < LOST:
            continue
        node = (pod.get("spec") or {}).get("nodeName", "")
        by = meta["deletionTimestamp"]
        text = f"pod {meta['name']} was to end by {by}, and its node {node} does not answer"
        trouble = Trouble(reason="NodeLost", message=text)
        return replace(found, state=ChildState.FAILED, failure=Failure.FREE, trouble=trouble)
    return found


def stays(job: Mapping[str, Any]) -> bool:
    """Whether a Job's pods take further work when their first is done."""
    return (job["metadata"].get("labels") or {}).get(RESIDENT_LABEL) == "true"


_ID_LIMIT = 128
"""Characters, of which neither the id of a piece of work nor a uid has as many."""


def report(name: str, said: Mapping[str, Any], since: datetime) -> Report | None:
    """A report as the hub sent it, as a value; None if it makes no sense."""
    try:
        role, number, participant, attempt = parted_id(name)
        state = ChildState(said["state"])
        carrier = str(said["carrier"])
    except (KeyError, TypeError, ValueError):
        return None
    if len(name) > _ID_LIMIT or len(carrier) > _ID_LIMIT:
        return None
    result = said.get("result")
    failure = trouble = None
    if state is ChildState.FAILED:
        code = said.get("exit")
        failure = failure_of_exit(code if isinstance(code, int) else None)
        told = (str(said.get("reason") or "Failed"), str(said.get("message") or ""))
        trouble = Trouble(reason=told[0][:80], message=told[1][:2048])
    return Report(
        identity=Identity(role, number, participant, attempt),
        carrier=carrier,
        state=state,
        since=since,
        failure=failure,
        trouble=trouble,
        result=result if isinstance(result, Mapping) else None,
    )


def identity_of(job: Mapping[str, Any]) -> Identity | None:
    """The identity in a Job's labels, or None if they are not ours."""
    labels = job["metadata"].get("labels") or {}
    try:
        return Identity(
            role=Role(labels[ROLE_LABEL]),
            round=int(labels[ROUND_LABEL]),
            participant=labels.get(PARTICIPANT_LABEL, ""),
            attempt=int(labels[ATTEMPT_LABEL]),
        )
    except (KeyError, ValueError):
        return None


def is_over(job: Mapping[str, Any]) -> bool:
    """At the first of each pair: on a dead node the second never comes (KEP-3998)."""
    conditions = (job.get("status") or {}).get("conditions") or []
    over = {"FailureTarget", "Failed", "SuccessCriteriaMet", "Complete"}
    return any(c["type"] in over and c["status"] == "True" for c in conditions)


def wants_pods(job: Mapping[str, Any], now: datetime) -> bool:
    """Whether a Job alone does not tell enough: it is over, or not ready although it should be."""
    if is_over(job):
        return True
    if is_ready(job) or is_suspended(job):
        return False
    return now - parse_time(job["metadata"]["creationTimestamp"]) >= OVERDUE


def _nodes(job: Mapping[str, Any]) -> int:
    return job["spec"].get("parallelism") or 1


def is_ready(job: Mapping[str, Any]) -> bool:
    """All its pods run, or did and are done: a shard may end before another has begun."""
    status = job.get("status") or {}
    return (status.get("ready") or 0) + (status.get("succeeded") or 0) >= _nodes(job)


def is_suspended(job: Mapping[str, Any]) -> bool:
    """Somebody keeps it from running; we make Jobs suspended for a queue, and never write again."""
    return bool(job["spec"].get("suspend"))


def _queued(job: Mapping[str, Any]) -> Trouble:
    queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if queue is None:
        sentence = "somebody has suspended its Job; it goes on when spec.suspend is false there"
        return Trouble(reason="JobSuspended", message=sentence)
    sentence = f"waits in the queue {queue!r}; `kubectl get workloads.kueue.x-k8s.io` says for what"
    return Trouble(reason="Queued", message=sentence)


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


_OF_THE_SCRIPT = frozenset({Role.INIT, Role.TRAIN, Role.EVALUATE, Role.PERSONALIZE})
_CODES = frozenset(int(code) for code in Exit)


def failure_of_exit(code: int | None) -> Failure:
    """The class of an exit code (design section 4)."""
    by_code = {
        Exit.CONTRACT: Failure.CONTRACT,
        Exit.DATA: Failure.DATA,
        Exit.VERDICTS: Failure.VERDICTS,
        Exit.EXCHANGE: Failure.FREE,
    }
    if code is None or code not in _CODES:
        return Failure.COUNTED
    return by_code.get(Exit(code), Failure.COUNTED)


def reason_of_exit(code: int) -> str:
    """The CamelCase name of an exit code, for a process that left no message."""
    return Exit(code).name.title().replace("_", "") if code in _CODES else "Failed"


def _messages(pods: Iterable[Mapping[str, Any]]) -> list[Message]:
    """What the terminated containers left, that of index 0 first."""
    told = (Message.decode(s.get("message") or "") for s in _terminated(sorted(pods, key=_index)))
    return [message for message in told if message is not None]


def _index(pod: Mapping[str, Any]) -> int:
    """Which node, or shard, of its Job a pod is."""
    annotations = pod.get("metadata", {}).get("annotations") or {}
    text = str(annotations.get(INDEX_ANNOTATION, ""))
    # Whoever may edit pods may write anything there.
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def _terminated(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        status["state"]["terminated"]
        for pod in pods
        for status in (pod.get("status") or {}).get("containerStatuses") or []
        if (status.get("state") or {}).get("terminated")
    ]


def _ends(pods: Iterable[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Message | None]]:
    """How the containers that failed ended, and what they said, the guilty one first.

    It failed first; and as that is told in whole seconds, before those that only were told to stop.
    """
    ends = [(s, Message.decode(s.get("message") or "")) for s in _terminated(pods)]

    def order(end: tuple[Mapping[str, Any], Message | None]) -> tuple[str, bool]:
        state, message = end
        return state.get("finishedAt") or "", message is not None and message.reason == "Terminated"

    return sorted((end for end in ends if end[0].get("exitCode")), key=order)


def _failure(
    condition: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], role: Role
) -> tuple[Failure, Trouble, Mapping[str, Any] | None]:
    text = condition.get("message") or ""
    reason = condition.get("reason") or "Failed"
    code = re.search(r"exit code (\d+)", text)
    if reason == "PodFailurePolicy" and code is None:
        return Failure.FREE, Trouble(reason="Disrupted", message=text), None
    if reason == "DeadlineExceeded":  # the backstop, which also counts time in a queue
        return Failure.FREE, Trouble(reason=reason, message=text), None
    wanted = int(code.group(1)) if code else None
    if wanted in (None, Exit.TRY_AGAIN) and (by_kubelet := _ended_by_kubelet(pods, role)):
        return *by_kubelet, None
    # The first that failed is the guilty one; what ends later was only told to, or lost its peers.
    ends = (end for end in _ends(pods) if wanted in (None, end[0]["exitCode"]))
    guilty, message = next(ends, (None, None))
    if guilty and message:
        trouble = Trouble(reason=message.reason, message=message.message)
        return failure_of_exit(guilty["exitCode"]), trouble, message.result
    if wanted is not None:
        trouble = Trouble(reason=reason_of_exit(wanted), message=text)
        return failure_of_exit(wanted), trouble, None
    if guilty:
        said = guilty.get("reason") or "Error"
        sentence = f"a container ended with exit code {guilty['exitCode']} ({said})"
        if said == "OOMKilled":
            sentence += f"; raise {_field(role)}.resources.limits.memory"
        return Failure.COUNTED, Trouble(reason=said, message=sentence), None
    return Failure.COUNTED, Trouble(reason=reason, message=text), None


def _ended_by_kubelet(
    pods: Sequence[Mapping[str, Any]], role: Role
) -> tuple[Failure, Trouble] | None:
    """What a kubelet says that ended or refused a pod without calling it a disruption.

    A pod over a limit of its own is evicted (its containers are only told to stop); one that a node
    refuses (OutOfcpu, UnexpectedAdmissionError of a device) has no containers at all.
    """
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("phase") != "Failed":
            continue
        said = (status.get("message") or "").strip()
        if status.get("reason") == "Evicted":
            text = f"{said.rstrip('.')}; write less, or raise that limit of {_field(role)}"
            return Failure.COUNTED, Trouble(reason="Evicted", message=text)
        if status.get("reason") and not status.get("containerStatuses"):
            text = f"{status['reason']}: {said}"
            return Failure.FREE, Trouble(reason="PodRejected", message=text)
    return None


def _field(role: Role) -> str:
    """Which part of the spec says what a pod of this role gets."""
    return "trainer" if role in _OF_THE_SCRIPT else "aggregation"


_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


def _waiting(
    pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> Trouble | None:
    """Why a Job is not ready: as its pods say, else as the Job controller last complained."""
    for pod in pods:
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or []:
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            if reason in _IMAGE:
                image = container.get("image", "")
                # The kubelet's own text changes with every try, and each change would be a write.
                sentence = f"image {image!r} cannot be pulled; check its name, its registry and"
                return Trouble(reason="ImagePullFailed", message=f"{sentence} imagePullSecrets")
            if reason and reason not in ("ContainerCreating", "PodInitializing"):
                return Trouble(reason=reason, message=waiting.get("message") or reason)
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                text = condition.get("message") or ""
                claim = re.search(r'persistentvolumeclaim "([^"]+)" not found', text)
                if claim:
                    sentence = f"PersistentVolumeClaim {claim.group(1)!r} does not exist; create it"
                    return Trouble(reason="ClaimMissing", message=sentence)
                return Trouble(reason=condition.get("reason") or "Unschedulable", message=text)
    failed = [e for e in events if e.get("type") == "Warning"]
    if failed:
        last = max(failed, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
        return Trouble(reason=last.get("reason") or "Waiting", message=last.get("message") or "")
    for pod in pods:
        scheduler = (pod.get("spec") or {}).get("schedulerName")
        conditions = (pod.get("status") or {}).get("conditions") or []
        if scheduler and not any(c["type"] == "PodScheduled" for c in conditions):
            sentence = (
                f"no scheduler has looked at pod {pod['metadata']['name']}; is there one named"
            )
            return Trouble(reason="NoScheduler", message=f"{sentence} {scheduler!r}?")
    return None
