"""Whether an operator works: all replicas ready and alive, and one of them leads."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

import pytest

from fedoperator.cli import installed

WELL = {
    "/readyz": (200, "ok\n"),
    "/healthz": (200, "ok\n"),
    "/metrics": (200, "a 1.0\nfedtrain_operator_leader 1.0\nb 2.0\n"),
}
STANDS_BY = WELL | {"/metrics": (200, "a 1.0\nfedtrain_operator_leader 0.0\nb 2.0\n")}
Replica = dict[str, tuple[int, str]]


@pytest.fixture
def problems(monkeypatch) -> Iterator[Callable[..., list[str]]]:
    """Of so many replicas, each on an address of its own."""
    with contextlib.ExitStack() as running:

        def found(*replicas: Replica) -> list[str]:
            port = 0
            for number, answers in enumerate(replicas, start=1):
                server = ThreadingTCPServer((f"127.0.0.{number}", port), _answering(answers))
                port = server.server_address[1]
                thread = threading.Thread(target=server.serve_forever, args=(0.01,))
                thread.start()
                running.callback(thread.join)
                running.callback(server.server_close)
                running.callback(server.shutdown)
            # No name of this machine has more than one address.
            everybody = [f"127.0.0.{number}" for number in range(1, len(replicas) + 1)]
            monkeypatch.setattr(installed, "addresses", lambda *_: everybody)
            return installed.problems("operator.example", port)

        yield found


def _answering(answers: Replica) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, text = answers[self.path]
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_) -> None:
            """Nobody reads it."""

    return Handler


def test_one_that_is_ready_alive_and_leads_works(problems):
    assert problems(WELL) == []


def test_two_of_which_one_leads_work(problems):
    assert problems(STANDS_BY, WELL) == []


def test_nobody_who_leads_is_told(problems):
    assert problems(STANDS_BY, STANDS_BY) == ["0 of 2 replicas hold the lease; one has to"]


def test_two_who_lead_are_told(problems):
    assert problems(WELL, WELL) == ["2 of 2 replicas hold the lease; one has to"]


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
def test_what_the_operator_says_is_passed_on(problems, path):
    said = "it may not list pods\nthe API server has not answered yet\n"
    assert problems(WELL, STANDS_BY | {path: (503, said)}) == [
        f"127.0.0.2{path}: it may not list pods",
        f"127.0.0.2{path}: the API server has not answered yet",
    ]


def test_a_pod_that_does_not_listen_is_told():
    refused = "no answer ([Errno 111] Connection refused)"
    assert installed.problems("127.0.0.1", 1) == [
        f"127.0.0.1/readyz: {refused}",
        f"127.0.0.1/healthz: {refused}",
    ]


def test_a_name_without_a_pod_is_told_once_it_has_waited(monkeypatch, capsys):
    monkeypatch.setattr(installed, "PATIENCE", 0.05)
    monkeypatch.setattr(installed, "PAUSE", 0.01)
    assert installed.main(["nobody.invalid", "8080"]) == 1
    assert capsys.readouterr().out.startswith("no pod of the operator has an address (nobody.")


def test_without_host_and_port_it_says_how_it_is_used(capsys):
    assert installed.main(["operator"]) == 2
    assert "HOST PORT" in capsys.readouterr().err
