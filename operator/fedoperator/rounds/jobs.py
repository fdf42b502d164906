"""A workload as Kubernetes objects: an Indexed Job, and what its pods need beside it.

Written once, by POST, and never applied again. Every pod passes Pod Security *restricted*.
"""

from typing import Any

from fedoperator.api import API_VERSION
from fedoperator.api import training as training_api
from fedoperator.api.base import seconds
from fedoperator.api.fields import SCRATCH_PATH
from fedoperator.api.scheduling import QUEUE_LABEL
from fedoperator.api.trainer import TrainerFields
from fedoperator.api.training import Training
from fedoperator.rounds import network, observed, volumes
from fedoperator.rounds.workloads import Workload
from fedtrain import contract
from fedtrain.contract import Exit, Role

PORT = 29500
"""Of the torchrun rendezvous; PyTorch's own default."""

OWN_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}
"""Of the pods that run the controller's image, unless spec.aggregation says otherwise."""

BACKSTOP_SECONDS = 7 * 24 * 3600
"""If the operator is gone for good, pods do not hold their GPUs for ever."""

Object = dict[str, Any]

NO_ROOT: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
NO_PRIVILEGES: Object = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""What *restricted* asks of a pod, and of a container."""


def objects(
    workload: Workload, controller_image: str, operator_namespace: str = ""
) -> list[Object]:
    """What to POST for this workload, in order; everything but the claim is the training's own."""
    return [*shared(workload, operator_namespace), job(workload, controller_image)]


def shared(workload: Workload, operator_namespace: str) -> list[Object]:
    """What its pods need beside the Job, the same for others of its training."""
    wanted = network.policies(workload, operator_namespace)
    for policy in wanted:
        policy["metadata"]["ownerReferences"] = [owner_reference(workload.training)]
    if workload.identity.role is Role.PREPARE and workload.training.spec.exchange.size is not None:
        wanted.append(_claim(workload.training))
    if workload.trainer is not None:
        wanted.append(_service(workload.training))
    if workload.stays and workload.identity.role is Role.PREPARE:
        wanted.append(_hub_service(workload.training))
    return wanted


def service_name(training: Training) -> str:
    return f"{training.name}-pods"


def owner_reference(training: Training) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": training_api.KIND,
        "name": training.name,
        "uid": training.uid,
        "controller": True,
    }


def _claim(training: Training) -> Object:
    """The exchange; without an owner, because a volume with a model on it is never deleted."""
    exchange = training.spec.exchange
    spec: Object = {
        "accessModes": list(exchange.access_modes),
        "resources": {"requests": {"storage": exchange.size}},
    }
    if exchange.storage_class_name is not None:
        spec["storageClassName"] = exchange.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": volumes.claim_name(training),
            "namespace": training.namespace,
            "labels": {observed.TRAINING_LABEL: training.name},
        },
        "spec": spec,
    }


def _service(training: Training) -> Object:
    """Headless: it only gives the pods of all participants their DNS names."""
    labels = {observed.TRAINING_LABEL: training.name}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_name(training),
            "namespace": training.namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(training)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def give_token(job: Object, token: str) -> None:
    """Let a hub know what the operator will show it. Who may read it in the pod and reach the port
    could also mount the exchange, and needs no hub to write there."""
    environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
    environment.append({"name": contract.HUB_TOKEN_ENV, "value": token})


def hub_name(training: Training) -> str:
    return f"{training.name}-hub"


def _hub_service(training: Training) -> Object:
    """One address for whichever pod is the hub."""
    labels = {observed.TRAINING_LABEL: training.name}
    which = {observed.ROLE_LABEL: str(Role.PREPARE), observed.RESIDENT_LABEL: "true"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": hub_name(training),
            "namespace": training.namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(training)],
        },
        "spec": {
            "selector": labels | which,
            "ports": [{"name": "hub", "port": contract.HUB_PORT}],
        },
    }


