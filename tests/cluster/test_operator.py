"""The whole process, `python -m fedoperator`, with no more rights than it needs."""

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import yaml

from devcluster.replica import Replica
from tests.cluster import rbac
from tests.cluster.stage import NAME, Stage, a_training

pytestmark = pytest.mark.apiserver
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
async def account(stage: Stage, kubectl, tmp_path) -> pathlib.Path:
    """The kubeconfig of a service account that may do what the operator does, in one namespace."""
    api, namespace = stage.api, stage.namespace
    await api.request("POST", stage.path("serviceaccounts"), {"metadata": {"name": "operator"}})
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    role = {
        "metadata": {"name": "operator"},
        "rules": rbac.rules(rbac.NAMESPACED + rbac.LEASES),
    }
    await api.request("POST", f"{roles}/roles", role)
    binding = {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
    }
    await api.request("POST", f"{roles}/rolebindings", binding)
    token = await api.request("POST", stage.path("serviceaccounts", "operator", "token"), {})
    document = yaml.safe_load(kubectl.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token["status"]["token"]}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def start(stage: Stage, account: pathlib.Path, tmp_path) -> Iterator[Callable[[str], Replica]]:
    with contextlib.ExitStack() as running:

        def start(name: str) -> Replica:
            process = Replica(
                account, tmp_path / f"{name}.log", NAMESPACE=stage.namespace, IDENTITY=name
            )
            running.callback(process.process.wait)
            running.callback(process.process.kill)
            return process

        yield start


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.05)


async def in_phase(stage: Stage, phase: str) -> bool:
    return (await stage.status()).get("phase") == phase


async def versions(stage: Stage) -> list[str]:
    objects = [await stage.training(), *await stage.records(), *(await stage.jobs()).values()]
    return [thing["metadata"]["resourceVersion"] for thing in objects]


async def test_a_training_from_apply_to_success_and_then_not_one_write(stage, start):
    operator = start("first")
    await until(lambda: operator.get("/readyz") == (200, "ok\n"))
    await stage.apply(a_training(rounds=1))
    async with asyncio.timeout(40):
        while not await in_phase(stage, "Succeeded"):
            await stage.work_off()
            await asyncio.sleep(0.1)
    log = operator.log.read_text()
    assert "level=ERROR" not in log
    assert "forbidden" not in log
    training = await stage.training()
    assert "finalizers" not in training["metadata"]
    assert "annotations" not in training["metadata"]

    await asyncio.sleep(2)  # For what the last write's own events make it look at.
    before, writes = await versions(stage), operator.metric("fedtrain_operator_writes_total")
    looks = operator.metric("fedtrain_operator_look_duration_seconds_count")
    job = next(iter((await stage.jobs()).values()))
    job["metadata"]["annotations"] = {"example.com/touched": "now"}
    await stage.api.request("PUT", stage.path("jobs", job["metadata"]["name"]), job)
    await until(lambda: operator.metric("fedtrain_operator_look_duration_seconds_count") > looks)
    assert operator.metric("fedtrain_operator_writes_total") == writes
    after = await versions(stage)
    assert len(set(before) - set(after)) == 1, "the Job that the test itself touched"

    assert operator.get("/healthz") == (200, "ok\n")
    assert operator.metric("process_resident_memory_bytes") < 150 * 2**20
    assert operator.metric("fedtrain_training_round") == 1
    await stage.delete("federatedtrainings", NAME)
    await until(lambda: operator.metric("fedtrain_training_rounds") == 0)
    code, seconds = operator.stop()
    assert code == 0
    assert seconds < 5, "0.1 s on an idle machine"


