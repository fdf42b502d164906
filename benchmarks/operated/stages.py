"""What kwok plays: one huge node, and pods that start at once and end when a variable says so.

Pods that train run for PLAYED_FOR to PLAYED_UPTO, variables of their trainer, uniformly; all others
for half a second. All succeed, with the receipts that real ones
would leave.
"""

from typing import Any

Object = dict[str, Any]

METRICS = ("accuracy", "f1", "loss", "perplexity", "precision", "recall")

_STATUS = """
{{ $now := Now }}
{{ $role := index .metadata.labels "fedtrain.dev/role" }}
{{ $half := .metadata.uid | replace "-" "" }}
containerStatuses:
{{ range .spec.containers }}
- image: {{ .image | Quote }}
  name: {{ .name | Quote }}
  ready: %(ready)s
  restartCount: 0
  state:
    %(state)s
{{ end }}
"""

_RUNNING = """
conditions:
{{ range (list "PodScheduled" "Initialized" "ContainersReady" "Ready") }}
- {type: {{ . }}, status: "True", lastTransitionTime: {{ Now | Quote }}}
{{ end }}
phase: Running
podIP: 10.0.0.1
startTime: {{ Now | Quote }}
"""

_ENDED = """
conditions:
- {type: PodScheduled, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: Ready, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
phase: Succeeded
"""


def _message() -> str:
    """A template of the termination message, for every role."""
    digest = '"digest":"sha256:{{ $half }}{{ $half }}"'
    metrics = ",".join(f'"{name}":0.{{{{ randNumeric 12 }}}}' for name in METRICS)
    results = {
        "prepare": "",
        "init": f'{digest},"size":1048576',
        "train": f'{digest},"samples":1{{{{ randNumeric 4 }}}},"steps":400,"seconds":12.5,'
        f'"metrics":{{{metrics}}}',
        "evaluate": f'"samples":100,"metrics":{{{metrics}}}',
        "aggregate": f'{digest},"verdicts":"","reasons":{{}},"bytes":1048576,"seconds":1.5,'
        '"peakMemory":1048576',
    }
    chosen = "".join(
        f'{{{{ if eq $role "{role}" }}}}{result}{{{{ end }}}}' for role, result in results.items()
    )
    return f'{{"reason":"Completed","message":"","result":{{ {chosen} }}}}'


def _stage(name: str, kind: str, when: list[Object], template: str, delay: Object) -> Object:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": when},
            "delay": delay,
            "next": {"delete": True} if not template else {"statusTemplate": template},
        },
    }


def _phase(phase: str) -> Object:
    return {"key": ".status.phase", "operator": "In", "values": [phase]}


def _variable(name: str) -> Object:
    where = f'.spec.containers[0].env[] | select(.name == "{name}") | .value'
    return {"expressionFrom": where}


def stages() -> list[Object]:
    lives: Object = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    dies = {**lives, "operator": "Exists"}
    state = "running: {startedAt: {{ $now | Quote }}}"
    running = _STATUS % {"ready": "true", "state": state} + _RUNNING
    # A literal block: the message is JSON, and holds every kind of quote.
    said = _message()
    state = (
        "terminated:\n      exitCode: 0\n      reason: Completed\n"
        "      finishedAt: {{ $now | Quote }}\n      startedAt: {{ $now | Quote }}\n"
        f"      message: '{said}'"
    )
    ended = _STATUS % {"ready": "false", "state": state} + _ENDED
    role = {"key": '.metadata.labels["fedtrain.dev/role"]', "operator": "In", "values": ["train"]}
    other = {**role, "operator": "NotIn"}
    half = {"durationMilliseconds": 500, "jitterDurationMilliseconds": 500}
    played = {
        "durationMilliseconds": 500,
        "durationFrom": _variable("PLAYED_FOR"),
        "jitterDurationMilliseconds": 500,
        "jitterDurationFrom": _variable("PLAYED_UPTO"),
    }
    new = {"key": ".status.phase", "operator": "NotIn", "values": ["Running"]}
    return [
        # kwok plays pods of nodes alone that it plays, too.
        _stage("node-runs", "Node", [new], "phase: Running", {}),
        _stage("pod-runs", "Pod", [lives, _phase("Pending")], running, {}),
        _stage("pod-trains", "Pod", [lives, _phase("Running"), role], ended, played),
        _stage("pod-ends", "Pod", [lives, _phase("Running"), other], ended, half),
        _stage("pod-goes", "Pod", [dies], "", {}),
    ]


def node() -> Object:
    """With room for everybody. It is ready once and for all: no controller watches it."""
    room = {"cpu": "100k", "memory": "1Pi", "pods": "1M"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "played"},
        "status": {
            "allocatable": room,
            "capacity": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }
