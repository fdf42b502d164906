"""A real MLflow server, and a small federation that a real `fedtrain run` has told it of."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.apiserver import free_ports
from tests.local.conftest import PATHS, Federation

TWO = {"a": ["--part", "0"], "b": ["--part", "1"]}
STARTS = 150
"""Seconds: it imports for ten, and makes its tables, on a machine that others use."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow server` with a database of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + STARTS
        while not _answers(address):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield address
    finally:
        # With the worker that it started: both are in the session that is its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as ok:
        return bool(ok.status == 200)
    return False


@pytest.fixture(scope="session")
def client(server: str) -> Any:
    """MLflow's own, to read back with."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=server)


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[Federation]:
    """Two rounds of two participants whose file asks for both trackers."""
    made = Federation(tmp_path_factory.mktemp("tracked"))
    asked = {"mlflow": {"experiment": "lines"}, "tensorboard": {}}
    made.of(TWO, rounds=2, tracking=asked, evaluation={"by": "a"})
    result = made.run(MLFLOW_TRACKING_URI=server)
    (made.folder / "said").write_text(result.stdout)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    yield made
    made.close()


def track(*words: str | Path, **environment: str) -> subprocess.Popen[str]:
    """`fedtrain track`, as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "fedoperator.cli", "track", *map(str, words)],
        env=os.environ | {"PYTHONPATH": PATHS} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps(client: Any, run: str, name: str) -> list[tuple[int, float]]:
    """What the server has under that name: (step, value), in the order it was sent."""
    return [(metric.step, metric.value) for metric in client.get_metric_history(run, name)]


def runs(client: Any, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))
