"""Processes are stopped by who they are, not by a number."""

import json
import pathlib
import subprocess
import sys

from devcluster import process

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); time.sleep(60)"
)


def test_a_started_process_runs_until_it_is_stopped(tmp_path: pathlib.Path) -> None:
    record = process.Record(tmp_path / "pids" / "one.json")
    record.start(SLEEP, log=tmp_path / "log", fingerprint="v1")
    running = record.running()
    assert running is not None
    assert record.read() == (running, "v1")
    record.stop()
    assert record.running() is None
    assert process.identify(running.pid) is None


def test_a_recycled_pid_is_left_alone(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen(SLEEP) as somebody:
        record = process.Record(tmp_path / "one.json")
        identity = process.identify(somebody.pid)
        assert identity is not None
        stale = {"pid": identity.pid, "started": identity.started - 1, "boot": identity.boot}
        record.file.write_text(json.dumps({"process": stale, "fingerprint": ""}))
        record.stop()
        assert process.identify(somebody.pid) == identity
        somebody.kill()


def test_one_that_does_not_listen_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-uc", DEAF], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        identity = process.identify(deaf.pid)
        assert identity is not None
        process.end([identity], seconds=0.2)
        assert process.identify(deaf.pid) is None
