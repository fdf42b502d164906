"""Jobs and pods as the API server lists them."""


def a_job(*conditions, ready=0, nodes=1, labels=None, deleting=False):
    own = {"role": "train", "round": "3", "participant": "north", "attempt": "1"}
    return {
        "metadata": {
            "name": "digits-train-3-north-1",
            "uid": "u1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {f"fedtrain.dev/{k}": v for k, v in own.items()}
            if labels is None
            else labels,
            **({"deletionTimestamp": "2026-01-01T00:00:09Z"} if deleting else {}),
        },
        "spec": {"parallelism": nodes},
        "status": {"ready": ready, "conditions": list(conditions)},
    }


def a_condition(kind, reason="", message=""):
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def a_pod(code=None, message="", reason="Error", waiting=None, unscheduled=None, index=0, at=0):
    state = {"waiting": waiting} if waiting else {}
    if code is not None:
        ended = {"exitCode": code, "message": message, "reason": reason}
        state = {"terminated": {**ended, "finishedAt": f"2026-01-01T00:00:{at:02d}Z"}}
    conditions = []
    if unscheduled:
        conditions = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": unscheduled,
            }
        ]
    statuses = [{"state": state, "image": "digits:1"}] if state else []
    return {
        "metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": str(index)}},
        "status": {"containerStatuses": statuses, "conditions": conditions},
    }


def by_policy(code, index):
    text = f"Container train for pod ns/p failed with exit code {code}"
    text += f" matching FailJob rule at index {index}"
    return a_condition("FailureTarget", "PodFailurePolicy", text)
