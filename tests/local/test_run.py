"""A whole federation in processes."""

import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

from fedoperator.api.round import Record, RoundSpec, RoundStatus
from fedoperator.api.status import TrainingStatus
from fedoperator.cluster.families import FAMILIES
from fedoperator.cluster.series import Seen
from fedoperator.cluster.telemetry import Telemetry

pytestmark = pytest.mark.processes

Three = Callable[..., dict[str, list[str]]]


def test_it_succeeds_and_says_where_the_model_is(undisturbed: Any) -> None:
    status = undisturbed.status
    assert (status["phase"], status["progress"]) == ("Succeeded", "10/10")
    model = safetensors.load_file(undisturbed.model)
    assert np.allclose(model["w"], [1, -2, 3], atol=0.2)
    assert str(undisturbed.model) in (undisturbed.folder / "said").read_text()


def test_every_round_has_its_line_and_its_record(undisturbed: Any) -> None:
    said = (undisturbed.folder / "said").read_text()
    lines = re.findall(r"^round (\d+)/10  accepted 3/3  loss \S+  \d+\.\d s$", said, re.M)
    assert [int(number) for number in lines] == list(range(1, 11))
    assert [record["spec"]["round"] for record in undisturbed.records] == list(range(11))


def test_run_again_it_is_done_at_once(undisturbed: Any) -> None:
    digest = undisturbed.digest
    result = undisturbed.run()
    assert result.returncode == 0
    assert "Succeeded" in result.stdout
    assert "round 10/10" not in result.stdout
    assert undisturbed.digest == digest


def test_the_same_federation_gives_the_same_bytes(
    undisturbed: Any, federation: Any, three: Three
) -> None:
    federation.of(three(), rounds=10, evaluation={"by": "a"}).run("--jobs", "1", "--quiet")
    assert federation.digest == undisturbed.digest
    assert federation.model.read_bytes() == undisturbed.model.read_bytes()


def test_quiet_says_only_the_last_word(federation: Any, three: Three) -> None:
    result = federation.of(three(), rounds=1).run("--quiet")
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        "Succeeded",
        "model",
        "digest",
    ]
    assert result.stderr == ""


def test_two_nodes_are_two_processes_with_one_rendezvous(federation: Any) -> None:
    federation.of({"a": []}, rounds=1)
    federation.change(
        trainer={
            "image": "x",
            "command": ["sh", "-c", "env; exec python train.py"],
            "nodes": 2,
            "processesPerNode": 3,
        }
    )
    assert federation.run().returncode == 0
    seen = []
    for node in (0, 1):
        log = (federation.out / "logs" / f"linear-train-1-a-1-{node}.log").read_text()
        seen.append(dict(line.split("=", 1) for line in log.splitlines() if "=" in line))
    assert [one["PET_NODE_RANK"] for one in seen] == ["0", "1"]
    assert {one["PET_NNODES"] for one in seen} == {"2"}
    assert {one["PET_NPROC_PER_NODE"] for one in seen} == {"3"}
    assert {one["PET_MASTER_ADDR"] for one in seen} == {"127.0.0.1"}
    assert len({one["PET_MASTER_PORT"] for one in seen}) == 1


def test_a_secret_is_taken_from_the_shell_or_asked_for(federation: Any, three: Three) -> None:
    secret = {"name": "SAYS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    trainer = {"image": "x", "command": ["python", "train.py"], "env": [secret]}
    federation.of(three(), rounds=1, trainer=trainer)
    refused = federation.run()
    assert refused.returncode == 1
    assert "set SAYS in your shell" in refused.stderr
    assert federation.run(SAYS="hush").returncode == 0
    assert "says hush" in (federation.out / "logs" / "linear-train-1-a-1.log").read_text()


def test_an_initial_model_comes_from_the_folder_that_stands_for_its_claim(
    federation: Any, undisturbed: Any, three: Three
) -> None:
    model = {"claimName": "models", "path": "model.safetensors"}
    federation.of(three(), rounds=1, model=model)
    refused = federation.run()
    assert refused.returncode == 1
    assert "--claim models=FOLDER" in refused.stderr
    result = federation.run("--claim", f"models={undisturbed.model.parent}")
    assert result.returncode == 0, result.stderr
    assert federation.records[0]["status"]["globalModel"]["digest"] == undisturbed.digest


@pytest.mark.parametrize("jobs", ["1", "6"])
def test_no_more_ranks_run_at_a_time_than_jobs_allows(
    federation: Any, three: Three, jobs: str
) -> None:
    federation.of(three("--sleep", "0.5"), rounds=1)
    process = federation.start("--jobs", jobs)
    most = 0
    while process.poll() is None:
        running = [
            path
            for path in federation.out.glob("children/linear-train-*/child.json")
            if '"Ready"' in path.read_text()
        ]
        most = max(most, len(running))
    assert most == min(int(jobs), 3)


def test_the_records_beyond_the_history_go_as_rounds_begin(federation: Any) -> None:
    federation.of({"a": []}, rounds=2, history=9)
    assert federation.run().returncode == 0
    assert [record["spec"]["round"] for record in federation.records] == [0, 1, 2]
    federation.out = federation.folder / "again"
    federation.of({"a": []}, rounds=4, history=2)
    assert federation.run().returncode == 0
    assert [record["spec"]["round"] for record in federation.records] == [3, 4]


def test_a_record_tells_what_its_round_cost_and_what_its_updates_were_like(
    undisturbed: Any,
) -> None:
    status = undisturbed.records[3]["status"]
    phases = status["durations"]
    assert {"Training", "Aggregating"} <= phases.keys()
    assert all(0 < seconds < 300 for seconds in phases.values())
    (path,) = undisturbed.out.glob("exchange/*/global/3/1/manifest.json")
    manifest = json.loads(path.read_text())
    accepted = {entry["participant"]: entry for entry in manifest["accepted"]}
    assert accepted.keys() == {"a", "b", "c"}
    for p in status["participants"]:
        assert p["norm"] == pytest.approx(accepted[p["name"]]["norm"], rel=6e-3)
        assert p["cosine"] == pytest.approx(accepted[p["name"]]["cosine"], abs=6e-3)
    norms = [p["norm"] for p in status["participants"]]
    found = status["measured"]["norms"]
    assert (found["least"], found["most"]) == (min(norms), max(norms))
    volume = os.statvfs(undisturbed.out)
    assert status["measured"]["exchangeSize"] == volume.f_blocks * volume.f_frsize
    assert 0 < status["measured"]["exchangeFree"] < status["measured"]["exchangeSize"]


def test_what_a_real_round_recorded_is_what_prometheus_reads(undisturbed: Any) -> None:
    records = [
        Record(
            name=one["metadata"]["name"],
            spec=RoundSpec.model_validate(one["spec"]),
            status=RoundStatus.model_validate(one["status"]),
        )
        for one in undisturbed.records[-2:]
    ]
    status = TrainingStatus.model_validate(undisturbed.status)
    telemetry = Telemetry()
    telemetry.seen(("here", "linear"), Seen(status=status, rounds=10, records=tuple(records)))
    shown = set(re.findall(r"^(fedtrain_\w+)\{.*training=", telemetry.render().decode(), re.M))
    assert {f"fedtrain_{name}" for name in FAMILIES} - shown == {
        "fedtrain_participant_quarantined_until_round",
        "fedtrain_participant_rounds_lost",
        "fedtrain_round_accelerator_seconds",
        "fedtrain_round_lost_participants",
        "fedtrain_round_started_timestamp_seconds",
    }, "what only trouble, GPUs or a round in progress show"
