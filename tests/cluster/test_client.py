"""The verbs against a real API server."""

import asyncio

import pytest

from fedoperator import errors
from fedoperator.api.training import Training
from fedoperator.cluster import api, client
from fedoperator.cluster.client import Kubernetes
from fedoperator.rounds import jobs
from tests.cluster.stage import NAME, a_training

apiserver = pytest.mark.apiserver


@pytest.fixture
def cluster(stage) -> Kubernetes:
    return Kubernetes(stage.api)


def a_service(training: Training) -> dict:
    return jobs._service(training)


@apiserver
async def test_a_status_is_written_only_onto_the_version_it_was_decided_from(stage, cluster):
    old = await stage.apply(a_training())
    await stage.edit(rounds=5)
    with pytest.raises(errors.Conflict):
        await cluster.put_training_status(old, {"phase": "Training"})
    written = await cluster.put_training_status(await stage.training(), {"phase": "Training"})
    assert written["status"] == {"phase": "Training"}


@apiserver
async def test_a_status_is_not_written_onto_a_namesake(stage, cluster):
    old = await stage.apply(a_training())
    await stage.delete("federatedtrainings", NAME)
    with pytest.raises(errors.Conflict):
        await cluster.put_training_status(old, {"phase": "Training"})
    new = await stage.apply(a_training())
    mixed = {**old, "metadata": {**new["metadata"], "uid": old["metadata"]["uid"]}}
    with pytest.raises(errors.Conflict):
        await cluster.put_training_status(mixed, {"phase": "Training"})


@apiserver
async def test_creating_twice_is_creating_once(stage, cluster):
    training = Training.from_object(await stage.apply(a_training()))
    service = a_service(training)
    assert await cluster.create(service, training.uid)
    assert not await cluster.create(service, training.uid)
    with pytest.raises(errors.NameTaken, match="digits-pods"):
        await cluster.create(service, "another-uid")


@apiserver
async def test_the_claim_of_a_training_of_the_same_name_before_is_used_again(stage, cluster):
    training = Training.from_object(await stage.apply(a_training()))
    claim = jobs._claim(training)
    assert await cluster.create(claim, training.uid)
    assert not await cluster.create(claim, "another-uid")


@apiserver
@pytest.mark.parametrize("labels", [{}, {"fedtrain.dev/training": "letters"}])
async def test_a_claim_of_somebody_else_is_not_written_to(stage, cluster, labels):
    training = Training.from_object(await stage.apply(a_training()))
    claim = jobs._claim(training)
    foreign = {**claim, "metadata": {"name": claim["metadata"]["name"], "labels": labels}}
    await stage.api.request("POST", stage.path("persistentvolumeclaims"), foreign)
    with pytest.raises(errors.NameTaken, match=r"spec\.exchange\.claimName"):
        await cluster.create(claim, training.uid)


@apiserver
async def test_a_job_is_deleted_only_if_it_is_the_very_one(stage, cluster):
    await stage.apply(a_training())
    await stage.settle()
    ((name, job),) = (await stage.jobs()).items()
    await cluster.delete_job(stage.namespace, name, "another-uid")
    assert name in await stage.jobs()
    await cluster.delete_job(stage.namespace, name, job["metadata"]["uid"])
    assert name not in await stage.jobs(), "in the background: no finalizer holds it"
    await cluster.delete_job(stage.namespace, name, job["metadata"]["uid"])


@apiserver
async def test_a_record_is_deleted_only_if_it_is_the_very_one(stage, cluster):
    await stage.apply(a_training())
    await stage.settle()
    (record,) = await stage.records()
    name, uid = record["metadata"]["name"], record["metadata"]["uid"]
    await cluster.delete_record(stage.namespace, name, "another-uid")
    assert await stage.records()
    await cluster.delete_record(stage.namespace, name, uid)
    assert not await stage.records()
    await cluster.delete_record(stage.namespace, name, uid)


