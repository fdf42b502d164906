"""MLflow: a training is a run of an experiment, found by a tag with the training's uid.

By MLflow's own client, and only what a tracking server has: no artifacts, so no other addresses.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fedoperator.tracking import figures
from fedoperator.tracking.figures import Run, Step
from fedoperator.tracking.sending import TrackerRefuses, TrackerUnavailable

UID = "fedtrain.uid"
BATCH = 900
"""Values in a request; MLflow takes 1,000 values, or 100 parameters, or 100 tags."""
PARAMS = 100
_STATUS = {
    "Running": "RUNNING",
    "Succeeded": "FINISHED",
    "Failed": "FAILED",
    "Abandoned": "KILLED",
}
_ENVIRONMENT = {
    # Ten seconds and one more try: whoever asks will ask again, and others wait.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The client would tell its makers how it is used.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(slots=True)
class _Known:
    """What the server has of a run, as it said and as we have sent since."""

    id: str
    experiment: str
    status: str
    latest: dict[str, int]
    params: set[str]
    tags: dict[str, str] = field(default_factory=dict)


class Mlflow:
    """below: whether experiments lie below the namespaces of their trainings. experiment: that of
    all of them, whatever they ask for."""

    def __init__(self, uri: str, *, below: bool, experiment: str | None = None) -> None:
        """Raises TrackerRefuses for an address that is none."""
        if not re.match(r"https?://[^/]", uri):
            raise TrackerRefuses(
                f"{shown(uri)} is not the address of an MLflow server; use http(s)"
            )
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            missing = "mlflow is not installed; pip install 'fedtrain[tracking]'"
            raise TrackerRefuses(missing) from error
        self._uri, self._below, self._experiment_of_all = uri.rstrip("/"), below, experiment
        self._client: Any = MlflowClient(tracking_uri=self._uri)
        self._known: dict[tuple[str, str], _Known] = {}

    def begin(self, run: Run) -> int:
        with self._asking(run):
            known = self._known.get(self._key(run))
            if known is None:
                known = self._known[self._key(run)] = self._found(run) or self._made(run)
            return known.latest.get(figures.STEP, -1) + 1

    def send(self, run: Run, step: Step) -> None:
        """In batches if need be, of which the last holds the value that makes the step whole."""
        from mlflow.entities import Metric

        known, at = self._known[self._key(run)], _milliseconds(step.at)
        # A step of which a part is there already is completed.
        new = [
            Metric(name, value, at, step.number)
            for name, value in step.values.items()
            if known.latest.get(name, -1) < step.number
        ]
        new.sort(key=lambda metric: metric.key == figures.STEP)
        with self._asking(run):
            for start in range(0, len(new), BATCH):
                self._client.log_batch(known.id, metrics=new[start : start + BATCH])
            known.latest.update({metric.key: step.number for metric in new})
            self._tag(known, step.tags)

    def settle(self, run: Run) -> str:
        from mlflow.entities import Param

        known = self._known[self._key(run)]
        with self._asking(run):
            params = [Param(k, v) for k, v in run.params.items() if k not in known.params]
            for start in range(0, len(params), PARAMS):
                self._client.log_batch(known.id, params=params[start : start + PARAMS])
            known.params.update(run.params)
            self._tag(known, run.tags)
            self._end(known, run, _STATUS[run.state])
        if run.state != "Running":
            self._known.pop(self._key(run), None)
        return f"{shown(self._uri)}/#/experiments/{known.experiment}/runs/{known.id}"

    def abandon(self, run: Run) -> None:
        with self._asking(run):
            known = self._known.get(self._key(run)) or self._found(run)
            if known is not None:
                self._end(known, run, "KILLED")
        self._known.pop(self._key(run), None)

    def _key(self, run: Run) -> tuple[str, str]:
        return run.uid, self._experiment(run)

    def _experiment(self, run: Run) -> str:
        asked = f"{run.namespace}/{run.experiment}" if self._below else run.experiment
        return self._experiment_of_all or asked

    def _found(self, run: Run) -> _Known | None:
        """The run of this training in its experiment, also if somebody has deleted it."""
        name = self._experiment(run)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage != "active":
            remedy = "restore it there, or name another in spec.tracking.mlflow.experiment"
            raise TrackerRefuses(f"the experiment {name} was deleted; {remedy}")
        found = self._client.search_runs(
            [experiment.experiment_id],
            f"tags.`{UID}` = '{run.uid}'",
            run_view_type=3,
            max_results=1,
        )
        if not found:
            return None
        there = self._client.get_run(found[0].info.run_id)
        if there.info.lifecycle_stage != "active":
            raise TrackerRefuses(f"its run in {name} was deleted; restore it there to go on")
        return _Known(
            id=there.info.run_id,
            experiment=there.info.experiment_id,
            status=there.info.status,
            latest={metric.key: metric.step for metric in there.data.to_proto().metrics},
            params=set(there.data.params),
            tags=dict(there.data.tags),
        )

    def _made(self, run: Run) -> _Known:
        name = self._experiment(run)
        experiment = self._client.get_experiment_by_name(name)
        number = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(name)
        )
        made = self._client.create_run(
            number, start_time=_milliseconds(run.started_at), tags={UID: run.uid}, run_name=run.name
        )
        return _Known(made.info.run_id, number, made.info.status, {}, set(), dict(made.data.tags))

    def _tag(self, known: _Known, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        new = {name: value for name, value in tags.items() if known.tags.get(name, "") != value}
        if new:
            self._client.log_batch(known.id, tags=[RunTag(k, v) for k, v in new.items()])
            known.tags.update(new)

    def _end(self, known: _Known, run: Run, status: str) -> None:
        if known.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(known.id, status=status)
        else:
            self._client.set_terminated(known.id, status, _milliseconds(run.finished_at))
        known.status = status

    @contextlib.contextmanager
    def _asking(self, run: Run) -> Iterator[None]:
        """What goes wrong as a sentence; the next look then asks anew what is there."""
        try:
            yield
        except (TrackerRefuses, TrackerUnavailable):
            self._known.pop(self._key(run), None)
            raise
        except Exception as error:  # whatever answers there may not even be MLflow
            self._known.pop(self._key(run), None)
            raise self._told(error) from error

    def _told(self, error: Exception) -> TrackerRefuses | TrackerUnavailable:
        """As a sentence: whether the server answered, and whether it may do so otherwise later."""
        from mlflow.exceptions import MlflowException, RestException

        where = f"MLflow at {shown(self._uri)}"
        if not isinstance(error, MlflowException | OSError):
            return TrackerUnavailable(f"{where} answers as none does ({type(error).__name__})")
        if not isinstance(error, RestException):
            why = re.search(r"\[Errno -?\d+\] ([\w ]+)|(timed out|error code \d+)", str(error))
            return TrackerUnavailable(
                f"{where} does not answer" + (f" ({why[1] or why[2]})" if why else "")
            )
        said = " ".join(str(error.message).split())[:300].replace(self._uri, shown(self._uri))
        if error.get_http_status_code() in (400, 404, 409):
            return TrackerRefuses(f"{where} refuses it: {said}")
        return TrackerUnavailable(f"{where}: {said}")


def shown(uri: str) -> str:
    """Without a password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
