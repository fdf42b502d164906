"""The release changes while trainings run, breaks and goes: helm, and nobody's work is lost."""

import json
from collections.abc import Iterator

import pytest
from federation import (
    NAMESPACE,
    a_federation,
    a_script,
    helm,
    pods,
    publish_script,
    reaches,
    record_of,
    status_of,
    wait_until,
)

from devcluster import report, stack

pytestmark = pytest.mark.cluster

ROUNDS = 2
GATE = """while os.environ.get("GATED") and not os.path.exists("/tmp/open"): time.sleep(0.1)"""
"""A round lasts until the test says so, however long helm takes."""

OPERATOR = ("-l", "app.kubernetes.io/component=operator", "-n", NAMESPACE)
CHANGE = ("--reuse-values", "--take-ownership", "--force-conflicts", "--wait", "--timeout=120s")


def a_gated_federation(name: str, image: str, *, gated: bool) -> dict:
    federation = a_federation(name, image, script="gated", rounds=ROUNDS)
    federation["spec"]["trainer"]["env"] = [{"name": "GATED", "value": "yes"}] if gated else []
    return federation


def in_training(number: int) -> dict[str, str]:
    """Participant → uid of the pod that trains this round, once all three do."""

    def running() -> dict[str, str]:
        of_round = pods("moved", "fedtrain.dev/role=train", f"fedtrain.dev/round={number}")
        return {
            pod["metadata"]["labels"]["fedtrain.dev/participant"]: pod["metadata"]["uid"]
            for pod in of_round
            if pod["status"]["phase"] == "Running"
        }

    return wait_until(f"round {number} trains", lambda: len(running()) == 3 and running())


def let_go(number: int) -> None:
    """Every participant of the round submits."""
    for pod in pods("moved", "fedtrain.dev/role=train", f"fedtrain.dev/round={number}"):
        stack.kubectl("exec", pod["metadata"]["name"], "-n", NAMESPACE, "--", "touch", "/tmp/open")


def operators() -> dict[str, str]:
    """uid → workers, of the operator's pods that are not on their way out."""
    found = {}
    for pod in stack.get("pods", *OPERATOR)["items"]:
        if "deletionTimestamp" not in pod["metadata"]:
            env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
            found[pod["metadata"]["uid"]] = env["FEDTRAIN_WORKERS"]
    return found


@pytest.fixture(scope="module")
def installed(image: str) -> Iterator[str]:
    """The release, and the image of everybody: a script of numpy needs no other."""
    stack.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", seconds=150)
    stack.install(image, namespace=NAMESPACE)
    publish_script("gated", a_script(GATE))
    yield image
    stack.uninstall(namespace=NAMESPACE)


@pytest.fixture(scope="module")
def undisturbed(installed: str) -> list[str]:
    """The digests when nobody waits for a gate or changes the release."""
    stack.apply(a_gated_federation("still", installed, gated=False))
    reaches("still", "Succeeded")
    return digests("still")


def digests(name: str) -> list[str]:
    return [record_of(name, n)["status"]["globalModel"]["digest"] for n in range(ROUNDS + 1)]


def test_upgrade_and_rollback_in_the_middle_of_a_round_lose_nothing(installed, undisturbed):
    stack.apply(a_gated_federation("moved", installed, gated=True))
    training, before = in_training(1), operators()
    helm("upgrade", str(stack.CHART), "--set=workers=5,replicas=2", *CHANGE)
    after = operators()
    assert sorted(after.values()) == ["5", "5"]
    assert not before.keys() & after.keys(), "the old operator still runs"
    assert in_training(1) == training, "the round goes on in the pods that it had"
    assert status_of("moved")["round"] == 1
    let_go(1)

    training = in_training(2)
    helm("rollback", "--force-conflicts", "--wait", "--timeout=120s")
    (workers,) = operators().values()
    assert workers == "16"
    assert in_training(2) == training
    let_go(2)

    reaches("moved", "Succeeded")
    for number in range(1, ROUNDS + 1):
        status = record_of("moved", number)["status"]
        assert {(p["state"], p["attempt"]) for p in status["participants"]} == {("Accepted", 1)}
        assert [p["name"] for p in status["participants"] if p.get("failures")] == []
        assert status["aggregation"]["attempt"] == 1
    assert digests("moved") == undisturbed


def is_ready(ready: bool) -> None:
    condition = f"--for=condition=Ready={str(ready).lower()}"
    stack.kubectl("wait", "pod", *OPERATOR, condition, "--timeout=60s", seconds=90)


def works() -> tuple[bool, str]:
    """Whether `helm test` passes, and what its pod says."""
    try:
        return True, helm("test", "--logs", "--timeout=150s")
    except report.DevclusterError as error:
        return False, f"{stack.kubectl('logs', 'fedtrain-test', '-n', NAMESPACE)}\n{error}"


def test_helm_test_passes_and_fails_when_the_operator_has_lost_a_right(installed):
    is_ready(True)
    passed, said = works()
    assert passed, said
    assert "the operator at fedtrain-replicas works\n" in said
    role = stack.get("role", "fedtrain", "-n", NAMESPACE)
    role["rules"] = [rule for rule in role["rules"] if "jobs" not in rule["resources"]]
    stack.kubectl("replace", "-f", "-", stdin=json.dumps(role))
    is_ready(False)
    passed, said = works()
    assert not passed
    assert "the operator may not get and list and watch and create and delete jobs.batch" in said
    helm("upgrade", str(stack.CHART), *CHANGE)
    is_ready(True)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("view", {"get": "yes", "create": "no", "delete": "no"}),
        ("edit", {"get": "yes", "create": "yes", "delete": "yes"}),
        ("admin", {"get": "yes", "create": "yes", "delete": "yes"}),
    ],
)
def test_whoever_has_a_role_in_the_namespace_has_it_for_trainings(installed, role, may):
    binding = (f"--clusterrole={role}", f"--user={role}er", "-n", NAMESPACE)
    stack.kubectl("create", "rolebinding", role, *binding)
    for verb, answer in may.items():
        asked = ("auth", "can-i", verb, "federatedtrainings", f"--as={role}er", "-n", NAMESPACE)
        try:
            said = stack.kubectl(*asked).strip()
        except report.DevclusterError:
            said = "no"  # kubectl ends with 1 then
        assert said == answer, verb


def test_uninstall_leaves_trainings_and_their_records(installed, undisturbed):
    helm("uninstall", "--wait", "--timeout=120s")
    wait_until("no operator is left", lambda: not stack.get("pods", *OPERATOR)["items"])
    assert status_of("still")["phase"] == "Succeeded"
    assert digests("still") == undisturbed
