"""Whatever is asked for, the pods are *restricted*: by our list, and by the API server's."""

import asyncio
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fedoperator import errors
from fedoperator.api import admission
from fedoperator.cluster.api import Api
from tests.api.generated import Generator
from tests.pods.rendering import Object, job_of, pod_of, training_of, workloads
from tests.pods.restricted import offences

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def accepted(seed: str) -> Iterator[Object]:
    """Trainings with nothing wrong in them, without end."""
    number = 0
    while True:
        document = Generator(f"{seed}-{number}").training()
        number += 1
        if not admission.problems(None, document):
            yield document


@pytest.mark.parametrize(
    "count",
    # All of them take as long as what is asked of an API server, and are counted among that.
    [200, pytest.param(5000, marks=pytest.mark.apiserver)],
)
def test_accepted_trainings_make_restricted_pods_only(count) -> None:
    pods = 0
    for _, document in zip(range(count), accepted("pods"), strict=False):
        for made in workloads(training_of(document), sites=2):
            pod = pod_of(job_of(made))
            assert list(offences(pod)) == [], document
            pods += 1
    assert pods > 4 * count


def _of_all(field: str, value: Any) -> Callable[[Object], None]:
    def change(pod: Object) -> None:
        pod["spec"]["containers"][0]["securityContext"][field] = value

    return change


def _of_the_pod(field: str, value: Any) -> Callable[[Object], None]:
    def change(pod: Object) -> None:
        pod["spec"][field] = value

    return change


def _of_the_context(field: str, value: Any) -> Callable[[Object], None]:
    def change(pod: Object) -> None:
        pod["spec"]["securityContext"][field] = value

    return change


def _host_path(pod: Object) -> None:
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})


def _host_port(pod: Object) -> None:
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 80}]


OFFENCES: dict[str, Callable[[Object], None]] = {
    "hostNetwork": _of_the_pod("hostNetwork", True),
    "hostPID": _of_the_pod("hostPID", True),
    "hostIPC": _of_the_pod("hostIPC", True),
    "volume types": _host_path,
    "hostPort": _host_port,
    "privileged": lambda pod: pod["spec"]["containers"][0].update(
        securityContext={"privileged": True, "capabilities": {"drop": ["ALL"]}}
    ),
    "allowPrivilegeEscalation": _of_all("allowPrivilegeEscalation", True),
    "capabilities": _of_all("capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    "runAsNonRoot": _of_all("runAsNonRoot", False),
    "runAsUser": _of_the_context("runAsUser", 0),
    "seccomp": _of_all("seccompProfile", {"type": "Unconfined"}),
    "AppArmor": _of_all("appArmorProfile", {"type": "Unconfined"}),
    "SELinux": _of_all("seLinuxOptions", {"type": "spc_t"}),
    "sysctls": _of_the_context("sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
    "procMount": _of_all("procMount", "Unmasked"),
}


@pytest.mark.parametrize("name", OFFENCES)
def test_the_list_knows_each_offence(name) -> None:
    made = next(workloads(training_of(next(accepted("offences")))))
    pod = pod_of(job_of(made))
    OFFENCES[name](pod)
    assert name in list(offences(pod))


@pytest.mark.apiserver
async def test_the_api_server_says_the_same_of_two_hundred_pods(transport) -> None:
    api: Api = transport
    space = {"metadata": {"name": "restricted-pods", "labels": RESTRICTED}}
    await api.request("POST", "/api/v1/namespaces", space)
    chance = random.Random(5)
    pods: list[Object] = []
    for number, document in zip(range(200), accepted("sample"), strict=False):
        made = chance.choice(list(workloads(training_of(document), sites=2)))
        pod = pod_of(job_of(made))
        pod["metadata"]["name"] = f"p-{number}"
        for field in ("priorityClassName", "runtimeClassName"):  # whose objects are not there
            pod["spec"].pop(field, None)
        pods.append(pod)
        if number % 5 == 0:
            worse = copy.deepcopy(pod)
            OFFENCES[sorted(OFFENCES)[number // 5 % len(OFFENCES)]](worse)
            pods.append(worse)
    verdicts = dict.fromkeys(("taken", "insecure", "invalid"), 0)

    async def asked(some: list[Object]) -> None:
        for pod in some:
            said = await _said(api, pod)
            if said is not None and "violates PodSecurity" not in said:
                # What a pod cannot be at all, Pod Security is not asked about.
                verdicts["invalid"] += 1
                assert "is invalid" in said, said
                continue
            verdicts["insecure" if said else "taken"] += 1
            assert (said is None) == (not list(offences(pod))), (said, pod)

    await asyncio.gather(*(asked(pods[start::8]) for start in range(8)))
    assert verdicts["taken"] >= 100, verdicts
    assert verdicts["insecure"] >= 20, verdicts


async def _said(api: Api, pod: Object) -> str | None:
    path = "/api/v1/namespaces/restricted-pods/pods"
    try:
        await api.request("POST", path, pod, {"dryRun": "All"})
    except errors.Refused as error:
        return str(error)
    return None
