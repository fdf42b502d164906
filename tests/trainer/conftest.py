"""Real processes in a temporary folder: `exchange.run(script, task)` is one container's life."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain import Round, rounds
from fedtrain.contract import (
    MESSAGE_ENV,
    ROOT_ENV,
    SCRATCH_ENV,
    TASK_ENV,
    Message,
    ModelRef,
    ParticipantTask,
    Receipt,
    Role,
    encode_task,
    evaluation_folder,
    global_folder,
    update_folder,
)

TRAINER = Path(__file__).resolve().parents[2] / "trainer"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

NUMPY_SCRIPT = """\
import sys
import numpy as np
from fedtrain import rounds

model = {"w": np.arange(3, dtype=np.float32), "count": np.zeros((), np.int64)}
for rnd in rounds(model, evaluate=lambda m: {"sum": float(m["w"].sum()), "samples": 4}):
    model["w"] += rnd.number
    model["count"] += 1
    rnd.submit(samples=7, metrics={"loss": 0.5}, steps=3)
assert "torch" not in sys.modules
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is left of a container: exit code, termination message, log."""

    code: int
    message: Message
    log: str


@dataclass(slots=True)
class Running:
    process: subprocess.Popen[bytes]
    folder: Path

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Wait until the log holds `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.log():
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.log()}"
            assert self.process.poll() is None or text in self.log(), self.log()
            time.sleep(0.02)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def end(self, seconds: float = 120.0) -> Ended:
        code = self.process.wait(timeout=seconds)
        message = Message.decode((self.folder / "message").read_text())
        assert message is not None
        return Ended(code=code, message=message, log=self.log())


class Exchange:
    """A training's folder, and the tasks that a federation would give to participant north."""

    def __init__(self, root: Path) -> None:
        self.root = root / "exchange"
        self._containers = root / "containers"
        self._running: list[subprocess.Popen[bytes]] = []
        self.model: ModelRef | None = None
        self.root.mkdir(parents=True)

    def init(self, **changes: Any) -> ParticipantTask:
        return self._task(role=Role.INIT, round=0, output=global_folder(0, 1), **changes)

    def train(
        self, participant: str = "north", attempt: int = 1, **changes: Any
    ) -> ParticipantTask:
        known = {"role": Role.TRAIN, "round": 1, "model": self.model, "output": ""}
        task = self._task(**known | changes)
        task = replace(task, participant=participant, attempt=attempt)
        return replace(task, output=update_folder(participant, task.round, attempt))

    def evaluate(self, **changes: Any) -> ParticipantTask:
        known = {"role": Role.EVALUATE, "round": 0, "model": self.model, "output": ""}
        task = self._task(**known | changes)
        return replace(task, output=evaluation_folder("north", task.round, 1))

    def _task(self, **fields: Any) -> ParticipantTask:
        given = {"participant": "north", "attempt": 1, "seed": 7, **fields}
        return ParticipantTask(training="digits", uid="0123-4567", **given)

    def start(
        self,
        script: str | Path | Sequence[str],
        task: ParticipantTask,
        *,
        processes: int = 0,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Running:
        """Start a script (text or file) or a command under `fedtrain.launch`.

        processes: of torchrun; 0 is plain Python without it.
        """
        folder = self._containers / str(len(self._running))
        folder.mkdir(parents=True)
        if isinstance(script, str):
            (folder / "train.py").write_text(script)
        if isinstance(script, str | Path):
            path = str(folder / "train.py") if isinstance(script, str) else str(script)
            command = [*(TORCHRUN if processes else [sys.executable]), path, *arguments]
        else:
            command = list(script)
        environment = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
        environment |= {"PYTHONPATH": str(TRAINER), "HOME": "/tmp", TASK_ENV: encode_task(task)}
        environment |= {ROOT_ENV: str(self.root), MESSAGE_ENV: str(folder / "message")}
        environment |= {"PET_NPROC_PER_NODE": str(processes)} if processes else {}
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedtrain.launch", "--", *command],
                env=environment | dict(env or {}),
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(process)
        return Running(process, folder)

    def stop(self) -> None:
        """End what a failed test left running; launch ends its own descendants."""
        for process in self._running:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)

    def run(
        self, script: str | Path | Sequence[str], task: ParticipantTask, **options: Any
    ) -> Ended:
        return self.start(script, task, **options).end()

    def publish_initial(self, script: str | Path, **options: Any) -> ModelRef:
        """Run the init role; later tasks start from what it published."""
        ended = self.run(script, self.init(), **options)
        assert ended.code == 0, ended.log
        self.model = ModelRef(path="global/0/1", digest=ended.message.result["digest"])
        return self.model

    def receipt(self, task: ParticipantTask) -> Receipt:
        return Receipt.from_json((self.root / task.output / "receipt.json").read_text())


