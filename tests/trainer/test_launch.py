"""PID 1: what a command's end becomes. Real processes; none of them needs torch."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fedtrain import launch
from fedtrain.contract import Exit, Role
from fedtrain.errors import ExchangeError

pytestmark = pytest.mark.processes

FORGETFUL = """\
import numpy as np
from fedtrain import rounds
for rnd in rounds({"w": np.zeros(2, np.float32)}):
    pass
"""


def raising(statement: str) -> str:
    return f"""\
import numpy as np
from fedtrain import rounds
from fedtrain.errors import DataError
for rnd in rounds({{"w": np.zeros(2, np.float32)}}):
    {statement}
"""


HOLDING = """\
import numpy as np
from fedtrain import rounds
yielded = rounds({"w": np.zeros(2, np.float32)})
for rnd in yielded:
    1 / 0
"""


def test_a_participant_initialises_trains_and_evaluates(exchange: Any, numpy_script: str) -> None:
    base = exchange.publish_initial(numpy_script)
    trained = exchange.run(numpy_script, exchange.train())
    evaluated = exchange.run(numpy_script, exchange.evaluate())
    assert (trained.code, evaluated.code) == (0, 0)
    receipt = exchange.receipt(exchange.train())
    assert (receipt.training, receipt.base, receipt.samples) == ("0123-4567", base.digest, 7)
    assert trained.message.result == {
        "digest": receipt.digest,
        "samples": 7,
        "steps": 3,
        "seconds": receipt.seconds,
        "metrics": {"loss": 0.5},
    }
    assert evaluated.message.result == {"samples": 4, "metrics": {"sum": 3.0}}
    assert exchange.receipt(exchange.evaluate()).digest is None


def test_a_receipt_at_the_start_is_the_result_and_nothing_is_run(
    exchange: Any, numpy_script: str, tmp_path: Path
) -> None:
    exchange.publish_initial(numpy_script)
    first = exchange.run(numpy_script, exchange.train())
    again = exchange.run(["touch", str(tmp_path / "ran")], exchange.train())
    assert again.code == 0
    assert again.message == first.message
    assert "has its receipt already" in again.log
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("when", ["at the start", "at the end"])
@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        (None, 74, "ExchangeUnreadable"),
        (b"{", 75, "ReceiptBroken"),
        (b"\xff", 75, "ReceiptBroken"),
        (b"[1]", 75, "ReceiptBroken"),
        (b"[" * 100_000, 75, "ReceiptBroken"),
    ],
)
def test_a_receipt_that_cannot_be_read_is_never_a_script_without_a_submit(
    exchange: Any, when: str, text: bytes | None, code: int, reason: str, tmp_path: Path
) -> None:
    task = exchange.train()
    receipt = exchange.root / task.output / "receipt.json"

    def spoil() -> None:
        receipt.parent.mkdir(parents=True)
        if text is None:
            receipt.mkdir()  # reading it fails with EISDIR, as a failing disk does with EIO
        else:
            receipt.write_bytes(text)

    command = ["touch", str(tmp_path / "ran")]
    if when == "at the start":
        spoil()
        ended = exchange.run(command, task)
    else:
        release = tmp_path / "release"
        waiting = ["sh", "-c", f"echo began; until [ -e {release} ]; do sleep 0.05; done"]
        running = exchange.start(waiting, task)
        running.wait_for("began")
        spoil()
        release.touch()
        ended = running.end()
    assert (ended.code, ended.message.reason) == (code, reason), ended.log
    assert str(receipt) in ended.message.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (errno.EIO, "ExchangeUnreadable"),
        (errno.ESTALE, "ExchangeUnreadable"),
        (errno.EACCES, "ExchangeUnreadable"),
        (errno.ENOENT, None),
        (errno.ENOTDIR, None),
    ],
)
def test_only_an_absent_receipt_is_no_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, found: str | None
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", failing)
    if found is None:
        assert launch.published(Role.TRAIN, tmp_path) is None
        return
    with pytest.raises(ExchangeError) as failed:
        launch.published(Role.TRAIN, tmp_path)
    assert failed.value.reason == found


def test_a_crash_after_the_submit_changes_nothing(exchange: Any, numpy_script: str) -> None:
    exchange.publish_initial(numpy_script)
    ended = exchange.run(numpy_script + "\nraise SystemExit(9)\n", exchange.train())
    assert (ended.code, ended.message.result["samples"]) == (0, 7)
    assert "exited with 9 after its result was published" in ended.log


@pytest.mark.parametrize(
    ("script", "code", "reason", "sentence"),
    [
        (FORGETFUL, 64, "NoSubmit", "the script ended without rnd.submit(...)"),
        (raising("break"), 64, "NoSubmit", "the script ended without rnd.submit(...)"),
        (raising("1 / 0"), 75, "ScriptFailed", "ZeroDivisionError: division by zero (train.py:5)"),
        (HOLDING, 75, "ScriptFailed", "ZeroDivisionError: division by zero (train.py:5)"),
        (raising("import nosuch"), 75, "ScriptFailed", "No module named 'nosuch' (train.py:5)"),
        ("import nosuch", 75, "ScriptFailed", "ModuleNotFoundError: No module named 'nosuch'"),
        ("raise SystemExit(3)", 75, "ScriptFailed", "the command exited with 3"),
        ("import sys; sys.exit('no GPU')", 75, "ScriptFailed", "exited with 1: no GPU"),
        (raising("raise DataError('empty claim')"), 65, "BadData", "empty claim"),
        (raising("rnd.submit(samples=0)"), 65, "NoSamples", "samples=0"),
        (raising("rnd.submit(samples=1.5)"), 64, "BadSamples", "samples=1.5"),
        (
            raising("rnd.submit(samples=1); rnd.submit(samples=1)"),
            0,
            "Completed",
            "",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            75,
            "ScriptKilled",
            "killed by SIGKILL (out of memory?)",
        ),
    ],
)
def test_how_a_script_ends_decides_the_exit_code(
    exchange: Any, script: str, code: int, reason: str, sentence: str
) -> None:
    exchange.publish_initial(FORGETFUL)
    ended = exchange.run(script, exchange.train())
    assert (ended.code, ended.message.reason) == (code, reason), ended.log
    assert sentence in ended.message.message


def test_a_script_that_never_enters_rounds_is_told_so_in_the_init_role(exchange: Any) -> None:
    ended = exchange.run("print('no rounds here')", exchange.init())
    assert (ended.code, ended.message.reason) == (64, "NoSubmit")
    assert "without entering rounds(...)" in ended.message.message


def test_only_node_zero_must_leave_a_receipt(exchange: Any) -> None:
    env = {"PET_NNODES": "2", "PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": "1"}
    first = exchange.run(["true"], exchange.train(), env=env | {"PET_NODE_RANK": "0"})
    other = exchange.run(["true"], exchange.train(), env=env | {"PET_NODE_RANK": "1"})
    assert (first.code, other.code) == (64, 0)


@pytest.mark.parametrize("command", [["torchrum", "train.py"], ["sh", "-c", "torchrum train.py"]])
def test_a_command_that_does_not_exist_is_fatal(exchange: Any, command: list[str]) -> None:
    ended = exchange.run(command, exchange.train())
    assert (ended.code, ended.message.reason) == (64, "CommandNotFound")


def test_a_task_of_another_version_is_fatal(exchange: Any) -> None:
    ended = exchange.run(["true"], exchange.train(), env={"FEDTRAIN_TASK": '{"kind":"Fly"}'})
    assert (ended.code, ended.message.reason) == (64, "BadTask")


def test_sigterm_reaches_the_command_and_what_it_started(exchange: Any, tmp_path: Path) -> None:
    script = f"""\
