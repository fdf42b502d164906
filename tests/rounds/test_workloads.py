"""What is rendered for the API server: names, mounts, environment, restricted pods."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from world import a_training, a_world

from fedoperator.api.base import NAME_PATTERN
from fedoperator.rounds import jobs
from fedoperator.rounds.observed import Identity, identity_of
from fedoperator.rounds.workloads import NAME_LIMIT, Workload, workload_name
from fedtrain import contract
from fedtrain.contract import Role

names = st.from_regex(NAME_PATTERN.replace("*", "{0,38}"), fullmatch=True).filter(
    lambda name: len(name) <= 40
)
identities = st.builds(
    Identity,
    st.sampled_from(Role),
    st.integers(0, 10000),
    names,
    st.integers(1, 99999),
)


def workloads_of(world) -> dict[Role, Workload]:
    """The first workload of each role in a whole run of a training."""
    found: dict[Role, Workload] = {}
    for workload in world.to_the_end().made.values():
        found.setdefault(workload.identity.role, workload)
    return found


def rendered(workload: Workload) -> dict:
    return jobs.objects(workload, "controller")[-1]


def a_workload(role: Role = Role.TRAIN, **trainer) -> Workload:
    spec = {"image": "digits", "command": ["torchrun", "train.py"], **trainer}
    training = a_training(trainer=spec)
    task = contract.ParticipantTask(
        role=role, training="digits", uid=training.uid, round=3, participant="north", attempt=1,
        output="updates/north/3/1",
    )  # fmt: skip
    return Workload(
        training=training,
        identity=Identity(role, 3, "north", 1),
        task=task,
        trainer=training.spec.trainer,
    )


def test_a_name_says_what_the_work_is():
    identity = Identity(Role.TRAIN, 3, "north", 1)
    assert workload_name("digits", identity) == "digits-train-3-north-1"


@given(names, st.sets(identities, min_size=2, max_size=20))
def test_no_two_pieces_of_work_of_a_training_share_a_name(training, several):
    assert len({workload_name(training, i) for i in several}) == len(several)


@given(names, identities)
def test_a_name_leaves_room_for_the_index_of_the_pod(training, identity):
    name = workload_name(training, identity)
    assert len(name) <= NAME_LIMIT
    assert name.strip("-") == name


@given(identities)
def test_labels_give_the_identity_back(identity):
    workload = a_workload()
    work = Workload(
        training=workload.training, identity=identity, task=workload.task, trainer=workload.trainer
    )
    assert identity_of(rendered(work)) == identity


def test_every_pod_of_a_training_is_restricted():
    world = a_world(rounds=1, evaluation={"by": "north"}, exchange={"size": "1Gi"})
    created = []
    while not world.training.status.terminal:
        created += world.look().create
        world.settle().all_succeed()
        world.passes(minutes=1)
    assert created
    for workload in created:
        pod = rendered(workload)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        allowed = {"persistentVolumeClaim", "emptyDir", "configMap", "secret"}
        assert all(set(v) - {"name"} <= allowed for v in pod["volumes"])


def test_a_participant_sees_the_global_models_read_only_and_its_own_updates_only():
    container = rendered(a_workload())["spec"]["template"]["spec"]["containers"][0]
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert mounts["/fedtrain/global"]["readOnly"] is True
    assert mounts["/fedtrain/updates/north"]["subPath"] == "digits-1a2b3c4d/updates/north"
    assert "readOnly" not in mounts["/fedtrain/updates/north"]
    assert set(mounts) == {"/tmp", "/scratch", "/fedtrain/global", "/fedtrain/updates/north"}


def test_the_initial_model_may_be_written_to_its_own_folder_only():
    container = rendered(a_workload(Role.INIT))["spec"]["template"]["spec"]["containers"][0]
    assert {m["mountPath"] for m in container["volumeMounts"]} == {"/tmp", "/fedtrain/global/0"}


def test_torchrun_learns_its_world_from_the_environment():
    job = rendered(a_workload(nodes=2, processesPerNode=4))
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    container = job["spec"]["template"]["spec"]["containers"][0]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"]) == ("2", "4")
    assert env["PET_MASTER_ADDR"] == "digits-train-3-north-1-0.digits-pods.default.svc"
    assert container["command"] == [
        "python", "-m", "fedtrain.launch", "--", "torchrun", "train.py",
    ]  # fmt: skip
    assert contract.decode_task(env["FEDTRAIN_TASK"]) == a_workload().task


def test_kubernetes_expands_nothing_in_what_the_script_reads():
    workload = a_workload()
    task = replace(workload.task, parameters={"pattern": "^a$$", "home": "$(HOME)/x"})
    container = rendered(replace(workload, task=task))["spec"]["template"]["spec"]["containers"][0]
    env = {e["name"]: e.get("value") for e in container["env"]}
    # What the kubelet does to every value (k8s.io/kubernetes third_party/forked/golang/expansion).
    assert "$(" not in env["FEDTRAIN_TASK"].replace("$$", "")
    assert contract.decode_task(env["FEDTRAIN_TASK"].replace("$$", "$")) == task


def test_a_job_is_owned_and_gives_up_in_the_order_of_the_failure_classes():
    job = rendered(a_workload())
    owner = job["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == ("1a2b3c4d-0000", True)
    assert "blockOwnerDeletion" not in owner
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert [r["onExitCodes"]["values"] for r in rules[1:]] == [[64, 65], [74, 75]]
    assert (job["spec"]["backoffLimit"], job["spec"]["podReplacementPolicy"]) == (0, "Failed")


def test_extended_resources_pass_through_and_count_the_processes():
    limits = {"nvidia.com/gpu": 8, "rdma/hca": 1, "memory": "64Gi"}
    workload = a_workload(resources={"limits": limits})
    container = rendered(workload)["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"limits": limits}
    assert workload.processes_per_node == 8


def test_what_a_trainer_sets_reaches_its_pod():
    given_fields = {
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{"name": "registry"}],
        "args": ["--part", "1"],
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "nodeSelector": {"gpu": "h200"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "runtimeClassName": "nvidia",
        "priorityClassName": "low",
        "schedulerName": "mine",
        "sharedMemory": "1Gi",
        "terminationGracePeriodSeconds": 120,
        "hangTimeout": "1m30s",
        "volumes": [{"name": "code", "mountPath": "/code", "configMap": {"name": "script"}}],
    }
    pod = rendered(a_workload(**given_fields))["spec"]["template"]["spec"]
    container = pod["containers"][0]
    for name in (
        "imagePullSecrets", "nodeSelector", "tolerations", "runtimeClassName",
        "priorityClassName", "schedulerName",
    ):  # fmt: skip
        assert pod[name] == given_fields[name]
    assert pod["terminationGracePeriodSeconds"] == 120
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert (env["FEDTRAIN_GRACE"], env["FEDTRAIN_HANG_TIMEOUT"]) == ("120", "90")
    assert container["imagePullPolicy"] == "Always"
    assert container["args"] == ["--part", "1"]
    assert given_fields["env"][0] in container["env"]
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert {"/code", "/dev/shm"} <= mounts


def test_what_a_trainer_leaves_out_is_kubernetes_own():
    pod = rendered(a_workload())["spec"]["template"]["spec"]
    assert "terminationGracePeriodSeconds" not in pod
    names = {e["name"] for e in pod["containers"][0]["env"]}
    assert not names & {"FEDTRAIN_GRACE", "FEDTRAIN_HANG_TIMEOUT"}


def test_participants_that_train_are_told_to_keep_their_optimizers():
    found = workloads_of(
        a_world(rounds=1, evaluation={"by": "north"}).edited(optimizerState="Keep")
    )
    told = {role: work.task.optimizer_state for role, work in found.items() if work.trainer}
    assert told == {Role.INIT: "Reset", Role.TRAIN: "Keep", Role.EVALUATE: "Reset"}


def test_a_claim_is_made_with_the_preparation_and_belongs_to_nobody():
    world = a_world(exchange={"size": "5Gi", "storageClassName": "fast"})
    (workload,) = world.look().create
    _, claim, job = jobs.objects(workload, "controller")
    assert claim["metadata"]["name"] == "digits-exchange"
    assert "ownerReferences" not in claim["metadata"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "controller"


def test_an_imported_model_is_read_from_its_claim_by_the_controllers_image():
    world = a_world(model={"claimName": "llama", "path": "v1/model.safetensors"}).settle()
    world.succeeds(world.live()[0])
    (workload,) = world.look().create
    assert workload.task.source == "/model/v1/model.safetensors"
    pod = rendered(workload)["spec"]["template"]["spec"]
    assert {"claimName": "llama", "readOnly": True} in [
        v.get("persistentVolumeClaim") for v in pod["volumes"]
    ]


def test_a_task_of_a_thousand_candidates_fits_into_the_environment():
    """Linux allows 128 KiB a variable (MAX_ARG_STRLEN)."""
    many = tuple((f"participant-with-a-long-name-number-{n:04d}", 99) for n in range(1000))
    task = contract.AggregateTask(
        training="digits", uid="u" * 36, round=9999, attempt=1, output="global/9999/1",
        model=contract.ModelRef(path="global/9998/1", digest="sha256:" + "0" * 64),
        candidates=many, minimum=1, missing=tuple(name for name, _ in many),
    )  # fmt: skip
    assert len(contract.encode_task(task)) < 128 * 1024
    assert contract.decode_task(contract.encode_task(task)) == task
    assert json.loads(contract.encode_task(task))["kind"] == "AggregateTask"