class Federation:
    """A training of which this process is participant north, round after round."""

    def __init__(self, exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exchange, self.scratch, self._patch = exchange, tmp_path / "scratch", monkeypatch
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setenv(ROOT_ENV, str(exchange.root))
        monkeypatch.setenv(SCRATCH_ENV, str(self.scratch))

    def begin(self, model: Any = None) -> None:
        """The federation has this model as its round 0."""
        self.perform(self.exchange.init())
        assert list(rounds(model if model is not None else {"w": np.zeros(4, np.float32)})) == []
        manifest = json.loads((self.exchange.root / "global/0/1/manifest.json").read_text())
        self.exchange.model = ModelRef(path="global/0/1", digest=manifest["digest"])

    def perform(self, task: ParticipantTask) -> None:
        self._patch.setenv(TASK_ENV, encode_task(task))

    def accept(self, number: int, accepted: Mapping[str, tuple[int, int]]) -> None:
        """Publish the same model as the global one of a round, with these accepted so far."""
        assert self.exchange.model is not None
        before = self.exchange.root / self.exchange.model.path
        folder = self.exchange.root / global_folder(number, 1)
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "schema.json"):
            (folder / name).write_bytes((before / name).read_bytes())
        manifest = json.loads((before / "manifest.json").read_text())
        manifest |= {"round": number, "last_accepted": dict(accepted)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        self.exchange.model = replace(self.exchange.model, path=global_folder(number, 1))

    def take_part(
        self, number: int, attempt: int = 1, *, model: Any = None, by: Any = 1.0, **changes: Any
    ) -> Iterator[Round]:
        """Yield a round in which `by` is added to the model's "w"; it is submitted afterwards."""
        model = model if model is not None else {"w": np.zeros(4, np.float32)}
        self.perform(self.exchange.train(round=number, attempt=attempt, **changes))
        for rnd in rounds(model):
            model["w"] += by
            yield rnd
            rnd.submit(samples=1)

    def train(self, number: int, attempt: int = 1, **kept: Any) -> dict[str, Any]:
        """Take part in a round that leaves `kept`; what its state began with."""
        began: dict[str, Any] = {}
        for rnd in self.take_part(number, attempt):
            began = dict(rnd.state)
            rnd.state.update(kept)
        return began


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    exchange = Exchange(tmp_path)
    yield exchange
    exchange.stop()


@pytest.fixture(scope="session")
def forkrun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int, Path], list[str]]]:
    """(processes, script) -> a command like torchrun's, whose ranks need not import torch anew."""
    program = str(Path(__file__).with_name("forkrun.py"))
    path = tmp_path_factory.mktemp("forkrun") / "socket"
    environment = {**os.environ, "PYTHONPATH": str(TRAINER), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, program, "serve", str(path)], env=environment)
    deadline = time.monotonic() + 120
    while not path.exists():
        assert server.poll() is None, "forkrun did not start"
        assert time.monotonic() < deadline, "torch was not imported in two minutes"
        time.sleep(0.05)
    python = [sys.executable, "-S", program, "run", str(path)]
    yield lambda processes, script: [*python, str(processes), str(script)]
    server.kill()
    server.wait()


@pytest.fixture
def numpy_script() -> str:
    return NUMPY_SCRIPT


@pytest.fixture
def federation(exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    return Federation(exchange, tmp_path, monkeypatch)