import os, signal, subprocess, sys, time
orphan = subprocess.Popen(
    [sys.executable, "-c", "import time; print('orphan', flush=True); time.sleep(600)"],
    start_new_session=True,   # as torchrun starts its workers
)
signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), sys.exit(1)))
open({str(tmp_path / "pid")!r}, "w").write(str(orphan.pid))
time.sleep(0.3)
print("ready", flush=True)
time.sleep(600)
"""
    running = exchange.start(script, exchange.train())
    running.wait_for("ready")
    running.process.send_signal(signal.SIGTERM)
    ended = running.end(seconds=10)
    assert (ended.code, ended.message.reason) == (75, "Terminated")
    assert "told" in ended.log
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


TORCHRUN_SCRIPT = """\
import os, sys
import torch.distributed as dist
from torch import nn
from fedtrain import rounds

model = nn.Linear(3, 1, bias=False)
nn.init.ones_(model.weight)
for rnd in rounds(model):
    assert (dist.get_rank(), dist.get_world_size(), os.environ["LOCAL_RANK"]) == (0, 1, "0")
    assert dist.is_torchelastic_launched()
    print("parent", open(f"/proc/{os.getppid()}/cmdline").read().replace("\\0", " "))
    rnd.submit(samples=1)
"""


def test_a_torchrun_of_one_process_is_that_process_without_an_agent(exchange: Any) -> None:
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    exchange.publish_initial(TORCHRUN_SCRIPT)
    plain, agent = exchange.train("north"), exchange.train("north", attempt=2)
    script = exchange.root.parent / "train.py"
    script.write_text(TORCHRUN_SCRIPT)
    command = [torchrun, str(script)]
    with_agent = [torchrun, "--nnodes=1", str(script)]
    without = exchange.run(command, plain, env={"PET_NPROC_PER_NODE": "1"})
    assert without.code == 0, without.log
    assert "fedtrain.launch" in without.log.partition("parent")[2]
    other = exchange.run(with_agent, agent, env={"PET_NPROC_PER_NODE": "1"})
    assert other.code == 0, other.log
    assert "torchrun" in other.log.partition("parent")[2]
    assert exchange.receipt(plain).digest == exchange.receipt(agent).digest


def test_zombies_are_reaped_while_the_command_runs(exchange: Any) -> None:
    script = """\