@apiserver
async def test_records_are_listed_by_their_metadata_alone(stage, cluster):
    training = await stage.apply(a_training())
    await stage.settle()
    (listed,) = await cluster.records(stage.namespace, NAME)
    assert listed["metadata"]["name"] == "digits-00000"
    assert client.is_owned(listed, training["metadata"]["uid"])
    assert not {"spec", "status"} & set(listed), "a thousand participants fill 175 KB"
    assert not await cluster.records(stage.namespace, "letters")


@apiserver
async def test_long_lists_come_in_chunks_and_hold_only_what_is_labelled(
    stage, cluster, monkeypatch
):
    monkeypatch.setattr(client, "CHUNK", 2)
    pod = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
    pod["template"]["spec"]["restartPolicy"] = "Never"
    for number in range(5):
        meta = {"name": f"job-{number}", "labels": {"fedtrain.dev/training": NAME}}
        await stage.api.request("POST", stage.path("jobs"), {"metadata": meta, "spec": pod})
    other = {"name": "other", "labels": {"fedtrain.dev/training": "other"}}
    await stage.api.request("POST", stage.path("jobs"), {"metadata": other, "spec": pod})
    found = await cluster.jobs(stage.namespace, NAME)
    assert sorted(job["metadata"]["name"] for job in found) == [f"job-{n}" for n in range(5)]


@apiserver
async def test_the_pods_of_a_few_jobs_are_asked_for_by_name_and_of_many_all(stage, cluster):
    jobs = [f"{number:08}-0000-4000-8000-000000000000" for number in range(client.NAMED + 1)]
    for job in jobs:
        labels = {"fedtrain.dev/training": NAME, "batch.kubernetes.io/controller-uid": job}
        pod = {"metadata": {"name": f"pod-{job}", "labels": labels}}
        pod["spec"] = {"containers": [{"name": "c", "image": "i"}]}
        await stage.api.request("POST", stage.path("pods"), pod)

    async def found(wanted):
        listed = await cluster.pods(stage.namespace, NAME, wanted)
        return {pod["metadata"]["name"] for pod in listed}

    assert await found(jobs[:2]) == {f"pod-{job}" for job in jobs[:2]}
    assert await found(jobs) == {f"pod-{job}" for job in jobs}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "10.0.0.1"}, None),
    ],
)
def test_the_proxy_is_the_configurations_else_the_environments(monkeypatch, environment, expected):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loaded = api.Configuration(host="https://10.0.0.1:443")
    assert api.proxy(loaded) == expected
    loaded.proxy = "http://own:1"
    assert api.proxy(loaded) == "http://own:1"


@apiserver
async def test_what_is_refused_is_told_in_the_words_of_the_api_server(stage, cluster):
    training = Training.from_object(await stage.apply(a_training()))
    service = a_service(training)
    service["spec"]["ports"] = []
    service["spec"]["type"] = "LoadBalancer"
    with pytest.raises(errors.Refused, match="Invalid value"):
        await cluster.create(service, training.uid)


@apiserver
async def test_a_record_of_another_training_is_none(stage, cluster):
    training = await stage.apply(a_training())
    await stage.settle()
    uid = training["metadata"]["uid"]
    assert await cluster.record(stage.namespace, "digits-00000", uid) is not None
    assert await cluster.record(stage.namespace, "digits-00000", "another-uid") is None
    assert await cluster.record(stage.namespace, "digits-00001", uid) is None


@apiserver
async def test_our_resources_are_found(cluster):
    assert await cluster.serves_trainings()


