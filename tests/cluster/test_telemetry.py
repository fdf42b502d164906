"""What Prometheus would read."""

import re
import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import (
    Accelerators,
    Assignment,
    Measured,
    Range,
    Record,
    RoundSpec,
    RoundStatus,
)
from fedoperator.api.status import TrainingStatus
from fedoperator.cluster.series import Seen
from fedoperator.cluster.telemetry import Telemetry
from manifests import metrics

NOW = datetime(2026, 11, 28, tzinfo=UTC)
KEY = ("hospitals", "digits")
LABELS = 'namespace="hospitals",training="digits"'


def a_record(number: int, *participants: Assignment, **status: object) -> Record:
    return Record(
        name=f"digits-{number:05d}",
        uid="u",
        resource_version="1",
        spec=RoundSpec(training="digits", round=number, invited=["north"]),
        status=RoundStatus(participants=list(participants), **status),
    )


def a_sight(*records: Record, **status: object) -> Seen:
    return Seen(status=TrainingStatus(**status), rounds=10, records=records)


def accepted(name: str, **measured: object) -> Assignment:
    return Assignment(name=name, state="Accepted", **measured)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def values(telemetry: Telemetry, name: str) -> dict[str, float]:
    """The labels beyond the training's own → value."""
    lines = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", telemetry.render().decode(), re.MULTILINE)
    own = ("namespace=", "training=")
    kept = [(",".join(p for p in n.split(",") if not p.startswith(own)), v) for n, v in lines]
    return {labels.replace('"', ""): float(value) for labels, value in kept}


def test_a_training_is_in_exactly_one_phase(telemetry):
    telemetry.seen(KEY, a_sight(phase="Blocked", reason="ImagePullFailed"))
    phases = values(telemetry, "fedtrain_training_phase")
    assert len(phases) == 10
    assert [name for name, value in phases.items() if value] == ["phase=Blocked"]
    assert values(telemetry, "fedtrain_training_reason") == {"reason=ImagePullFailed": 1}


def test_all_series_vanish_with_their_training(telemetry):
    telemetry.seen(KEY, a_sight(a_record(1, accepted("north", samples=100)), metrics={"a": 1}))
    telemetry.seen(("hospitals", "other"), a_sight())
    assert LABELS.encode() in telemetry.render()
    telemetry.forgotten(KEY)
    assert LABELS.encode() not in telemetry.render()
    assert b'training="other"' in telemetry.render()


def test_a_removed_participant_has_no_series_any_more(telemetry):
    before = a_record(1, accepted("north", samples=1), accepted("south", samples=2))
    telemetry.seen(KEY, a_sight(before))
    assert len(values(telemetry, "fedtrain_participant_samples")) == 2
    telemetry.seen(KEY, a_sight(a_record(2, accepted("north", samples=3))))
    assert values(telemetry, "fedtrain_participant_samples") == {"participant=north": 3}


def test_a_participants_series_do_not_blink_between_rounds(telemetry):
    last = a_record(1, accepted("north", samples=100, seconds=2.5, weight=0.25))
    current = a_record(2, Assignment(name="north", state="Running"))
    telemetry.seen(KEY, a_sight(last, current))
    assert values(telemetry, "fedtrain_participant_samples") == {"participant=north": 100}
    assert values(telemetry, "fedtrain_participant_seconds") == {"participant=north": 2.5}
    assert values(telemetry, "fedtrain_participant_weight") == {"participant=north": 0.25}
    reported = a_record(2, Assignment(name="north", state="Reported", samples=7))
    telemetry.seen(KEY, a_sight(last, reported))
    assert values(telemetry, "fedtrain_participant_samples") == {"participant=north": 7}


def test_what_is_measured_of_the_global_model_names_its_round(telemetry):
    model = GlobalModel(round=4, path="x/global/4/1/model.safetensors", digest="sha256:0")
    sight = a_sight(round=5, global_model=model, evaluated_round=3, metrics={"accuracy": 0.9})
    telemetry.seen(KEY, sight)
    assert values(telemetry, "fedtrain_training_round") == {"": 5}
    assert values(telemetry, "fedtrain_training_rounds") == {"": 10}
    assert values(telemetry, "fedtrain_global_model_round") == {"": 4}
    assert values(telemetry, "fedtrain_global_metric") == {"metric=accuracy": 0.9}
    assert values(telemetry, "fedtrain_global_metric_round") == {"": 3}


def test_the_round_in_progress_is_counted_by_state(telemetry):
    late = Assignment(name="south", state="Late", failures=2)
    telemetry.seen(KEY, a_sight(a_record(1, Assignment(name="north"), late, misses=3)))
    states = values(telemetry, "fedtrain_round_participants")
    assert {name: n for name, n in states.items() if n} == {"state=Invited": 1, "state=Late": 1}
    assert values(telemetry, "fedtrain_round_quorum_misses") == {"": 3}
    failures = values(telemetry, "fedtrain_participant_attempt_failures")
    assert failures == {"participant=north": 0, "participant=south": 2}


