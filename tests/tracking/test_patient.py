"""A tracker that is away, or breaks: nobody waits for it, and it is said once."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from fedoperator.api.training import Training
from fedoperator.tracking import figures, mlflow, patient
from fedoperator.tracking.patient import Patient, Telling
from fedoperator.tracking.sending import TrackerRefuses, TrackerUnavailable
from tests.tracking.test_figures import Heard, a_round, a_training, at


class Clock:
    """monotonic() as the test says."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patient, "time", made)
    return made


class Broken(Heard):
    """Raises what it is told to, for the trainings it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.raises: dict[str, Exception] = {}
        self.asked: list[str] = []

    def begin(self, run: figures.Run) -> int:
        self.asked.append(run.uid)
        if run.uid in self.raises:
            raise self.raises[run.uid]
        return 0


class Told:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.complained: list[str] = []
        self.telling = Telling(say=self.said.append, complain=self.complained.append)


@pytest.fixture
def sink() -> Broken:
    return Broken()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def tracker(sink: Broken, told: Told, clock: Clock) -> Patient:
    return Patient("MLflow", sink, told.telling)


def training(uid: str = "u-1") -> Training:
    return a_training(status=at("Succeeded", 0)).model_copy(update={"uid": uid})


def test_one_that_is_away_is_complained_about_once_and_asked_less_and_less(
    tracker: Patient, sink: Broken, told: Told, clock: Clock
) -> None:
    sink.raises["u-1"] = TrackerUnavailable("it is away")
    for _ in range(600):
        assert not tracker.update(training(), lambda _: a_round(0))
        clock.now += 1.0
    assert told.complained == ["it is away; nothing waits for it"]
    assert 8 < len(sink.asked) < 20
    sink.raises.clear()
    clock.now += 3 * patient.LONGEST_PAUSE
    assert tracker.update(training(), lambda _: a_round(0))
    assert told.said == ["MLflow is there again", "digits is tracked by MLflow: here"]
    assert sink.numbers == [0]


def test_one_training_that_it_breaks_on_does_not_keep_it_from_the_others(
    tracker: Patient, sink: Broken, clock: Clock
) -> None:
    sink.raises["bad"] = TrackerUnavailable("500")
    tracker.update(training("bad"), lambda _: a_round(0))
    sent = []
    for _ in range(20):
        clock.now += 1.0
        sent += [u for u in ("bad", "good") if tracker.update(training(u), lambda _: a_round(0))]
    assert "good" in sent


def test_what_it_refuses_is_said_once_and_concerns_no_other_training(
    tracker: Patient, sink: Broken, told: Told, clock: Clock
) -> None:
    sink.raises["bad"] = TrackerRefuses("its run was deleted; restore it")
    for _ in range(400):
        assert not tracker.update(training("bad"), lambda _: a_round(0))
        assert tracker.update(training("good"), lambda _: a_round(0))
        clock.now += 1.0
    assert told.complained == ["digits is not tracked: its run was deleted; restore it"]
    assert sink.asked.count("bad") == 2
    sink.raises.clear()
    clock.now += patient.REFUSED_PAUSE
    assert tracker.update(training("bad"), lambda _: a_round(0))


class NoMlflow(BaseHTTPRequestHandler):
    """Answers, and as no MLflow does: a login page, say."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[" if "get-by-name" in self.path else b"<html>log in</html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def somebody_else() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), NoMlflow)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


@pytest.mark.processes
def test_what_is_no_mlflow_at_all_is_one_sentence(somebody_else: str) -> None:
    run = figures.run(training())
    with pytest.raises(TrackerUnavailable, match=f"^MLflow at {somebody_else} "):
        mlflow.Mlflow(somebody_else, below=True).begin(run)
