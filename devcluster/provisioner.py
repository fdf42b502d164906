"""Volumes on demand: a folder on this machine for every claim of the class `standard`.

    python3 -m devcluster.provisioner PKI FOLDER

The contract is that of every external provisioner: a pending claim that the volume controller
marked with our name gets a volume bound to it in advance; a released volume that says Delete goes,
its folder first. The folders are open to everybody (0777), because fsGroup changes nothing on a
hostPath volume and a restricted pod is never root.
"""

import pathlib
import shutil
import sys
import threading
import time
import typing

from devcluster import api, report, settings

NAME = "fedtrain.dev/folder"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
_WANTED_BY = "volume.kubernetes.io/storage-provisioner"
_MADE_BY = "pv.kubernetes.io/provisioned-by"
_WATCH_SECONDS = 60


def is_wanted(claim: api.Json) -> bool:
    """Whether a claim waits for a volume from us."""
    annotations = claim["metadata"].get("annotations", {})
    ours = annotations.get(_WANTED_BY) == NAME
    return ours and "volumeName" not in claim["spec"] and not _leaving(claim)


def is_over(volume: api.Json) -> bool:
    """Whether a volume of ours has outlived its claim and is to go with it."""
    ours = volume["metadata"].get("annotations", {}).get(_MADE_BY) == NAME
    released = volume.get("status", {}).get("phase") == "Released"
    deletes = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    return ours and released and deletes and not _leaving(volume)


def volume_for(claim: api.Json, root: pathlib.Path) -> api.Json:
    """The volume of a claim; its name follows from the claim's identity, so twice is once."""
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{metadata['uid']}"
    reference = {key: metadata[key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {_MADE_BY: NAME}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **reference},
            "storageClassName": spec["storageClassName"],
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {
                "path": str(root / f"{metadata['namespace']}_{metadata['name']}_{name}"),
                "type": "Directory",
            },
        },
    }


def _leaving(thing: api.Json) -> bool:
    return "deletionTimestamp" in thing["metadata"]


def provide(server: api.Server, root: pathlib.Path, claim: api.Json) -> None:
    """The folder first: a volume that can be bound can be mounted."""
    if not is_wanted(claim):
        return
    volume = volume_for(claim, root)
    folder = pathlib.Path(volume["spec"]["hostPath"]["path"])
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    try:
        server.request("POST", VOLUMES, volume)
        report.say(f"made {folder.name}")
    except api.ApiError as error:
        if error.code != 409:
            raise


def withdraw(server: api.Server, root: pathlib.Path, volume: api.Json) -> None:
    """The folder first again: a volume that is gone leaves nothing behind."""
    if not is_over(volume):
        return
    folder = pathlib.Path(volume["spec"]["hostPath"]["path"])
    if folder.parent == root and folder.exists():
        shutil.rmtree(folder)
    try:
        server.request("DELETE", f"{VOLUMES}/{volume['metadata']['name']}")
        report.say(f"removed {folder.name}")
    except api.ApiError as error:
        if error.code != 404:
            raise


def _follow(server: api.Server, root: pathlib.Path, path: str, listed: threading.Event) -> None:
    """List, then watch until the watch ends, then list again, for ever."""
    handle = provide if path == CLAIMS else withdraw
    while True:
        try:
            found: dict[str, typing.Any] = server.request("GET", path)
            for thing in found["items"]:
                handle(server, root, thing)
            listed.set()
            version = found["metadata"]["resourceVersion"]
            for thing in server.watch(path, version, seconds=_WATCH_SECONDS):
                handle(server, root, thing)
        except (api.ApiError, *api.UNREACHABLE) as error:
            report.say(f"{path}: {error}; again in a second")
            time.sleep(1)


def main(pki: pathlib.Path, root: pathlib.Path) -> None:
    """Serve until killed; the file `.ready` says that all claims so far have been looked at."""
    key = (pki / "ca.crt", pki / "provisioner.crt", pki / "provisioner.key")
    server = api.Server(settings.NODE_ADDRESS, settings.API_PORT, *key)
    root.mkdir(parents=True, exist_ok=True)
    listed = [threading.Event(), threading.Event()]
    for path, event in zip((CLAIMS, VOLUMES), listed, strict=True):
        arguments = (server, root, path, event)
        threading.Thread(target=_follow, args=arguments, daemon=True).start()
    for event in listed:
        event.wait()
    (root / ".ready").touch()
    threading.Event().wait()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
