"""What somebody might write into a FederatedTraining to get at more than is theirs."""

import base64
from collections.abc import Iterator
from typing import Any

Spec = dict[str, Any]


def _trainer(**fields: Any) -> Spec:
    base = {"image": "digits:1", "command": ["torchrun", "train.py"]}
    return {"trainer": base | fields}


def _participant(**fields: Any) -> Spec:
    return {"participants": [{"name": "north", **fields}, {"name": "south"}]}


def _volume(**fields: Any) -> Spec:
    return _trainer(volumes=[{"name": "v", "mountPath": "/v", **fields}])


def _env(**fields: Any) -> Spec:
    return _trainer(env=[fields])


_EMPTY: Spec = {"emptyDir": {}}
_SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


def _of_the_pod() -> Iterator[tuple[str, Spec]]:
    for field, value in {
        "hostNetwork": True,
        "hostPID": True,
        "hostIPC": True,
        "hostUsers": True,
        "nodeName": "control-plane",
        "serviceAccountName": "fedtrain",
        "serviceAccount": "default",
        "automountServiceAccountToken": True,
        "securityContext": {"privileged": True},
        "initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "c", "image": "c"}],
        "lifecycle": {"postStart": {"exec": {"command": ["sh"]}}},
        "ports": [{"containerPort": 1, "hostPort": 1}],
        "envFrom": [{"secretRef": {"name": "others"}}],
        "annotations": {"container.apparmor.security.beta.kubernetes.io/train": "unconfined"},
        "labels": {"fedtrain.dev/participant": "south"},
        "podTemplate": {"spec": {"hostNetwork": True}},
        "affinity": {},
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["registry"]}],
        "shareProcessNamespace": True,
        "volumeDevices": [{"name": "v", "devicePath": "/dev/sda"}],
        "dnsConfig": {"nameservers": ["6.6.6.6"]},
    }.items():
        yield f"trainer.{field}", _trainer(**{field: value})
    yield "overridden securityContext", _participant(trainer={"securityContext": {}})
    yield "security.privileged", {"security": {"privileged": True}}
    yield "root", {"security": {"runAsUser": 0}}
    yield "root's group", {"security": {"runAsGroup": 0}}
    yield "root's files", {"security": {"fsGroup": 0}}
    yield "capabilities", {"security": {"capabilities": {"add": ["SYS_ADMIN"]}}}
    yield "nobody's choice", {"security": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}


def _of_volumes() -> Iterator[tuple[str, Spec]]:
    yield "hostPath", _volume(hostPath={"path": "/"})
    yield "csi", _volume(csi={"driver": "host"})
    yield "projected", _volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]})
    yield "ephemeral", _volume(ephemeral={})
    yield "two sources", _volume(emptyDir={}, hostPath={"path": "/"})
    yield "a foreign namespace", _volume(secret={"secretName": "kube-system/token"})
    yield "a namespace field", _volume(configMap={"name": "c", "namespace": "kube-system"})
    for path in ("../..", "a/../../b", "..", "./../x", "/etc", "a//../b", "..\n", "a/.."):
        claim = {"persistentVolumeClaim": {"claimName": "mine"}}
        yield f"subPath {path!r}", _volume(**claim, subPath=path)
    yield "subPathExpr", _volume(**_EMPTY, subPathExpr="$(HOME)")
    yield "mountPropagation", _volume(**_EMPTY, mountPropagation="Bidirectional")
    for path in (
        "/", "/fedtrain", "/fedtrain/", "/fedtrain/global", "/fedtrain/updates/south", "//fedtrain",
        "/x/../fedtrain", "/./fedtrain", "/tmp", "/scratch", "/scratch/state", "/data:/host",
        "fedtrain", "/fedtrain\n",
    ):  # fmt: skip
        yield f"mountPath {path!r}", _volume(**_EMPTY, mountPath=path)
    for path in ("/", "/fedtrain/updates/south", "/scratch", "/tmp/x"):
        yield f"data at {path!r}", _participant(data={"claimName": "d", "mountPath": path})
    for name in ("exchange", "tmp", "scratch", "shm", "data", "base"):
        yield f"a volume called {name}", _volume(**_EMPTY, name=name)
    exchange = {"persistentVolumeClaim": {"claimName": "digits-exchange"}}
    yield "the exchange as a volume", _volume(**exchange)
    yield "the exchange as data", _participant(data={"claimName": "digits-exchange"})
    yield "the exchange as scratch", _participant(scratch={"claimName": "digits-exchange"})
    yield "the exchange as base", {"model": {"init": {}, "base": {"claimName": "digits-exchange"}}}
    yield "a claim elsewhere", _participant(data={"claimName": "d", "namespace": "other"})
    yield "an import from above", {"model": {"claimName": "m", "path": "../../etc/shadow"}}
    yield "a base from above", {"model": {"init": {}, "base": {"claimName": "m", "path": ".."}}}


