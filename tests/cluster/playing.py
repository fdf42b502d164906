"""What the Job controller and the kubelet would write, as documents: whoever plays them writes it.

Nothing here talks to a server; `Stage` and the player of the fault bench do.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fedoperator.rounds import observed
from fedtrain.contract import TASK_ENV, Message

Object = dict[str, Any]

LISTED = (64, 65, 74, 75)
"""Exit codes that a Job's own rules name (jobs._failure_rules)."""


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def task(job: Mapping[str, Any]) -> Object:
    """What the processes of a Job are told."""
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    told: Object = json.loads(next(e["value"] for e in env if e["name"] == TASK_ENV))
    return told


def plausible(role: str, of: str, candidates: int) -> Object:
    """The result of a task that went well. of: what its digest is made from."""
    digests = {"digest": digest(of)}
    return {
        "prepare": {},
        "init": {**digests, "size": 1024},
        "train": {**digests, "samples": 100, "seconds": 1.5, "metrics": {"loss": 0.5}},
        "evaluate": {"samples": 10, "metrics": {"accuracy": 0.9}},
        "aggregate": {
            **digests,
            "verdicts": "." * candidates,
            "reasons": {},
            "bytes": 2048,
            "seconds": 0.25,
            "peakMemory": 1 << 20,
        },
    }[role]


def pod(job: Mapping[str, Any], suffix: str) -> Object:
    """The pod of a Job's index 0."""
    meta, template = job["metadata"], job["spec"]["template"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    labels = template["metadata"]["labels"] | {
        observed.JOB_LABEL: meta["name"],
        observed.JOB_UID_LABEL: meta["uid"],
    }
    return {
        "metadata": {
            "name": f"{meta['name']}-0-{suffix}",
            "labels": labels,
            "annotations": {observed.INDEX_ANNOTATION: "0"},
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def running(pod: Mapping[str, Any], address: str = "") -> Object:
    """A pod's status while its container runs."""
    status = told(pod, "Running", {"running": {}})
    return status | ({"podIP": address, "podIPs": [{"ip": address}]} if address else {})


def ended(pod: Mapping[str, Any], code: int, message: Message) -> Object:
    """A pod's status once its container has ended."""
    state = {"terminated": {"exitCode": code, "message": message.encode().decode()}}
    return told(pod, "Failed" if code else "Succeeded", state)


def told(pod: Mapping[str, Any], phase: str, state: Object | None) -> Object:
    """A pod's status. state: of its container; None: it never had one."""
    container = pod["spec"]["containers"][0]
    of_container = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": "running" in (state or {}),
        "restartCount": 0,
        "state": state,
    }
    return {"phase": phase} | ({} if state is None else {"containerStatuses": [of_container]})


def job_ready() -> Object:
    return {"active": 1, "ready": 1, "startTime": time()}


def job_succeeded() -> Object:
    condition = _condition("SuccessCriteriaMet", "CompletionsReached", "reached")
    return {"startTime": time(), "succeeded": 1, "ready": 0, "conditions": [condition]}


def job_failed(name: str, code: int) -> Object:
    """As a Job's own rules say it, or by its limit of no retries."""
    text = f"Container train for pod x/{name} failed with exit code {code} matching FailJob"
    why = ("PodFailurePolicy", text) if code in LISTED else ("BackoffLimitExceeded", "reached it")
    return job_failing(*why)


def job_disrupted(name: str) -> Object:
    """Its pod was evicted, or its node is gone."""
    return job_failing("PodFailurePolicy", f"Pod x/{name} has condition DisruptionTarget")


def job_failing(reason: str, message: str) -> Object:
    """As the Job controller says it when it has seen why a pod failed."""
    condition = _condition("FailureTarget", reason, message)
    return {"startTime": time(), "failed": 1, "ready": 0, "conditions": [condition]}


def with_status(job: Mapping[str, Any], status: Object) -> Object:
    """The Job with that status; when it started stays."""
    old = job.get("status") or {}
    started = old.get("startTime") or status.get("startTime") or time()
    return {**job, "status": {**old, **status, "startTime": started}}


def time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(kind: str, reason: str, message: str) -> Object:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": time(),
        "lastProbeTime": time(),
    }
