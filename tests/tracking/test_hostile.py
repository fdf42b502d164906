"""One training that nobody can read or send costs no other its tracker."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fedoperator.cli.server import Server
from fedoperator.cli.tracker import Platform
from fedoperator.tracking import figures
from fedoperator.tracking.patient import Patient, Telling
from tests.tracking.test_figures import Heard, a_training

DEEP = '{"a":' * 2000 + "1" + "}" * 2000
PATH = "/apis/fedtrain.dev/v1alpha1"


class Cluster:
    """Trainings and rounds as an API server has them, who takes whatever is written into them."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.listed: list[str] = []

    def training(self, name: str, meta: str = "{}", **spec: str) -> None:
        """With `meta` as managed fields and texts of JSON in its spec; its first round is over."""
        known = {"name": name, "namespace": "lab", "uid": f"uid-{name}", "resourceVersion": "7"}
        wanted = a_training(tracking={"mlflow": {}}).spec.to_dict()
        text = json.dumps(known)[:-1] + f', "managedFields": {meta}' + "}"
        whole = json.dumps(wanted)[:-1] + "".join(f', "{k}": {v}' for k, v in spec.items()) + "}"
        status = {"phase": "Training", "round": 1}
        document = f'{{"metadata": {text}, "spec": {whole}, "status": {json.dumps(status)}}}'
        self.listed.append(f'{{"metadata": {text}}}')
        self.answers[f"{PATH}/namespaces/lab/federatedtrainings/{name}"] = document
        self.record(name, startedAt="2026-01-01T12:00:00Z", publishedAt="2026-01-01T12:00:09Z")

    def record(self, training: str, **status: Any) -> None:
        meta = {"name": f"{training}-00000", "uid": "r", "resourceVersion": "1"}
        document = {
            "metadata": {**meta, "ownerReferences": [{"uid": f"uid-{training}"}]},
            "spec": {"training": training, "round": 0, "invited": ["north"]},
            "status": {"phase": "Published", **status},
        }
        path = f"{PATH}/namespaces/lab/federatedrounds/{training}-00000"
        self.answers[path] = json.dumps(document)

    def answer(self, path: str) -> str | None:
        if path.startswith(f"{PATH}/namespaces/lab/federatedtrainings?"):
            return f'{{"items": [{", ".join(self.listed)}]}}'
        return self.answers.get(path.partition("?")[0])


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def sent(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """Looks once at the cluster; the names of the trainings of which a step was sent."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = cluster.answer(self.path)
            body = (found if found is not None else '{"message": "none"}').encode()
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    there = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "lab"}}
    config = {"clusters": [there], "contexts": [context], "current-context": "c"}
    (tmp_path / "config").write_text(json.dumps({**config, "users": [{"name": "c", "user": {}}]}))
    names: list[str] = []

    class Names(Heard):
        def send(self, run: figures.Run, step: figures.Step) -> None:
            names.append(run.name)

    def look() -> list[str]:
        asked = Server(kubeconfig=tmp_path / "config")
        quiet = Telling(say=lambda _: None, complain=lambda _: None)
        tracker = Patient("MLflow", Names(), quiet)
        Platform(asked, everywhere=False, trackers={"mlflow": tracker}).look()
        return names

    yield look
    server.shutdown()
    server.server_close()


def test_what_is_nested_deeper_than_python_reads_keeps_no_other_from_being_sent(
    cluster: Cluster, sent: Any
) -> None:
    cluster.training("a-deep", parameters=DEEP)
    cluster.training("b-managed", meta=DEEP)
    cluster.training("digits")
    assert "digits" in sent()


def test_a_record_that_cannot_be_sent_keeps_no_other_training_from_it(
    cluster: Cluster, sent: Any
) -> None:
    cluster.training("a-timeless")
    cluster.record("a-timeless")
    cluster.training("b-endless")
    cluster.record(
        "b-endless",
        startedAt="2026-01-01T12:00:00Z",
        participants=[{"name": "north", "state": "Accepted", "samples": 10**400}],
    )
    cluster.training("digits")
    assert "digits" in sent()