def job(workload: Workload, controller_image: str) -> Object:
    """The Indexed Job."""
    training, identity = workload.training, workload.identity
    labels = {
        "app.kubernetes.io/managed-by": "fedtrain",
        observed.TRAINING_LABEL: training.name,
        observed.ROLE_LABEL: str(identity.role),
        observed.ROUND_LABEL: str(identity.round),
        observed.ATTEMPT_LABEL: str(identity.attempt),
    }
    if identity.participant:
        labels[observed.PARTICIPANT_LABEL] = identity.participant
    if workload.stays:
        labels[observed.RESIDENT_LABEL] = "true"
    queue = training.spec.scheduling.queue_name if training.spec.scheduling else None
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": workload.name,
            "namespace": training.namespace,
            # On the Job alone: a pod with a queue of its own would be admitted a second time.
            "labels": labels | ({QUEUE_LABEL: queue} if queue is not None else {}),
            "ownerReferences": [owner_reference(training)],
        },
        "spec": {
            # From here on the queue's to say: a Job that exists is never written again.
            **({"suspend": True} if queue is not None else {}),
            "completionMode": "Indexed",
            "completions": workload.nodes,
            "parallelism": workload.nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": BACKSTOP_SECONDS,
            "podFailurePolicy": {"rules": _failure_rules(identity.role)},
            "template": {
                "metadata": {"labels": labels} | _asked_of_the_queue(workload),
                "spec": {
                    **_pod(workload, controller_image),
                    **_spread(workload, labels),
                    **_together(workload, labels),
                    **_in_a_gang(workload),
                },
            },
        },
    }


def _spread(workload: Workload, labels: Object) -> Object:
    """Shards go to different nodes where they can: it is the nodes' bandwidth that they add up."""
    if workload.identity.role is not Role.AGGREGATE or workload.nodes == 1:
        return {}
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    return {"topologySpreadConstraints": [constraint]}


def _together(workload: Workload, labels: Object) -> Object:
    """Pods of one attempt attract each other to nodes with one value of the topology's key."""
    topology = workload.trainer.topology if workload.trainer is not None else None
    if topology is None or topology.by != "Scheduler" or workload.nodes == 1:
        return {}
    # The first pod matches its own term, and goes where it likes (InterPodAffinity).
    term = {"topologyKey": topology.key, "labelSelector": {"matchLabels": labels}}
    kind = "requiredDuringSchedulingIgnoredDuringExecution"
    terms: list[Object] = [term]
    if topology.mode == "Preferred":
        kind = "preferredDuringSchedulingIgnoredDuringExecution"
        terms = [{"weight": 100, "podAffinityTerm": term}]
    return {"affinity": {"podAffinity": {kind: terms}}}


def _in_a_gang(workload: Workload) -> Object:
    scheduling = workload.training.spec.scheduling
    if scheduling is None or not scheduling.gang or workload.nodes == 1:
        return {}
    return {"schedulingGroup": {"podGroupName": workload.name}}


def strip(job: Object) -> None:
    """Leave of a listed Job's pods what `pod_group` reads; their environment may have megabytes."""
    pod = job["spec"]["template"]["spec"]
    kept = {name: pod[name] for name in ("schedulingGroup", "priorityClassName") if name in pod}
    job["spec"]["template"] = {"spec": kept}