def test_a_metric_of_training_and_one_of_evaluation_are_told_apart(telemetry):
    record = a_record(
        1,
        accepted("north", metrics={"loss": 0.5}),
        evaluation=[Assignment(name="north", state="Reported", metrics={"loss": 0.25})],
    )
    telemetry.seen(KEY, a_sight(record))
    assert values(telemetry, "fedtrain_participant_metric") == {
        "metric=loss,participant=north,role=train": 0.5,
        "metric=loss,participant=north,role=evaluate": 0.25,
    }


def test_a_training_whose_spec_cannot_be_read_still_has_its_phase(telemetry):
    telemetry.seen(KEY, Seen(status=TrainingStatus(phase="Blocked", reason="InvalidSpec")))
    assert values(telemetry, "fedtrain_training_phase")["phase=Blocked"] == 1
    assert values(telemetry, "fedtrain_training_rounds") == {}


def test_a_published_round_has_its_phases_and_what_was_not_training(telemetry):
    last = a_record(
        1,
        accepted("north", seconds=40.0),
        accepted("south", seconds=50.0),
        phase="Published",
        durations={"Preparing": 2, "Training": 60, "Aggregating": 8, "Suspended": 99},
        accelerators=Accelerators(held=400, used=300),
    )
    before = a_record(0, phase="Published", durations={"Evaluating": 7})
    telemetry.seen(KEY, a_sight(before, last, a_record(2, Assignment(name="north"))))
    assert values(telemetry, "fedtrain_round_duration_seconds") == {
        "phase=Preparing": 2,
        "phase=Training": 60,
        "phase=Aggregating": 8,
        "phase=Suspended": 99,
        "phase=Evaluating": 7,
    }
    assert values(telemetry, "fedtrain_round_overhead_seconds") == {"": 20}
    used = values(telemetry, "fedtrain_round_accelerator_seconds")
    assert used == {"use=held": 400, "use=used": 300}


def test_a_round_has_a_start_while_it_is_in_progress(telemetry):
    telemetry.seen(KEY, a_sight(a_record(1, started_at=NOW)))
    started = values(telemetry, "fedtrain_round_started_timestamp_seconds")
    assert started == {"": NOW.timestamp()}
    telemetry.seen(KEY, a_sight(a_record(1, started_at=NOW, phase="Published")))
    assert values(telemetry, "fedtrain_round_started_timestamp_seconds") == {}


def test_those_that_a_round_lost_are_counted_by_a_bounded_number_of_reasons(telemetry):
    lost = [
        Assignment(name=f"p{k}", state="Failed", reason=f"Word{k:02}", attempt=2) for k in range(30)
    ]
    late = Assignment(name="late", state="Late", reason="Late")
    more = Assignment(name="again", state="Late", reason="Late")
    telemetry.seen(KEY, a_sight(a_record(1, *lost, late, more, Assignment(name="here"))))
    reasons = values(telemetry, "fedtrain_round_lost_participants")
    assert (len(reasons), reasons["reason=Late"], reasons["reason=Other"]) == (21, 2, 11)
    assert values(telemetry, "fedtrain_round_retries") == {"": 30}
    assert values(telemetry, "fedtrain_round_invited_participants") == {"": 33}


def test_what_the_aggregator_measured_of_updates_is_there_of_each_and_of_all(telemetry):
    measured = Measured(
        bytes=300,
        norms=Range(least=1, median=2, most=9),
        cosines=Range(least=-0.5, median=0.7, most=0.9),
        exchange_free=10,
        exchange_size=100,
    )
    rejected = Assignment(name="east", state="Rejected", reason="NotFinite")
    north, south = accepted("north", norm=1.0, cosine=0.9), accepted("south", norm=9.0, cosine=-0.5)
    telemetry.seen(KEY, a_sight(a_record(1, north, south, rejected, measured=measured)))
    norms = values(telemetry, "fedtrain_participant_update_norm")
    assert norms == {"participant=north": 1, "participant=south": 9}
    cosines = values(telemetry, "fedtrain_participant_update_cosine")
    assert cosines == {"participant=north": 0.9, "participant=south": -0.5}
    assert values(telemetry, "fedtrain_aggregation_update_norm") == {
        "of=least": 1,
        "of=median": 2,
        "of=most": 9,
    }
    verdicts = values(telemetry, "fedtrain_aggregation_updates")
    assert verdicts == {"verdict=accepted": 2, "verdict=rejected": 1}
    assert values(telemetry, "fedtrain_aggregation_update_bytes") == {"": 150}
    assert values(telemetry, "fedtrain_exchange_free_bytes") == {"": 10}


def test_the_table_of_metrics_is_the_one_that_is_generated():
    assert metrics.render() == metrics.FILE.read_text(), (
        "docs/reference/metrics.md is stale: run `make manifests`"
    )


def test_promtool_has_nothing_to_say_about_our_metrics(telemetry):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    measured = Measured(bytes=1, seconds=1.0, peak_memory=1)
    record = a_record(1, accepted("north", samples=1, seconds=1.0, weight=1.0), measured=measured)
    telemetry.seen(KEY, a_sight(record, round=1, metrics={"loss": 1.0}, evaluated_round=1))
    telemetry.looked(0.1, "Conflict")
    telemetry.requested("GET", "jobs", "200", 0.01)
    telemetry.gauge("queue_depth", lambda: 1)
    result = subprocess.run(
        [promtool, "check", "metrics"], input=telemetry.render(), capture_output=True, timeout=30
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
