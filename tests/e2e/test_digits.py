"""The example on the cluster and on this machine: the same federation, the same bytes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml
from federation import NAMESPACE, reaches, record_of

from devcluster import prometheus, stack
from manifests import metrics as table

pytestmark = pytest.mark.cluster

ROUNDS = 3


def a_short_digits(image: str) -> dict:
    """The example, shortened: three rounds, and files kept."""
    federation = yaml.safe_load((stack.EXAMPLE / "federation.yaml").read_text())
    federation["metadata"]["namespace"] = NAMESPACE
    federation["spec"]["rounds"] = ROUNDS
    federation["spec"]["parameters"]["localEpochs"] = 1
    federation["spec"]["trainer"]["image"] = image
    federation["spec"]["keep"] = {"last": 100, "updates": 100}
    return federation


@pytest.fixture(scope="module")
def on_the_cluster(installed: stack.Images) -> dict:
    stack.apply(a_short_digits(installed.digits))
    return reaches("digits", "Succeeded", seconds=600)


@pytest.fixture(scope="module")
def on_this_machine(installed: stack.Images, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("digits")
    (folder / "train.py").write_text((stack.EXAMPLE / "train.py").read_text())
    file = folder / "federation.yaml"
    file.write_text(yaml.safe_dump(a_short_digits("unused")))
    command = [sys.executable, "-m", "fedoperator.cli.main", "run", file, "--out", folder / "out"]
    subprocess.run(command, check=True, timeout=600)
    return yaml.safe_load((folder / "out" / "status.yaml").read_text())


def test_the_same_federation_gives_the_same_bytes(on_the_cluster, on_this_machine):
    assert on_the_cluster["globalModel"]["round"] == ROUNDS
    assert on_the_cluster["globalModel"]["digest"] == on_this_machine["globalModel"]["digest"]


def test_status_records_events_metrics_and_receipts_tell_one_story(on_the_cluster, installed):
    service = stack.get("service", "fedtrain", "-n", NAMESPACE)["spec"]
    target = f"{service['clusterIP']}:{service['ports'][0]['port']}"
    folder = exchange_folder(on_the_cluster)
    events = stack.get("events", "-n", NAMESPACE)["items"]
    told = [e["message"] for e in events if e["reason"] == "RoundPublished"]
    for number in range(1, ROUNDS + 1):
        record = record_of("digits", number)
        status = record["status"]
        accepted = {p["name"]: p for p in status["participants"] if p["state"] == "Accepted"}
        total = sum(p["samples"] for p in accepted.values())
        assert set(accepted) == set(record["spec"]["invited"])
        for name, participant in accepted.items():
            attempt = folder / "updates" / name / str(number) / str(participant["attempt"])
            receipt = json.loads((attempt / "receipt.json").read_text())
            assert receipt["samples"] == participant["samples"]
            assert receipt["digest"] == participant["digest"]
            assert receipt["metrics"] == pytest.approx(participant["metrics"])
            assert participant["weight"] == pytest.approx(participant["samples"] / total)
        model = status["globalModel"]
        manifest = json.loads(
            (folder.parent / model["path"]).with_name("manifest.json").read_text()
        )
        assert manifest["digest"] == model["digest"]
        assert [a for a in told if model["digest"] in a and f"round {number} " in a]
    with prometheus.prometheus(target) as metrics:
        from federation import wait_until

        query = 'fedtrain_training_round{training="digits"}'
        series = wait_until("metrics", lambda: metrics.query(query), seconds=30)
        assert series[0][1] == ROUNDS
        accuracy = metrics.query('fedtrain_global_metric{training="digits",metric="accuracy"}')
        assert accuracy[0][1] == pytest.approx(on_the_cluster["metrics"]["accuracy"])
        samples = metrics.query('fedtrain_participant_samples{training="digits"}')
        last = record_of("digits", ROUNDS)["status"]["participants"]
        assert {(s["participant"], v) for s, v in samples} >= {
            (p["name"], p["samples"]) for p in last
        }
        real_updates_are_measured(metrics, manifest["accepted"], folder)
        parts = {"histogram": "_bucket"}
        wanted = {f"{name}{parts.get(kind, '')}" for name, kind, *_ in table.rows()}
        assert wanted - metrics.names() <= ONLY_IN_TROUBLE


ONLY_IN_TROUBLE = {
    "fedtrain_operator_look_failures_total",
    "fedtrain_participant_quarantined_until_round",
    "fedtrain_participant_rounds_lost",
    "fedtrain_round_accelerator_seconds",
    "fedtrain_round_lost_participants",
    "fedtrain_round_started_timestamp_seconds",
}
"""What a run without trouble and GPUs does not show; tests/cluster/test_watched.py does."""


def real_updates_are_measured(
    metrics: prometheus.Prometheus, accepted: list[dict], folder: pathlib.Path
) -> None:
    """Norms, cosines and the exchange's room, as the aggregator's pod found them."""
    for name in ("norm", "cosine"):
        found = metrics.query(f'fedtrain_participant_update_{name}{{training="digits"}}')
        by_name = {labels["participant"]: value for labels, value in found}
        for entry in accepted:
            assert by_name[entry["participant"]] == pytest.approx(entry[name], rel=6e-3)
        spread = metrics.query(f'fedtrain_aggregation_update_{name}{{training="digits"}}')
        by_word = {labels["of"]: value for labels, value in spread}
        assert by_word["most"] == pytest.approx(max(e[name] for e in accepted), rel=6e-3)
        assert by_word["least"] <= by_word["median"] <= by_word["most"]
    assert all(0 < entry["cosine"] <= 1 for entry in accepted), accepted
    volume = os.statvfs(folder)
    ((_, size),) = metrics.query('fedtrain_exchange_size_bytes{training="digits"}')
    ((_, free),) = metrics.query('fedtrain_exchange_free_bytes{training="digits"}')
    assert size == volume.f_blocks * volume.f_frsize
    assert 0 < free < size
    ((_, overhead),) = metrics.query('fedtrain_round_overhead_seconds{training="digits"}')
    phases = metrics.query('fedtrain_round_duration_seconds{training="digits"}')
    seconds = {labels["phase"]: value for labels, value in phases}
    assert 0 < overhead < seconds["Training"] + seconds["Aggregating"]


def exchange_folder(status: dict) -> pathlib.Path:
    """Where the exchange lies on the node, which is this machine."""
    claim = stack.get("persistentvolumeclaim", "digits-exchange", "-n", NAMESPACE)
    volume = stack.get("persistentvolume", claim["spec"]["volumeName"])["spec"]
    root = volume.get("hostPath", volume.get("local"))
    if root is None:
        pytest.skip("the cluster's volumes are not folders of this machine, so no file can be read")
    return pathlib.Path(root["path"]) / status["globalModel"]["path"].split("/")[0]


def test_the_operator_is_small_and_idle_when_nothing_happens(on_the_cluster, installed):
    import time

    pod = stack.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=fedtrain")["items"][0]
    run = ("exec", pod["metadata"]["name"], "-n", NAMESPACE, "--", "python", "-c")
    read = "print(next(l for l in open('/proc/1/status') if l.startswith('VmRSS')).split()[1])"
    resident = int(stack.kubectl(*run, read)) / 1024
    before = versions()
    time.sleep(20)
    assert versions() == before
    assert resident < 150, f"{resident:.0f} MiB"


def versions() -> list[tuple[str, str]]:
    """Every object a write of the operator would change."""
    kinds = "federatedtrainings,federatedrounds,jobs,services"
    items = stack.get(kinds, "-n", NAMESPACE)["items"]
    return [(i["metadata"]["name"], i["metadata"]["resourceVersion"]) for i in items]


def test_the_controllers_image_is_small(installed):
    assert stack.image_bytes() < 400e6, f"{stack.image_bytes() / 1e6:.0f} MB"


def test_the_controllers_image_says_what_it_is(installed):
    said = stack.labels()
    assert said["org.opencontainers.image.title"] == "fedtrain/controller"
    assert said["org.opencontainers.image.version"] == "dev"