async def test_what_it_seldom_does_it_may_do_too(stage, start):
    """Find the claim of a training before, and let go of old records."""
    claim = {
        "metadata": {"name": "digits-exchange", "labels": {"fedtrain.dev/training": NAME}},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await stage.api.request("POST", stage.path("persistentvolumeclaims"), claim)
    await stage.apply(a_training(["north"], rounds=2, history=2))
    operator = start("first")
    async with asyncio.timeout(40):
        while not await in_phase(stage, "Succeeded"):
            await stage.work_off()
            await asyncio.sleep(0.1)
    assert [record["spec"]["round"] for record in await stage.records()] == [1, 2]
    log = operator.log.read_text()
    assert "level=ERROR" not in log
    assert "forbidden" not in log


async def test_a_standby_takes_over_at_once_when_the_leader_is_told_to_go(stage, start):
    first = start("first")
    await until(lambda: first.metric("fedtrain_operator_leader") == 1)
    second = start("second")
    await until(lambda: second.get("/readyz")[0] == 200)
    assert second.metric("fedtrain_operator_leader") == 0
    await stage.apply(a_training())
    await until(lambda: in_phase(stage, "Pending"))
    assert first.stop()[0] == 0
    await until(lambda: second.metric("fedtrain_operator_leader") == 1, seconds=4)
    await until(stage.work_off)
    await until(lambda: in_phase(stage, "Initialising"))
    assert second.metric("fedtrain_training_rounds") == 2, "series come back after a restart"


async def test_a_process_that_loses_the_lease_ends_and_writes_nothing_more(stage, start):
    operator = start("first")
    await until(lambda: operator.metric("fedtrain_operator_leader") == 1)
    path = f"/apis/coordination.k8s.io/v1/namespaces/{stage.namespace}/leases/fedtrain-operator"
    lease = await stage.api.request("GET", path)
    lease["spec"]["holderIdentity"] = "usurper"
    await stage.api.request("PUT", path, lease)
    await until(lambda: operator.process.poll() is not None, seconds=15)
    assert operator.process.returncode == 1
    assert "reason=LeaseLost" in operator.log.read_text()
    left = await stage.api.request("GET", path)
    assert left["spec"]["holderIdentity"] == "usurper"


async def test_a_role_that_is_taken_away_makes_it_unready_with_no_training_there(stage, start):
    operator = start("first")
    await until(lambda: operator.get("/readyz") == (200, "ok\n"))
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/roles"
    role = await stage.api.request("GET", f"{roles}/operator")
    narrow = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    await stage.api.request("PUT", f"{roles}/operator", role | {"rules": narrow})
    await until(lambda: operator.get("/readyz")[0] == 503)
    assert operator.get("/readyz")[1].startswith(
        f"the operator may not list pods in namespace {stage.namespace}: bind the rules"
    )
    assert operator.get("/healthz") == (200, "ok\n"), "a restart would not help"


async def test_it_can_watch_all_namespaces(stage, kubectl, tmp_path):
    log = tmp_path / "everywhere.log"
    operator = Replica(kubectl.kubeconfig, log, LEASE_NAMESPACE=stage.namespace)
    try:
        await until(lambda: operator.get("/readyz")[0] == 200)
        await stage.apply(a_training())
        await until(lambda: in_phase(stage, "Pending"))
        await until(stage.work_off)
        await until(lambda: in_phase(stage, "Initialising"))
    finally:
        operator.process.kill()
        operator.process.wait()


async def test_what_is_nested_deeper_than_python_reads_disturbs_nobody_else(
    stage, start, kubectl, tmp_path
):
    """Free parameters, and managedFields of whatever is labelled as ours, may be so deep."""
    for levels in (400, 1100):
        deep = a_training(parameters={"deep": {"a": "DEEP"}})
        deep["metadata"]["name"] = f"deep-{levels}"
        _written_deep(kubectl, tmp_path, "create", stage.path("federatedtrainings"), deep, levels)
    container = {"name": "a", "image": "b"}
    job = {
        "metadata": {"name": "deep", "labels": {"fedtrain.dev/training": NAME}},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    job = await stage.api.request("POST", stage.path("jobs"), job)
    fields = {"f:metadata": {"f:annotations": {"f:a": "DEEP"}}}
    (manager,) = job["metadata"]["managedFields"]
    job["metadata"]["managedFields"] = [{**manager, "fieldsV1": fields}]
    _written_deep(kubectl, tmp_path, "replace", stage.path("jobs", "deep"), job, 1500)

    operator = start("first")
    await until(lambda: operator.get("/readyz") == (200, "ok\n"))
    await stage.apply(a_training())
    await until(lambda: in_phase(stage, "Pending"))
    del job["metadata"]["resourceVersion"]
    _written_deep(kubectl, tmp_path, "replace", stage.path("jobs", "deep"), job, 1600)
    await until(lambda: _there(stage, "digits-prepare-0-1"))
    await stage.succeed("digits-prepare-0-1", {})
    await until(lambda: in_phase(stage, "Initialising"))
    sentence = "spec.parameters: more than 64 levels of mappings and lists; use fewer"
    for levels in (400, 1100):
        await until(lambda name=f"deep-{levels}": _says(stage, name, sentence))
    assert "level=ERROR" not in operator.log.read_text()
    assert operator.process.poll() is None


async def _says(stage, name, sentence):
    read = await stage.api.request("GET", stage.path("federatedtrainings", name))
    return read.get("status", {}).get("message") == sentence


async def _there(stage, job):
    return job in await stage.jobs()


def _written_deep(kubectl, tmp_path, verb, url, document, levels):
    """As text, with so many levels in the place of "DEEP"."""
    deep = '{"f:a":' * levels + "{}" + "}" * levels
    path = tmp_path / "deep.json"
    path.write_text(json.dumps(document).replace('"DEEP"', deep))
    code, answer = kubectl(verb, "--raw", url, "-f", str(path))
    assert code == 0, answer[-1000:]


def test_without_an_image_it_says_what_is_missing():
    environment = {"PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer", "PATH": os.environ["PATH"]}
    result = subprocess.run(
        [sys.executable, "-m", "fedoperator"], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("FEDTRAIN_CONTROLLER_IMAGE is not set; name the image")
