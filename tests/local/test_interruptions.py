"""Interrupted anywhere and run again, it goes on; nothing keeps running behind its back."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.processes

Three = Callable[..., dict[str, list[str]]]


def test_killed_again_and_again_it_ends_with_the_same_bytes(
    undisturbed: Any, federation: Any, three: Three
) -> None:
    federation.of(three(), rounds=10, evaluation={"by": "a"})
    for number in (0, 1, 3, 4, 8):
        code = federation.kill_after(lambda number=number: federation.round >= number)
        assert code == -signal.SIGKILL
    assert federation.run().returncode == 0
    assert federation.digest == undisturbed.digest
    assert all(p["attempt"] == 1 for r in federation.records for p in r["status"]["participants"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_no_process_and_says_how_to_go_on(
    federation: Any, three: Three, number: int
) -> None:
    federation.of(three("--sleep", "30"), rounds=1)
    process = federation.start()
    federation.wait_for(lambda: len(federation.processes) >= 4)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "run the same command again to go on" in err
    assert federation.processes == []


def test_stopped_is_no_failure(federation: Any, three: Three) -> None:
    federation.of(three("--sleep", "1"), rounds=1, retries=0)
    federation.kill_after(lambda: len(federation.processes) >= 4, signal.SIGINT)
    assert federation.run().returncode == 0
    assert [p["state"] for p in federation.records[1]["status"]["participants"]] == ["Accepted"] * 3


def test_a_process_that_heeds_no_signal_is_ended_by_the_next_run(
    federation: Any, three: Three
) -> None:
    federation.of({"a": ["--sleep", "60", "--stubborn"]}, rounds=1)
    log = federation.out / "logs" / "linear-train-1-a-1.log"
    federation.kill_after(lambda: log.exists() and "says" in log.read_text())
    left = set(federation.processes)
    assert left, "the script ignores the SIGTERM that the end of fedtrain run sends"
    federation.start()
    federation.wait_for(lambda: not left & set(federation.processes), seconds=10)


def test_a_second_run_in_one_folder_is_refused(federation: Any, three: Three) -> None:
    federation.of(three("--sleep", "30"), rounds=1)
    federation.start()
    federation.wait_for(lambda: bool(federation.processes))
    second = federation.run()
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert "another `fedtrain run` works in" in second.stderr
