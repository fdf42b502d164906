"""A global model out of a cluster: through a pod of its own, which mounts the exchange read-only.

The operator mounts no volume, and the pods that do are not for reading from. This one passes Pod
Security *restricted*, has no token, mounts only the folder of one training, and ends by itself if
we do not live to delete it.
"""

import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes.stream
import urllib3.exceptions
import websocket

from fedoperator.api.base import GlobalModel
from fedoperator.api.training import Training
from fedoperator.cli.server import Server, refused
from fedoperator.cli.source import OnCluster
from fedoperator.local.folder import Refused
from fedoperator.rounds import jobs, observed, volumes
from fedtrain.contract import MOUNT

_stream: Any = kubernetes.stream
_client: Any = kubernetes.client
READY_SECONDS = 180.0
_SILENCE = 60.0
"""Seconds without a byte after which the connection is given up."""
LIFE_SECONDS = 3600
"""After which the pod ends without us: of a model too large to be copied in that time, no copy."""

_STDOUT, _STDERR, _ENDED = b"\x01", b"\x02", b"\x03"
_HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfig")
"""Of a container that waits, what no waiting will change."""

_SEND = """
import sys, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
    archive.add(sys.argv[1], arcname=".")
"""


def download(found: OnCluster, model: GlobalModel, out: Path, image: str | None) -> None:
    """Copy the model's folder into `out`. Raises Refused, OSError."""
    training = found.training()
    server = found.server
    with _pod(server, pod(training, image or _image(server, training))) as name:
        out.mkdir(parents=True, exist_ok=True)
        receive(server, name, f"{MOUNT}/{model.folder}", out)


def pod(training: Training, image: str) -> dict[str, Any]:
    """The pod: `image` needs Python, and no more."""
    security, scheduling = training.spec.security, training.spec.scheduling
    context: dict[str, Any] = dict(jobs.NO_ROOT)
    for field in ("run_as_user", "run_as_group", "fs_group"):
        value = getattr(security, field)
        if value is not None:
            first, *rest = field.split("_")
            context[first + "".join(word.title() for word in rest)] = value
    if security.fs_group is not None:
        context["fsGroupChangePolicy"] = "OnRootMismatch"
    trainer = training.spec.trainer.to_dict()
    given = (scheduling.to_dict() if scheduling else {}) | trainer
    wanted = ("imagePullSecrets", "nodeSelector", "tolerations", "runtimeClassName")
    folder = model_root(training)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{training.name[:40]}-download-{uuid.uuid4().hex[:8]}",
            "namespace": training.namespace,
            # Not the training's label: its services and policies are not for this pod.
            "labels": {"app.kubernetes.io/managed-by": "fedtrain-cli"},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": context,
            **{field: given[field] for field in wanted if given.get(field)},
            "containers": [
                {
                    "name": "download",
                    "image": image,
                    "command": ["python", "-c", f"import time; time.sleep({LIFE_SECONDS})"],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                    "securityContext": {**jobs.NO_PRIVILEGES, "readOnlyRootFilesystem": True},
                    "volumeMounts": [
                        {
                            "name": "exchange",
                            "mountPath": MOUNT,
                            "subPath": folder,
                            "readOnly": True,
                        }
                    ],
                }
            ],
            "volumes": [
                {
                    "name": "exchange",
                    "persistentVolumeClaim": {"claimName": volumes.claim_name(training)},
                }
            ],
        },
    }


def model_root(training: Training) -> str:
    """The training's folder on the exchange."""
    model = training.status.global_model
    assert model is not None, "a model was chosen"
    return model.path.split("/", 1)[0]


def _image(server: Server, training: Training) -> str:
    """The controller's, which is small and has been pulled, if an aggregation is still to be seen;
    else the trainer's."""
    selector = f"{observed.TRAINING_LABEL}={training.name},{observed.ROLE_LABEL}=aggregate"
    found = server.list(server.core("pods"), labelSelector=selector)
    images = [p["spec"]["containers"][0]["image"] for p in found]
    image = images[-1] if images else training.spec.trainer.image
    return str(image)


@contextmanager
def _pod(server: Server, document: dict[str, Any]) -> Iterator[str]:
    """Its name, once it runs; it is deleted in the end. Raises Refused."""
    name = document["metadata"]["name"]
    server.post(server.core("pods"), document)
    try:
        _wait(server, name)
        yield name
    finally:
        server.remove(server.core("pods", name))


def _wait(server: Server, name: str) -> None:
    until, why = time.monotonic() + READY_SECONDS, "it is not scheduled"
    while time.monotonic() < until:
        found = server.read(server.core("pods", name))
        if found is None:
            raise Refused(f"the pod {name} was deleted by somebody else")
        status = found.get("status", {})
        if status.get("phase") == "Running":
            return
        why = _trouble(status) or why
        if any(reason in why for reason in _HOPELESS):
            raise Refused(f"the pod {name} did not start: {why}")
        if status.get("phase") in ("Failed", "Succeeded"):
            raise Refused(f"the pod {name} has ended: {status.get('message') or why}")
        time.sleep(0.3)
    raise Refused(f"the pod {name} did not start within {READY_SECONDS:.0f} s: {why}")


def _trouble(status: dict[str, Any]) -> str:
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating"):
            return f"{waiting['reason']}: {waiting.get('message', '')}"
    for condition in status.get("conditions", []):
        if condition["status"] == "False" and condition.get("message"):
            return str(condition["message"])
    return ""


def receive(server: Server, name: str, folder: str, out: Path) -> None:
    """The files of a folder in the pod, into `out`: a tar archive over one exec."""
    try:
        answer = _stream.stream(
            _client.CoreV1Api(server.client).connect_get_namespaced_pod_exec,
            name,
            server.namespace,
            command=["python", "-c", _SEND, folder],
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
            binary=True,
            _preload_content=False,
        )
    except (_client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        raise refused(error) from error
    except websocket.WebSocketException as error:
        raise Refused(f"the pod {name} cannot be read from: {error}") from error
    answer.sock.settimeout(_SILENCE)
    incoming: Any = Incoming(answer.sock)
    try:
        with tarfile.open(fileobj=incoming, mode="r|") as archive:
            archive.extractall(out, filter="data")
    except (
        tarfile.TarError,
        ValueError,
        OverflowError,
        websocket.WebSocketException,
    ) as error:  # the middle two: of names and times that none can have
        why = incoming.complaint or str(error)
        raise Refused(f"{folder} was not copied: {why}") from error
    finally:
        answer.close()


class Incoming:
    """The standard output of an exec as a file to read from, a frame at a time.

    The client's own reader keeps all that ever came, which of a model may be more than there is
    memory. A frame begins with the number of its channel (kubernetes, "remotecommand").
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._rest = bytearray()
        self._told = b""
        self._over = False

    @property
    def complaint(self) -> str:
        """The last line of its standard error."""
        return self._told.decode(errors="replace").strip().rpartition("\n")[2]

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._over:
            kind, frame = self._socket.recv_data_frame(True)
            if kind == websocket.ABNF.OPCODE_CLOSE:
                self._over = True
            elif kind in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT):
                self._take(bytes(frame.data))
        piece = bytes(self._rest[:size])
        del self._rest[:size]
        return piece

    def _take(self, data: bytes) -> None:
        channel, data = data[:1], data[1:]
        if channel == _STDOUT:
            self._rest += data
        elif channel == _STDERR:
            self._told = (self._told + data)[-4096:]
        elif channel == _ENDED:
            self._over = True
