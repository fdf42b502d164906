"""What goes wrong is told in sentences, and costs what it costs on a cluster."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.processes

Three = Callable[..., dict[str, list[str]]]


def _by_name(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {p["name"]: p for p in record["status"]["participants"]}


def test_a_script_that_raises_is_tried_again_and_then_left_out(
    federation: Any, three: Three
) -> None:
    federation.of(three() | {"b": ["--raise-in", "1"]}, rounds=2, retries=1)
    result = federation.run()
    assert result.returncode == 0, result.stderr
    failed = _by_name(federation.records[1])["b"]
    assert (failed["state"], failed["attempt"], failed["failures"]) == ("Failed", 2, 2)
    assert "ValueError: no luck in round 1 (train.py:" in failed["message"]
    assert "logs/linear-train-1-b-2.log" in failed["message"]
    assert "ValueError: no luck in round 1" in result.stderr
    assert "round 1/2  accepted 2/3" in result.stdout
    assert _by_name(federation.records[2])["b"]["state"] == "Accepted"


def test_forgetting_to_submit_fails_at_once_with_the_remedy(federation: Any, three: Three) -> None:
    result = federation.of(three("--forget")).run()
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Failed: NoSubmit")
    assert "rnd.submit" in last
    # The participants' own words, and the last one.
    assert sum(line.startswith("NoSubmit") for line in result.stderr.splitlines()) <= 3
    assert federation.status["phase"] == "Failed"


def test_who_is_late_is_left_out(federation: Any, three: Three) -> None:
    federation.of(
        three() | {"c": ["--sleep", "60"]},
        rounds=1,
        quorum={"minimum": 2, "deadline": "8s"},
    )
    assert federation.run("--jobs", "4").returncode == 0
    states = {name: p["state"] for name, p in _by_name(federation.records[1]).items()}
    assert states == {"a": "Accepted", "b": "Accepted", "c": "Late"}
    assert federation.processes == []


def test_what_stays_blocked_is_left_with_its_reason(federation: Any, three: Three) -> None:
    federation.of(three("--raise-in", "1"), rounds=1, retries=0)
    result = federation.run("--give-up-after", "1s")
    assert result.returncode == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Blocked: QuorumMissed")
    assert "run the same command again to go on" in last


def test_a_suspended_training_waits_for_the_file_to_change(federation: Any, three: Three) -> None:
    federation.of(three(), rounds=1, suspend=True)
    suspended = federation.run()
    assert suspended.returncode == 3
    assert "spec.suspend" in suspended.stderr
    federation.change(suspend=False)
    assert federation.run().returncode == 0
    assert federation.status["observedGeneration"] == 2


def test_what_a_cluster_would_refuse_is_refused_and_makes_no_folder(
    federation: Any, three: Three
) -> None:
    result = federation.of(three(), rounds=0, retrys=2).run()
    assert result.returncode == 1
    assert "spec.rounds" in result.stderr
    assert "did you mean retries?" in result.stderr
    assert not federation.out.exists()


def test_a_change_that_a_cluster_would_refuse_is_refused(federation: Any, three: Three) -> None:
    federation.of(three(), rounds=1)
    federation.run()
    federation.change(seed=3)
    changed = federation.run()
    assert changed.returncode == 1
    assert "spec.seed" in changed.stderr


def test_a_folder_of_another_training_is_refused(federation: Any, three: Three) -> None:
    federation.of(three(), rounds=1).run()
    federation.file.write_text(federation.file.read_text().replace("name: linear", "name: other"))
    refused = federation.run()
    assert refused.returncode == 1
    assert "--out holds the training linear" in refused.stderr


def test_a_command_that_is_not_there_is_named(federation: Any, three: Three) -> None:
    trainer = {"image": "x", "command": ["no-such-program"]}
    result = federation.of(three(), trainer=trainer).run("--give-up-after", "1s")
    assert result.returncode == 1
    assert "'no-such-program' cannot be started" in result.stderr