import os, time
if os.fork() == 0:            # a child that leaves a grandchild behind
    if os.fork() == 0:
        time.sleep(0.2)
    os._exit(0)
os.wait()
time.sleep(0.8)
parent = os.getppid()
states = [open(f"/proc/{pid}/stat").read().split(") ")[1][0]
          for pid in open(f"/proc/{parent}/task/{parent}/children").read().split()]
print("states", states)
"""
    ended = exchange.run(script, exchange.train())
    assert "states ['R']" in ended.log


def test_without_a_place_for_the_message_nothing_fails(exchange: Any, numpy_script: str) -> None:
    env = {"FEDTRAIN_TERMINATION_LOG": "/nonexistent/message"}
    running = exchange.start(numpy_script, exchange.init(), env=env)
    assert running.process.wait(timeout=30) == 0


def test_a_single_node_makes_its_own_rendezvous_and_keeps_what_the_user_set() -> None:
    environment = {"PET_MASTER_ADDR": "pod-0", "PET_RDZV_ID": "mine", "OMP_NUM_THREADS": "4"}
    launch.prepare_environment(environment, nodes=1)
    assert "PET_MASTER_ADDR" not in environment
    assert environment["PET_RDZV_ENDPOINT"] == "localhost:0"
    assert (environment["PET_RDZV_ID"], environment["OMP_NUM_THREADS"]) == ("mine", "4")


def test_several_nodes_keep_the_address_that_the_operator_gave() -> None:
    environment = {"PET_MASTER_ADDR": "pod-0", "PET_NNODES": "2"}
    launch.prepare_environment(environment, nodes=2)
    assert environment["PET_MASTER_ADDR"] == "pod-0"
    assert "PET_RDZV_BACKEND" not in environment


def test_a_name_that_never_resolves_is_waited_for_with_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    started = time.monotonic()
    pause = threading.Event().wait
    assert not launch.wait_for_name("pod-0.nowhere.invalid", pause, seconds=0.2)
    assert time.monotonic() - started < 5
    assert capsys.readouterr().err.count("waits up to") == 1
    assert launch.wait_for_name("localhost", pause, seconds=0.2)


def test_launch_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, fedtrain.launch; print({'torch', 'numpy'} & set(sys.modules))"
    assert _python(code) == "set()"


def test_importing_the_package_and_rounds_is_cheap() -> None:
    assert _python("import sys, fedtrain; print({'torch', 'numpy'} & set(sys.modules))") == "set()"
    assert _python("from fedtrain import rounds; import sys; print('torch' in sys.modules)") == (
        "False"
    )


def _python(code: str) -> str:
    from_here = {"PYTHONPATH": str(Path(launch.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=from_here, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_exit_codes_are_those_of_the_job_s_failure_policy() -> None:
    assert [int(code) for code in Exit] == [0, 64, 65, 66, 74, 75]