def pod_group(job: Object) -> Object | None:
    """What the pods of a Job, as listed, wait for to start together; None if they do not.

    It needs the Job's uid, to go with it: the pods that come first wait, no scheduler places them.
    """
    pod = job["spec"]["template"]["spec"]
    if "schedulingGroup" not in pod:
        return None
    priority = pod.get("priorityClassName")
    return {
        "apiVersion": "scheduling.k8s.io/v1beta1",
        "kind": "PodGroup",
        "metadata": {
            "name": pod["schedulingGroup"]["podGroupName"],
            "namespace": job["metadata"]["namespace"],
            "labels": {observed.TRAINING_LABEL: job["metadata"]["labels"][observed.TRAINING_LABEL]},
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": job["metadata"]["name"],
                    "uid": job["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {
            "schedulingPolicy": {"gang": {"minCount": job["spec"]["completions"]}},
            # Who loses one pod of a torchrun has lost them all.
            "disruptionMode": {"all": {}},
            **({"priorityClassName": priority} if priority is not None else {}),
        },
    }


def _asked_of_the_queue(workload: Workload) -> Object:
    """Kueue reads from the pods of a Job how near they want to be (KEP-2724)."""
    topology = workload.trainer.topology if workload.trainer is not None else None
    if topology is None or topology.by != "Queue":
        return {}
    name = f"kueue.x-k8s.io/podset-{topology.mode.lower()}-topology"
    return {"annotations": {name: topology.key}}


def _failure_rules(role: Role) -> list[Object]:
    """In this order: free, fatal, try again; the rule that matched survives the pods."""
    fatal = [int(Exit.CONTRACT), int(Exit.DATA)]
    if role is Role.AGGREGATE:
        fatal.append(int(Exit.VERDICTS))
    passing = [int(Exit.EXCHANGE), int(Exit.TRY_AGAIN)]
    return [
        {
            "action": "FailJob",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        *(
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": codes}}
            for codes in (fatal, passing)
        ),
    ]


def _pod(workload: Workload, controller_image: str) -> Object:
    security = workload.training.spec.security
    trainer = workload.trainer or TrainerFields()
    context: Object = dict(NO_ROOT)
    for name, value in (
        ("runAsUser", security.run_as_user),
        ("runAsGroup", security.run_as_group),
        ("fsGroup", security.fs_group),
    ):
        if value is not None:
            context[name] = value
    if security.fs_group is not None:
        context["fsGroupChangePolicy"] = "OnRootMismatch"
    sources, mounts = volumes.of(workload)
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "subdomain": service_name(workload.training),
        "securityContext": context,
        "containers": [_container(workload, controller_image, mounts)],
        "volumes": sources,
    }
    scheduling = workload.training.spec.scheduling
    usual = {} if scheduling is None else scheduling.to_dict()
    given = usual | trainer.to_dict()
    for name in (
        "imagePullSecrets",
        "nodeSelector",
        "tolerations",
        "runtimeClassName",
        "priorityClassName",
        "schedulerName",
    ):
        if given.get(name):
            pod[name] = given[name]
    if trainer.termination_grace_period_seconds is not None:
        pod["terminationGracePeriodSeconds"] = trainer.termination_grace_period_seconds
    return pod


def _container(workload: Workload, controller_image: str, mounts: list[Object]) -> Object:
    trainer = workload.trainer
    container: Object = {
        "name": str(workload.identity.role),
        "env": _environment(workload),
        "volumeMounts": mounts,
        "securityContext": dict(NO_PRIVILEGES),
        "terminationMessagePolicy": "File",
    }
    if trainer is None:
        container["image"] = controller_image
        container["command"] = ["python", "-m", "fedtrain.aggregation"]
        container["securityContext"]["readOnlyRootFilesystem"] = True
        asked = workload.training.spec.aggregation.resources
        container["resources"] = OWN_RESOURCES if asked is None else asked.to_dict()
        return container
    given = trainer.to_dict()
    container["image"] = trainer.image
    container["command"] = ["python", "-m", "fedtrain.launch", "--", *(trainer.command or [])]
    if trainer.args:
        container["args"] = list(trainer.args)
    if trainer.image_pull_policy is not None:
        container["imagePullPolicy"] = trainer.image_pull_policy
    if "resources" in given:
        container["resources"] = given["resources"]
    return container


def environment(workload: Workload, root: str) -> dict[str, str]:
    """The variables of every process of a workload, the same on a cluster and on a laptop."""
    variables = {
        "HOME": "/tmp",  # noqa: S108 - an emptyDir of the pod's own
        contract.TASK_ENV: contract.encode_task(workload.task),
        contract.ROOT_ENV: root,
    }
    if workload.trainer is not None:
        variables |= {
            "PET_NNODES": str(workload.nodes),
            "PET_NPROC_PER_NODE": str(workload.processes_per_node),
        }
        if workload.trainer.termination_grace_period_seconds is not None:
            grace = workload.trainer.termination_grace_period_seconds
            variables[contract.GRACE_ENV] = str(grace)
        if workload.trainer.hang_timeout is not None:
            timeout = seconds(workload.trainer.hang_timeout)
            variables[contract.HANG_ENV] = f"{timeout.total_seconds():g}"
    if workload.has_scratch:
        variables[contract.SCRATCH_ENV] = SCRATCH_PATH
    if workload.base is not None:
        variables[contract.BASE_ENV] = workload.base.folder
    return variables


def _from_pod(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _environment(workload: Workload) -> list[Object]:
    # The preparation makes the training's folder, so it sees the claim from its root.
    below = f"/{workload.folder}" if workload.identity.role is Role.PREPARE else ""
    own = environment(workload, contract.MOUNT + below)
    if workload.stays:
        host = f"{hub_name(workload.training)}.{workload.training.namespace}.svc"
        own[contract.HUB_ENV] = f"{host}:{contract.HUB_PORT}"
    if workload.trainer is not None:
        training = workload.training
        service = f"{service_name(training)}.{training.namespace}.svc"
        own["PET_MASTER_ADDR"] = f"{workload.name}-0.{service}"
        own["PET_MASTER_PORT"] = str(PORT)
    # Kubernetes would expand $(NAME) in a value, also within the user's parameters.
    variables: list[Object] = [
        {"name": name, "value": value.replace("$", "$$")} for name, value in own.items()
    ]
    if workload.stays:
        uid = f"metadata.labels['{observed.JOB_UID_LABEL}']"
        variables.append(_from_pod(contract.CARRIER_ENV, uid))
    if workload.trainer is not None:
        index = f"metadata.annotations['{observed.INDEX_ANNOTATION}']"
        variables.append(_from_pod("PET_NODE_RANK", index))
        variables.extend(workload.trainer.to_dict().get("env", []))
    return variables
