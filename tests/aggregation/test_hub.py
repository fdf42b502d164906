"""The hub, a real one, and callers who are not what they should be: it costs them, nobody else."""

import contextlib
import json
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedoperator.link import MOST_TELLERS, Link
from fedtrain import contract
from fedtrain.aggregation.hub import STRANGERS, give_tokens
from fedtrain.contract import HUB_REPORTS_EACH, PrepareTask, encode_task
from fedtrain.resident import Line

pytestmark = pytest.mark.processes

TOKEN = "of the operator, of nobody else"


class Caller:
    """One end of a line to the hub."""

    def __init__(self, port: int, hello: Any = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._rest = b""
        if hello is not None:
            self.say(hello)

    def say(self, message: Any) -> None:
        self.send(json.dumps(message).encode() + b"\n")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def heard(self, word: str, seconds: float = 5.0) -> Any:
        """The first message with this word in its text; None if the line ends before it comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                if word.encode() in line:
                    return json.loads(line)
            with contextlib.suppress(TimeoutError):
                self.socket.settimeout(0.2)
                try:
                    piece = self.socket.recv(1 << 20)
                except ConnectionError:
                    return None
                if not piece:
                    return None
                self._rest += piece
        raise AssertionError(f"{word!r} was not heard in {seconds} s")

    @property
    def is_cut_off(self) -> bool:
        return self.heard("never said", seconds=5.0) is None


class Hub:
    """A hub of participants a and b in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.callers: list[Caller] = []
        self.root = root / "exchange"
        self.log = root / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        task = PrepareTask(
            training="t", uid="0123-4567", round=0, attempt=1, participants=("a", "b")
        )
        own = {
            contract.TASK_ENV: encode_task(task),
            contract.ROOT_ENV: str(self.root),
            contract.HUB_ENV: f"127.0.0.1:{self.port}",
            contract.HUB_TOKEN_ENV: TOKEN,
            contract.CARRIER_ENV: "uid of the hub",
            contract.MESSAGE_ENV: str(root / "message"),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedtrain.aggregation"],
                env=os.environ | own,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while "the hub listens" not in self.log.read_text():
            assert time.monotonic() < until, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def caller(self, hello: Any = None) -> Caller:
        self.callers.append(Caller(self.port, hello))
        return self.callers[-1]

    def operator(self) -> Caller:
        return self.caller({"operator": TOKEN})

    def participant(self, name: str, carrier: str = "uid") -> Caller:
        token = (self.root / "updates" / name / contract.HUB_FILE).read_text()
        hello = {"participant": name, "token": token, "carrier": carrier, "rank": 0}
        return self.caller({"hello": hello})

    @property
    def memory(self) -> int:
        """MB that it has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def close(self) -> None:
        for caller in self.callers:
            caller.socket.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    yield made
    made.close()


def report(task: str, **more: Any) -> dict[str, Any]:
    return {"report": task, "state": "Ready", **more}


def test_what_a_participant_reports_is_told_to_operators_who_are_there_and_who_come(
    hub: Hub,
) -> None:
    operator = hub.operator()
    hub.participant("a").say(report("train/1/a/1"))
    said = {"carrier": "uid", "state": "Ready", "result": None}
    assert operator.heard("train/1/a/1")["reports"] == {"train/1/a/1": said}
    assert hub.operator().heard("train/1/a/1")["reports"]["train/1/a/1"] == said


def test_a_report_that_is_nested_too_deep_shuts_no_operator_out(hub: Hub) -> None:
    """The depth that can just be read cannot be written again: it is found by trying all."""
    for depth in range(900, 1000):
        deep = b"[" * depth + b"]" * depth
        text = b'{"report":"train/1/a/1","state":"Ready","result":{"a":' + deep + b"}}\n"
        hub.participant("a").send(text)
    hub.participant("b").say(report("train/1/b/1"))
    assert hub.operator().heard("prepare/0")
    assert hub.operator().heard("train/1/b/1")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\n",
        b"[" * 16_000 + b"\n",
        b'{"hello":' + b"[" * 8000 + b"\n",
        b'{"hello":5}\n',
        b'{"hello":{"participant":"\\ud800","token":"\\ud800","carrier":"c"}}\n',
        b'{"hello":{"participant":"a\\u0000","token":"x","carrier":"c"}}\n',
        b'{"hello":{"participant":"../updates/a","token":"x","carrier":"c"}}\n',
        b'{"hello":{"participant":"a\\n\\u001b[31m","token":"x","carrier":"c"}}\n',
        b'{"operator":null}\n',
        b"1" * 5000 + b"\n",
        b"{" + b" " * 20_000 + b"}\n",
    ],
)
def test_garbage_is_cut_off_with_a_word_and_no_stack(hub: Hub, garbage: bytes) -> None:
    caller = hub.caller()
    caller.send(garbage)
    assert caller.is_cut_off
    assert hub.operator().heard("prepare/0")
    log = hub.log.read_text()
    assert "cut off somebody" in log
    assert "Traceback" not in log
    assert "\x1b" not in log


@pytest.mark.parametrize(
    "task",
    ["train/1/b/1", "train/01/a/1", "train/1/a/+1", "aggregate/1//1", "train/1/a", "a/b/a/c"],
)
def test_who_reports_what_is_not_its_own_is_cut_off(hub: Hub, task: str) -> None:
    caller = hub.participant("a")
    caller.say(report(task))
    assert caller.is_cut_off


def test_tasks_go_to_their_participant_only_whatever_carrier_it_says_to_be(hub: Hub) -> None:
    tasks = {"train/1/b/1": {"carrier": "uid of b", "task": "what b is to do"}}
    hub.operator().say({"tasks": tasks, "ended": [], "round": 1, "over": False})
    assert hub.participant("b", "uid of b").heard("what b is to do")
    assert "task" not in hub.participant("a", "uid of b").heard("", seconds=10)


def test_lines_that_never_end_cost_no_memory(hub: Hub) -> None:
    before = hub.memory
    callers = [hub.caller() for _ in range(40)]
    for caller in callers:
        with contextlib.suppress(OSError):  # it may be cut off meanwhile
            caller.send(b"x" * 4_000_000)
    assert hub.operator().heard("prepare/0")
    assert hub.memory - before < 40


def test_who_says_nothing_keeps_nobody_out(hub: Hub) -> None:
    silent = [hub.caller() for _ in range(STRANGERS + 50)]
    assert hub.operator().heard("prepare/0")
    assert len(list(Path(f"/proc/{hub.process.pid}/fd").iterdir())) < STRANGERS + 40
    assert silent[0].is_cut_off


def talk(sockets: list[socket.socket], over: threading.Event) -> None:
    """Say as much as the other end takes."""
    for one in sockets:
        one.setblocking(False)
    while not over.is_set():
        _, writable, _ = select.select([], sockets, [], 0.2)
        for one in writable:
            with contextlib.suppress(BlockingIOError):
                one.send(b'{"beat":1}\n' * 20_000)


def test_who_never_stops_talking_takes_turns_with_the_others(hub: Hub) -> None:
    loud, over = [hub.participant("a").socket for _ in range(20)], threading.Event()
    talking = threading.Thread(target=talk, args=(loud, over))
    talking.start()
    try:
        time.sleep(1.5)
        for number in range(3):
            hub.participant("b").say(report(f"train/{number}/b/1"))
            assert hub.operator().heard(f"train/{number}/b/1", seconds=2.0)
    finally:
        over.set()
        talking.join()


def test_a_token_that_could_not_be_written_is_written_the_next_time(tmp_path: Path) -> None:
    (tmp_path / "updates" / "a").mkdir(parents=True)
    token = tmp_path / "updates" / "a" / contract.HUB_FILE
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            give_tokens(tmp_path, ("a",))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    give_tokens(tmp_path, ("a",))
    known = token.read_text()
    assert len(known) == 32
    give_tokens(tmp_path, ("a",))
    assert token.read_text() == known
    assert [path.name for path in token.parent.iterdir()] == [contract.HUB_FILE]


def test_the_operator_remembers_no_more_of_a_participant_than_the_hub_does(hub: Hub) -> None:
    link = Link(("127.0.0.1", hub.port), TOKEN)
    try:
        assert link.wait(10)
        hub.participant("b").say(report("train/1/b/1"))
        talkative, last = hub.participant("a"), 200
        for number in range(last + 1):
            talkative.say(report(f"train/{number}/a/1"))
        until = time.monotonic() + 10
        while last not in (known := numbers(link, "a")):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert known == list(range(last - HUB_REPORTS_EACH + 1, last + 1))
        assert numbers(link, "b") == [1]
    finally:
        link.close()


@pytest.mark.parametrize(
    "lie", ["[" * 5000, '["reports"]', '{"reports": ["train/1/a/1"]}', "7", '{"reports": {"']
)
def test_a_hub_that_speaks_nonsense_is_called_again(lie: str) -> None:
    """An operator that gave up would never hear of this training again."""
    with socket.create_server(("127.0.0.1", 0)) as liar:
        liar.settimeout(10)
        link = Link(liar.getsockname(), TOKEN)
        try:
            with liar.accept()[0] as line:
                line.sendall(lie.encode() + b"\n")
                with liar.accept()[0] as again:
                    message = {"reports": {"train/1/a/1": {"carrier": "c", "state": "Ready"}}}
                    again.sendall(json.dumps(message).encode() + b"\n")
                    assert link.wait(10)
            assert numbers(link, "a") == [1]
        finally:
            link.close()


def test_of_whoever_says_to_be_a_hub_no_more_is_remembered_than_a_hub_has_to_say() -> None:
    def said(**more: Any) -> Any:
        return {"carrier": "c", "state": "Succeeded"} | more

    long = {"metrics": {"loss": 0.5, "x" * 60: 1}, "samples": 3, "more": ["x" * 90] * 900}
    reports = {f"train/1/p{n}/1": said(result={"samples": n}) for n in range(MOST_TELLERS + 50)}
    reports |= {f"train/1/{'n' * 500}/1": said(), "train/1/b/1": said(carrier="c" * 500)}
    reports |= {"train/1/a/1": said(result=long)}
    reports |= {"aggregate/1//1": said(state="Failed", reason="R\ud800", message="m\udfff")}
    with socket.create_server(("127.0.0.1", 0)) as liar:
        liar.settimeout(10)
        link = Link(liar.getsockname(), TOKEN)
        try:
            with liar.accept()[0] as line:
                line.sendall(json.dumps({"reports": reports}).encode() + b"\n")
                assert link.wait(10)
            known = link.reports()
        finally:
            link.close()
    assert len({report.identity.participant for report in known}) == len(known) == MOST_TELLERS
    told, failed = known[-2:]
    assert told.result == {"metrics": {"loss": 0.5}, "samples": 3}
    assert failed.trouble is not None
    assert (failed.trouble.reason, failed.trouble.message) == ("R?", "m?")


def numbers(link: Link, participant: str) -> list[int]:
    """The rounds of what the operator remembers of a participant."""
    identities = [report.identity for report in link.reports()]
    return [one.round for one in identities if one.participant == participant]


@pytest.mark.parametrize("end", ["the operator", "a participant"])
def test_a_line_that_leads_back_to_itself_does_not_keep_the_hub_from_its_port(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever calls a free port of this machine may be given that very port for the call's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    met = threading.Event()

    def from_there(to: Any, timeout: float) -> socket.socket:
        line = socket.socket()
        line.settimeout(timeout)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.bind(to)
        line.connect(to)
        met.set()
        return line

    monkeypatch.setattr(socket, "create_connection", from_there)
    (tmp_path / "token").write_text("0" * 32)
    if end == "the operator":
        link = Link(address, TOKEN)
    else:
        Line(f"127.0.0.1:{address[1]}", {"participant": "a"}, tmp_path / "token")
    assert met.wait(10)
    monkeypatch.undo()
    with socket.socket() as hub:
        hub.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(hub, address)
        hub.listen()
        hub.settimeout(10)
        line, _ = hub.accept()
        with line:
            if end == "the operator":
                link.close()
            line.sendall(b'{"end": 1}\n')
            time.sleep(0.2)


def bind(to_listen: socket.socket, address: Any) -> None:
    until = time.monotonic() + 5
    while True:
        try:
            return to_listen.bind(address)
        except OSError:
            assert time.monotonic() < until, "the port is still taken"
            time.sleep(0.02)
