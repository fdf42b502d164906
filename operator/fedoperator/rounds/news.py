"""What of a change is worth a look: the watch asks, and wakes nobody for the rest (decision 42)."""

from collections.abc import Mapping
from typing import Any

from fedoperator.rounds import observed


def of_training(training: Mapping[str, Any]) -> bool:
    """Whether a look can learn anything from a training that was changed.

    Not from its status, which only a look writes; and labels and annotations mean nothing here.
    """
    meta, status = training["metadata"], training.get("status") or {}
    known = status.get("observedGeneration") == meta.get("generation")
    return not known or "deletionTimestamp" in meta


def of_job(job: Mapping[str, Any]) -> bool:
    """Whether a look can learn anything from what a Job says now.

    Nothing from one that was only just made, and whose pods do not run yet: whoever made it knows,
    and looks at it when it is overdue. One with a pod that ended or goes may have lost it.
    """
    status = job.get("status") or {}
    lost = any(status.get(field) for field in ("failed", "succeeded", "terminating"))
    known = status.get("conditions") or "deletionTimestamp" in job["metadata"]
    return bool(known or lost or observed.is_suspended(job) or observed.is_ready(job))