@pytest.fixture
async def mute(monkeypatch):
    """A session with a server that takes requests and says nothing."""
    monkeypatch.setattr(api, "TIMEOUT", 0.2)
    connections = []

    async def accept(reader, writer):
        connections.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    configuration = api.Configuration(host=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    told = []
    session = api.Api(configuration, lambda *request: told.append(request[:3]))
    yield session, told
    await session.close()
    for writer in connections:
        writer.close()
    server.close()


async def test_every_request_has_a_time_limit(mute):
    session, told = mute
    with pytest.raises(errors.Unavailable, match="no answer"):
        await session.request("GET", "/apis/batch/v1/namespaces/n/jobs")
    assert told == [("GET", "jobs", "0")]
    assert session.answered_at == float("-inf")


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/namespaces/n/pods", "pods"),
        ("/apis/batch/v1/namespaces/n/jobs/digits-train-1", "jobs"),
        ("/apis/batch/v1/namespaces/n/jobs/digits-train-1/status", "jobs/status"),
        ("/apis/fedtrain.dev/v1alpha1", "/apis/fedtrain.dev/v1alpha1"),
    ],
)
def test_the_metrics_label_of_a_request_is_its_resource_without_names(path, resource):
    assert api._resource(path) == resource


@apiserver
async def test_the_policies_of_a_training_are_accepted_and_its_own(stage):
    allowed = [{"cidr": "10.20.0.0/16", "ports": [443]}, {"cidr": "2001:db8::/32"}]
    await stage.apply(a_training(network={"egress": allowed}, pods="Resident"))
    await stage.look()
    policies = (await stage.api.request("GET", stage.path("networkpolicies")))["items"]
    names = {policy["metadata"]["name"] for policy in policies}
    assert names == {"digits.pods", "digits.outside", "digits.hub", "digits.callers"}
    uid = (await stage.training())["metadata"]["uid"]
    for policy in policies:
        (owner,) = policy["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (uid, True)


@apiserver
async def test_a_policy_of_somebody_else_of_that_name_stops_the_training(stage):
    policy = {"metadata": {"name": "digits.pods"}, "spec": {"podSelector": {}}}
    await stage.api.request("POST", stage.path("networkpolicies"), policy)
    await stage.apply(a_training())
    await stage.settle()
    assert await stage.jobs() == {}
    status = await stage.status()
    assert (status["phase"], status["reason"]) == ("Blocked", "NameTaken")
    await stage.delete("networkpolicies", "digits.pods")
    stage.later(minutes=1)
    await stage.settle()
    assert list(await stage.jobs()) == ["digits-prepare-0-1"]


@apiserver
async def test_only_ranges_of_addresses_are_egress(stage):
    for cidr in ("10.20.0.1/16", "example.com", "10.0.0.1"):
        with pytest.raises(errors.Refused, match="not a range of addresses"):
            await stage.apply(a_training(network={"egress": [{"cidr": cidr}]}))


@apiserver
async def test_a_participant_of_two_nodes_has_its_policy_before_its_pods(stage):
    await stage.apply(a_training(["north"], quorum={"minimum": 1}, rounds=1))
    await stage.edit(trainer={"image": "i", "command": ["c"], "nodes": 2})
    await stage.settle()
    await stage.work_off()
    await stage.settle()
    policies = (await stage.api.request("GET", stage.path("networkpolicies")))["items"]
    made = {p["metadata"]["name"]: p["metadata"]["creationTimestamp"] for p in policies}
    assert made.keys() == {"digits.pods", "digits.nodes.north"}
    init = (await stage.jobs())["digits-init-0-north-1"]
    assert made["digits.nodes.north"] <= init["metadata"]["creationTimestamp"]


@apiserver
@pytest.mark.parametrize(("pods", "kept"), [("PerRound", False), ("Resident", True)])
async def test_of_the_pod_templates_of_jobs_the_hubs_alone_is_kept(stage, cluster, pods, kept):
    """Its user may write a megabyte into each; a thousand of them are more than an operator has."""
    await stage.apply(a_training(pods=pods))
    await stage.settle()
    (job,) = await cluster.jobs(stage.namespace, NAME)
    assert ("containers" in job["spec"]["template"]["spec"]) is kept