def _of_names_and_texts() -> Iterator[tuple[str, Spec]]:
    for name in (
        "FEDTRAIN_TASK", "FEDTRAIN_HUB_TOKEN", "PET_MASTER_ADDR", "HOME", "RANK", "MASTER_ADDR",
        "A=B", "A\nFEDTRAIN_TASK", "", "A B",
    ):  # fmt: skip
        yield f"env {name!r}", _env(name=name, value="x")
    yield "env twice", _trainer(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])
    yield "env from a field", _env(name="A", valueFrom={"fieldRef": {"fieldPath": "spec.nodeName"}})
    yield "env from a file", _env(name="A", valueFrom={"fileKeyRef": {"path": "/etc/shadow"}})
    yield (
        "a foreign secret",
        _env(
            name="A",
            valueFrom={"secretKeyRef": {"name": "s", "key": "k", "namespace": "kube-system"}},
        ),
    )
    yield "a secret and a value", _env(name="A", value="x", valueFrom=_SECRET)
    yield (
        "a path as a key",
        _env(name="A", valueFrom={"secretKeyRef": {"name": "s", "key": "../k"}}),
    )
    yield "an expanded value", _env(name="A", value="$(FEDTRAIN_TASK)")
    yield "a foreign pull secret", _trainer(imagePullSecrets=[{"name": "kube-system/registry"}])
    yield (
        "an inline pull secret",
        _trainer(imagePullSecrets=[{"name": "r", "data": base64.b64encode(b"{}").decode()}]),
    )
    yield "another image of the aggregator", {"aggregation": {"image": "evil"}}
    yield "a command of the aggregator", {"aggregation": {"command": ["sh"]}}
    yield "a strategy from the shell", {"strategy": {"name": "FedAvg; rm -rf /"}}
    yield "a strategy on two lines", {"strategy": {"name": "FedAvg\nKrum"}}
    yield "a parameter of no strategy", {"strategy": {"name": "FedAvg", "__class__": "os"}}
    texts = {
        "a": "$(reboot)",
        "b": "`reboot`",
        "c": "\n--\nkind: Pod",
        "d": "'; DROP",
        "e": "$$(A)",
    }
    yield "parameters from the shell", {"parameters": texts}
    yield "a metric on two lines", {"evaluation": {}, "stop": {"metric": "a\nb", "target": 1}}
    yield "a participant with a path", {"participants": [{"name": "../south"}]}
    yield "a participant on two lines", {"participants": [{"name": "north\n"}]}
    yield "arguments of the launcher", _trainer(command=["--", "-c", "import os"])
    yield "arguments from the shell", _trainer(args=["; cat /etc/shadow", "$(HOME)", "\n"])
    yield "a runtime with a path", _trainer(runtimeClassName="../kata")
    yield "a selector of nothing", _trainer(nodeSelector={"a b": "c"})
    yield "a toleration of everything", _trainer(tolerations=[{"operator": "Exists"}])
    yield "a system's priority", _trainer(priorityClassName="system-node-critical")
    yield "a claim of no class", {"exchange": {"size": "1Gi", "storageClassName": "a/b"}}
    yield "an exchange of a volume", {"exchange": {"volumeName": "pv-of-others"}}
    yield "patterns with a path", {"exchange": {"size": "1Gi", "exclude": ["../*"]}}


def attempts() -> dict[str, Spec]:
    """What it is → what of the spec it changes."""
    found = [*_of_the_pod(), *_of_volumes(), *_of_names_and_texts()]
    named = dict(found)
    assert len(named) == len(found), "two attempts of one name"
    return named
