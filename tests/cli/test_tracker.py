"""The platform's tracker beside an API server that answers as it is told: nobody's training keeps
it from the others'."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from fedoperator.cli.server import Server
from fedoperator.cli.tracker import Platform
from fedoperator.tracking.patient import Patient, Telling
from tests.tracking.test_figures import Heard

DEEP = '{"a":' * 5000 + "1" + "}" * 5000
SPEC: dict[str, Any] = {
    "rounds": 5,
    "trainer": {"image": "x", "command": ["python", "train.py"]},
    "participants": [{"name": "north"}],
    "exchange": {"size": "1Gi"},
    "tracking": {"mlflow": {}, "tensorboard": {}},
}


class Answers(BaseHTTPRequestHandler):
    """Two trainings of a namespace, of which one is nested as deep as the API server allows."""

    version = 1

    def do_GET(self) -> None:
        trainings = {name: self._training(name) for name in ("a-deep", "digits")}
        listed = {"items": list(trainings.values()), "metadata": {}}
        text = json.dumps(trainings.get(self.path.rpartition("/")[2], listed))
        body = text.replace('"deep"', DEEP).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def _training(self, name: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "hospitals", "uid": name, "generation": 1}
        metadata |= {"resourceVersion": str(self.version)}
        deep = {"parameters": {"x": "deep"}} if name == "a-deep" else {}
        fields = {"managedFields": ["deep"]} if name == "a-deep" else {}
        return {"metadata": metadata | fields, "spec": SPEC | deep}

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Server]:
    Answers.version = 1
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        named = {"name": "one"}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "one",
            "clusters": [{**named, "cluster": {"server": address}}],
            "contexts": [{**named, "context": {"cluster": "one", "user": "one"}}],
            "users": [{**named, "user": {}}],
        }
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig))
        yield Server("hospitals", file)
        server.shutdown()


@pytest.fixture
def platform(asked: Server) -> Platform:
    patient = Patient("MLflow", Heard(), Telling(say=print, complain=print))
    return Platform(asked, everywhere=False, trackers={"mlflow": patient})


def test_one_that_is_nested_too_deep_keeps_no_other_from_being_tracked(
    platform: Platform, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    platform.look()
    assert "digits is tracked by MLflow" in capsys.readouterr().out
    assert "hospitals/a-deep is not tracked: ValueError" in caplog.text


def test_what_is_not_set_up_here_is_said_once_of_each_training(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2, 3):
        Answers.version = version
        platform.look()
    said = [m for m in caplog.messages if "digits" in m]
    assert said == ["hospitals/digits asks for tensorboard, which is not set up here"]
