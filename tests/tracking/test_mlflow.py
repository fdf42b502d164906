"""Rounds on a real MLflow server, read back by MLflow's own client."""

import dataclasses
import shutil
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedoperator.tracking import figures, mlflow
from fedoperator.tracking.sending import TrackerRefuses
from tests.local.conftest import Federation
from tests.tracking.conftest import runs, steps, track
from tests.tracking.test_tensorboard import read

pytestmark = pytest.mark.processes
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def a_run(**fields: Any) -> figures.Run:
    whole: dict[str, Any] = {
        "uid": "u-1",
        "name": "digits",
        "namespace": "hospitals",
        "experiment": "digits",
        "state": "Running",
        "started_at": NOON,
        "finished_at": None,
        "params": {},
        "tags": {},
    }
    return figures.Run(**whole | fields)


def a_step(number: int) -> figures.Step:
    values = {"global/a": 0.1 * number, "global/b": 1.0, "global/c": 2.0, figures.STEP: 3.0}
    return figures.Step(number=number, at=NOON, values=values, tags={})


def test_a_run_tells_of_its_rounds_what_their_records_say(tracked: Federation, client: Any) -> None:
    (run,) = runs(client, "lines")
    records = {record["spec"]["round"]: record["status"] for record in tracked.records}
    assert steps(client, run.info.run_id, "global/loss") == [
        (n, records[n]["metrics"]["loss"]) for n in (1, 2)
    ]
    for name in "ab":
        rows = {n: {p["name"]: p for p in records[n]["participants"]}[name] for n in (1, 2)}
        for series, of in (
            (f"participant/{name}/loss", lambda p: p["metrics"]["loss"]),
            (f"samples/{name}", lambda p: p["samples"]),
            (f"weight/{name}", lambda p: p["weight"]),
            (f"seconds/{name}", lambda p: p["seconds"]),
        ):
            assert steps(client, run.info.run_id, series) == [(n, of(rows[n])) for n in (1, 2)]
    assert steps(client, run.info.run_id, "aggregation/bytes") == [
        (n, records[n]["measured"]["bytes"]) for n in (1, 2)
    ]
    assert [step for step, _ in steps(client, run.info.run_id, figures.STEP)] == [0, 1, 2]
    (second,) = (
        m for m in client.get_metric_history(run.info.run_id, "global/loss") if m.step == 2
    )
    published = datetime.fromisoformat(records[2]["publishedAt"])
    assert second.timestamp == int(published.timestamp() * 1000)


def test_the_run_says_what_was_trained_how_and_what_came_of_it(
    tracked: Federation, client: Any
) -> None:
    (run,) = runs(client, "lines")
    assert (run.info.run_name, run.info.status) == ("linear", "FINISHED")
    assert run.data.params["parameters.lr"] == "0.05"
    assert run.data.params["strategy.name"] == "FedAvg"
    assert run.data.tags["fedtrain.model.digest"] == tracked.digest
    first = tracked.records[0]["status"]["globalModel"]["digest"]
    assert run.data.tags["fedtrain.initial.digest"] == first
    assert run.data.tags["fedtrain.phase"] == "Succeeded"
    assert run.info.run_id in (tracked.folder / "said").read_text()


def test_tensorboard_is_shown_the_same(tracked: Federation) -> None:
    (folder,) = (tracked.out / "tensorboard").iterdir()
    assert folder.name.startswith("linear-")
    shown = read(folder)
    records = {record["spec"]["round"]: record["status"] for record in tracked.records}
    losses = [(n, pytest.approx(records[n]["metrics"]["loss"])) for n in (1, 2)]
    assert shown["global/loss"] == losses
    samples = [(n, {p["name"]: p for p in records[n]["participants"]}["b"]) for n in (1, 2)]
    assert shown["samples/b"] == [(n, pytest.approx(p["samples"])) for n, p in samples]
    assert [step for step, _ in shown[figures.STEP]] == [0, 1, 2]


def test_what_is_there_is_not_sent_again(tracked: Federation, client: Any, server: str) -> None:
    before = everything(client, "lines")
    process = track(tracked.out, "--mlflow", server)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.startswith(f"linear is tracked by MLflow: {server}/#/experiments/")
    assert everything(client, "lines") == before


def test_killed_in_the_middle_it_goes_on_where_it_was(
    tracked: Federation, client: Any, server: str, tmp_path: Path
) -> None:
    many = a_long_life(tracked.out, tmp_path / "many", rounds=40)
    process = track(many, "--mlflow", server, "--experiment", "killed")
    until = time.monotonic() + 120
    while len(seen := sent(client, "killed")) < 2:
        assert process.poll() is None, "it was over before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert len(seen) < 35
    assert len(sent(client, "killed")) < 41
    again = track(many, "--mlflow", server, "--experiment", "killed")
    _, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, "")
    (one,) = everything(client, "killed").values()
    assert one[figures.STEP] == [(n, 2.0 if n else 0.0) for n in range(41)]
    for name, values in one.items():
        first = 0 if name.startswith("round/") else 1
        assert [step for step, _ in values] == list(range(first, 41)), name


