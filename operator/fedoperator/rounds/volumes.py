"""What a workload's pods see: their part of the exchange, and what a participant brings itself."""

from typing import Any

from fedoperator.api.fields import SCRATCH_PATH
from fedoperator.api.training import Training
from fedoperator.rounds.workloads import Workload
from fedtrain import contract
from fedtrain.contract import Role

Object = dict[str, Any]


def claim_name(training: Training) -> str:
    """The exchange's claim: the user's, or the one made for this training."""
    return training.spec.exchange.claim_of(training.name)


def of(workload: Workload) -> tuple[list[Object], list[Object]]:
    training, role, folder = workload.training, workload.identity.role, workload.folder
    claim = {"persistentVolumeClaim": {"claimName": claim_name(training)}}
    volumes: list[Object] = [
        {"name": "exchange", **claim},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108

    def exchange(path: str, read_only: bool) -> None:
        mount = {"name": "exchange", "mountPath": f"{contract.MOUNT}/{path}".rstrip("/")}
        if role is not Role.PREPARE:
            mount["subPath"] = f"{folder}/{path}".rstrip("/")
        mounts.append({**mount, "readOnly": True} if read_only else mount)

    if workload.trainer is None:
        exchange("", read_only=False)
        if isinstance(workload.task, contract.ImportTask):
            source = training.spec.model.claim_name
            volumes.append(
                {
                    "name": "model",
                    "persistentVolumeClaim": {"claimName": source, "readOnly": True},
                }
            )
            mounts.append({"name": "model", "mountPath": contract.IMPORT_MOUNT, "readOnly": True})
        return volumes, mounts
    if role is Role.INIT:
        exchange("global/0", read_only=False)
    else:
        exchange("global", read_only=True)
        exchange(f"updates/{workload.identity.participant}", read_only=False)
    _own_volumes(workload, volumes, mounts)
    return volumes, mounts


def _own_volumes(workload: Workload, volumes: list[Object], mounts: list[Object]) -> None:
    """What the participant brings: data, base model, scratch, the trainer's mounts, memory."""
    trainer, data = workload.trainer, workload.data
    assert trainer is not None, "only a participant's pods have volumes of their own"
    if data is not None:
        claim = {"claimName": data.claim_name, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
        mounts.append({"name": "data", "mountPath": data.mount_path, "readOnly": True})
    if workload.base is not None:
        claim = {"claimName": workload.base.claim_name, "readOnly": True}
        volumes.append({"name": "base", "persistentVolumeClaim": claim})
        mounts.append({"name": "base", "mountPath": contract.BASE_MOUNT, "readOnly": True})
    if workload.has_scratch:
        scratch: Object = {"emptyDir": {}}
        if workload.scratch is not None:
            scratch = {"persistentVolumeClaim": {"claimName": workload.scratch.claim_name}}
        volumes.append({"name": "scratch", **scratch})
        mounts.append({"name": "scratch", "mountPath": SCRATCH_PATH})
    for volume in trainer.to_dict().get("volumes", []):
        name = f"user-{volume['name']}"
        source = {
            key: volume[key]
            for key in ("persistentVolumeClaim", "configMap", "secret", "emptyDir")
            if key in volume
        }
        mount = {"name": name, "mountPath": volume["mountPath"]}
        if "emptyDir" not in source:
            mount["readOnly"] = volume["readOnly"]
        if "subPath" in volume:
            mount["subPath"] = volume["subPath"]
        volumes.append({"name": name, **source})
        mounts.append(mount)
    if trainer.shared_memory is not None:
        memory = {"medium": "Memory", "sizeLimit": trainer.shared_memory}
        volumes.append({"name": "shm", "emptyDir": memory})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
