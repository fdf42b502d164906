"""What goes wrong at run time gets one clear sentence in the right place, and loses nothing."""

import pytest
from federation import (
    NAMESPACE,
    a_federation,
    a_script,
    publish_script,
    reaches,
    record_of,
    status_of,
    wait_until,
)

from devcluster import stack

pytestmark = pytest.mark.cluster

TROUBLES = {
    "raises": "if rnd.number == 2 and rnd.participant == 'south': raise ValueError('no luck')",
    "forgets": "if rnd.number == 2: continue",
    "nan": "if rnd.number == 2 and rnd.participant == 'south': model['w'][7] = np.nan",
}
LIES = """
import json, pathlib
root = pathlib.Path("/fedtrain/updates/south/2/1")
if rnd.number == 2 and rnd.participant == "south":
    rnd.submit(samples=15)
    receipt = root / "receipt.json"
    told = json.loads(receipt.read_text())
    told["digest"] = "sha256:" + "0" * 64
    receipt.write_text(json.dumps(told))
    continue
""".strip().replace("\n", "\n    ")


@pytest.fixture(scope="module")
def federations(installed: stack.Images) -> None:
    """All of them at once, so that their waits overlap."""
    for name, trouble in {**TROUBLES, "lies": LIES}.items():
        publish_script(name, a_script(trouble))
        federation = a_federation(name, installed.trainer, script=name, retries=0, rounds=2)
        stack.apply(federation)
    image = a_federation("no-image", "registry.fedtrain.local:5000/no/such:image")
    stack.apply(image)
    claim = a_federation("no-claim", installed.trainer)
    claim["spec"]["participants"][0]["data"] = {"claimName": "north-data"}
    stack.apply(claim)
    exchange = a_federation("no-exchange", installed.trainer, exchange={"claimName": "nowhere"})
    stack.apply(exchange)


def the_participant(name: str, number: int, participant: str = "south") -> dict:
    found = record_of(name, number)["status"]["participants"]
    return next(p for p in found if p["name"] == participant)


def test_a_script_that_raises_costs_its_participant_the_round(federations):
    status = reaches("raises", "Succeeded")
    south = the_participant("raises", 2)
    assert (south["state"], south["reason"]) == ("Failed", "ScriptFailed")
    assert south["message"].startswith("ValueError: no luck (train.py:")
    assert status["globalModel"]["round"] == 2


def test_a_script_that_forgets_submit_fails_the_training_and_keeps_the_last_model(federations):
    status = reaches("forgets", "Failed")
    assert status["reason"] == "NoSubmit"
    assert "rnd.submit" in status["message"]
    assert status["globalModel"]["round"] == 1


def test_nan_in_an_update_costs_its_participant_the_round(federations):
    reaches("nan", "Succeeded")
    south = the_participant("nan", 2)
    assert south["state"] in ("Failed", "Rejected")
    assert south["reason"] == "NotFinite"


def test_a_receipt_with_a_wrong_digest_costs_its_participant_the_round(federations):
    reaches("lies", "Succeeded")
    south = the_participant("lies", 2)
    assert (south["state"], south["reason"]) == ("Rejected", "DigestMismatch")
    accepted = [p for p in record_of("lies", 2)["status"]["participants"] if p.get("weight")]
    assert {p["name"] for p in accepted} == {"north", "west"}
    assert sum(p["weight"] for p in accepted) == pytest.approx(1)


def test_an_image_that_does_not_exist_blocks_with_its_name(federations):
    status = reaches("no-image", "Blocked", seconds=120)
    assert status["reason"] == "ImagePullFailed"
    assert "registry.fedtrain.local:5000/no/such:image" in status["message"]
    blocked = next(c for c in status["conditions"] if c["type"] == "Blocked")
    assert (blocked["status"], blocked["reason"]) == ("True", "ImagePullFailed")


def test_a_missing_claim_blocks_and_making_it_goes_on(federations):
    status = reaches("no-claim", "Blocked", seconds=120)
    assert status["reason"] == "ClaimMissing"
    assert "'north-data'" in status["message"]
    stack.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "north-data", "namespace": NAMESPACE},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}},
            },
        }
    )
    reaches("no-claim", "Succeeded", seconds=300)


def test_a_missing_exchange_blocks_with_its_name(federations):
    status = reaches("no-exchange", "Blocked", seconds=120)
    assert status["reason"] == "ClaimMissing"
    assert "'nowhere'" in status["message"]


def test_a_foreign_job_under_our_name_blocks_with_its_name(installed):
    container = {"name": "foreign", "image": installed.trainer, "command": ["sleep", "1"]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "taken-prepare-0-1", "namespace": NAMESPACE},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    stack.apply(job)
    stack.apply(a_federation("taken", installed.trainer))
    status = reaches("taken", "Blocked", seconds=60)
    assert status["reason"] == "NameTaken"
    assert "taken-prepare-0-1" in status["message"]
    stack.kubectl("delete", "job", "taken-prepare-0-1", "-n", NAMESPACE)
    wait_until("it goes on", lambda: status_of("taken").get("phase") != "Blocked", seconds=120)