def test_a_step_of_which_a_part_is_there_is_completed(
    server: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "BATCH", 1)
    run, half = a_run(uid="half"), dataclasses.replace(a_step(0), values={"global/a": 0.0})
    first = mlflow.Mlflow(server, below=True)
    assert first.begin(run) == 0
    first.send(run, half)
    second = mlflow.Mlflow(server, below=True)
    assert second.begin(run) == 0, "the step is not there as a whole"
    second.send(run, a_step(0))
    assert second.begin(run) == 1
    (found,) = (r for r in runs(client, "hospitals/digits") if r.data.tags[mlflow.UID] == "half")
    assert {name: steps(client, found.info.run_id, name) for name in found.data.metrics} == {
        "global/a": [(0, 0.0)],
        "global/b": [(0, 1.0)],
        "global/c": [(0, 2.0)],
        figures.STEP: [(0, 3.0)],
    }


@pytest.mark.parametrize(
    ("state", "status"), [("Succeeded", "FINISHED"), ("Failed", "FAILED"), ("Running", "RUNNING")]
)
def test_the_run_stands_as_the_training_does(
    server: str, client: Any, state: Any, status: str
) -> None:
    run = a_run(uid=f"state-{state}", state=state, finished_at=NOON)
    sink = mlflow.Mlflow(server, below=True)
    sink.begin(run)
    sink.settle(run)
    (found,) = (r for r in runs(client, "hospitals/digits") if r.data.tags[mlflow.UID] == run.uid)
    assert found.info.status == status


def test_one_that_is_gone_before_its_end_is_killed(server: str, client: Any) -> None:
    run = a_run(uid="gone")
    mlflow.Mlflow(server, below=True).begin(run)
    mlflow.Mlflow(server, below=True).abandon(run)
    (found,) = (r for r in runs(client, "hospitals/digits") if r.data.tags[mlflow.UID] == "gone")
    assert found.info.status == "KILLED"


def test_what_somebody_has_deleted_there_is_left_alone(server: str, client: Any) -> None:
    run = a_run(uid="deleted", experiment="mine")
    mlflow.Mlflow(server, below=True).begin(run)
    (found,) = runs(client, "hospitals/mine")
    client.delete_run(found.info.run_id)
    with pytest.raises(TrackerRefuses, match="its run in hospitals/mine was deleted; restore it"):
        mlflow.Mlflow(server, below=True).begin(run)
    client.delete_experiment(found.info.experiment_id)
    with pytest.raises(TrackerRefuses, match="the experiment hospitals/mine was deleted; restore"):
        mlflow.Mlflow(server, below=True).begin(run)


def test_an_address_is_http_and_its_password_is_not_told() -> None:
    for uri in ("file:///etc", "databricks", "sqlite:///x", "http:///"):
        with pytest.raises(TrackerRefuses, match="is not the address of an MLflow server"):
            mlflow.Mlflow(uri, below=True)
    assert mlflow.shown("https://me:secret@mlflow.example.com/x") == "https://mlflow.example.com/x"


def test_a_server_that_is_away_disturbs_no_run_and_is_complained_about_once(
    tmp_path: Path,
) -> None:
    federation = Federation(tmp_path)
    federation.of({"a": []}, rounds=1, tracking={"mlflow": {}, "tensorboard": {}})
    result = federation.run(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    federation.close()
    assert result.returncode == 0
    away, rest = result.stderr.splitlines()
    says = "MLflow at http://127.0.0.1:9 does not answer (Connection refused)"
    assert away == f"tracking: {says}; nothing waits for it"
    sends = f"`fedtrain track {federation.out}` sends the rest"
    assert rest == f"tracking: not everything was sent; {sends}"
    assert list(federation.out.glob("tensorboard/linear-*/events.out.tfevents.*"))


def test_without_an_address_it_says_which_variable_to_set(tracked: Federation) -> None:
    process = track(tracked.out, MLFLOW_TRACKING_URI="")
    out, err = process.communicate(timeout=60)
    assert err == "tracking: spec.tracking.mlflow: no server is named; set MLFLOW_TRACKING_URI\n"
    assert (process.returncode, "TensorBoard" in out) == (0, True)


def everything(client: Any, experiment: str) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """All there is of all runs of an experiment."""
    return {
        run.info.run_id: {n: steps(client, run.info.run_id, n) for n in sorted(run.data.metrics)}
        for run in runs(client, experiment)
    }


def sent(client: Any, experiment: str) -> list[tuple[int, float]]:
    """The whole steps of the one run of an experiment, if it is there."""
    return [
        s for run in runs(client, experiment) for s in steps(client, run.info.run_id, figures.STEP)
    ]


def a_long_life(out: Path, folder: Path, *, rounds: int) -> Path:
    """The same training, had it gone on: its last round once more for each that it did not have."""
    shutil.copytree(out, folder, ignore=shutil.ignore_patterns("exchange", "logs", "children"))
    last = yaml.safe_load((out / "rounds" / "linear-00002.yaml").read_text())
    for number in range(3, rounds + 1):
        last["metadata"]["name"] = f"linear-{number:05d}"
        last["spec"]["round"] = number
        (folder / "rounds" / f"linear-{number:05d}.yaml").write_text(yaml.safe_dump(last))
    status = yaml.safe_load((folder / "status.yaml").read_text())
    (folder / "status.yaml").write_text(yaml.safe_dump({**status, "round": rounds}))
    return folder
