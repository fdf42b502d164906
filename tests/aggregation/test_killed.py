"""Killed anywhere and run again, an aggregation publishes the same bytes."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
CALLS = (
    "open",
    "preadv",
    "pwrite",
    "fsync",
    "mkdir",
    "rmdir",
    "unlink",
    "fork",
    "waitpid",
    "ftruncate",
)
COUNTED = f"""
import os, signal
from fedtrain import publication

me, calls = os.getpid(), 0

def counted(function):
    def call(*args, **named):
        global calls
        calls += os.getpid() == me
        if calls == AT and os.getpid() == me:
            os.kill(me, signal.SIGNAL)
        return function(*args, **named)
    return call

for name in {CALLS}:
    setattr(os, name, counted(getattr(os, name)))
publication.rename_without_replacing = counted(publication.rename_without_replacing)
publication._write_durably = counted(publication._write_durably)
"""


def signalled(federation: Any, at: int, signal: str = "SIGKILL", **said: Any) -> Any:
    code = COUNTED.replace("AT", str(at)).replace("signal.SIGNAL", f"signal.{signal}")
    after = "print('calls:', calls)"
    return federation.run_with(code, after, threads=1, **said)


@pytest.fixture(scope="module")
def prepared(a_federation: Make, a_delta: Make) -> tuple[Any, int, str]:
    """A round with something to reject and to prune; its number of calls and its bytes."""
    federation = a_federation()
    for k, name in enumerate("abc"):
        federation.with_update(name, a_delta(k), samples=k + 1)
    federation.with_update("d", a_delta(4), base="another")
    leftover = federation.root / "global/0/.tmp-0-dead"
    leftover.mkdir()
    (leftover / "model.safetensors").write_text("half")
    copy = moved(federation, "reference")
    ended = signalled(copy, 0)
    assert ended.code == 0, ended.output
    assert not (copy.root / "global/0/.tmp-0-dead").exists()
    calls = int(re.findall(r"calls: (\d+)", ended.output)[0])
    return federation, calls, copy.published_bytes()


def moved(federation: Any, name: str) -> Any:
    """The same federation, copied to another root."""
    import copy

    other = copy.copy(federation)
    other.root = federation.root.with_name(f"{federation.root.name}-{name}")
    shutil.copytree(federation.root, other.root)
    return other


@pytest.mark.parametrize("point", range(24))
def test_killed_at_any_point_and_run_again_it_publishes_the_same_bytes(
    prepared: tuple[Any, int, str], point: int
) -> None:
    federation, calls, reference = prepared
    at = 1 + (calls - 1) * point // 23
    copy = moved(federation, f"killed-{point}")
    killed = signalled(copy, at)
    assert killed.code == -9, killed.output
    folder = copy.root / "global/1/1"
    if folder.exists():
        assert copy.published_bytes() == reference
    again = copy.run()
    assert again.code == 0, again.output
    assert copy.published_bytes() == reference
    assert again.message.result["verdicts"] == "...a"


@pytest.mark.parametrize("point", range(1, 6))
def test_sigterm_ends_it_promptly_and_leaves_nothing_behind(
    prepared: tuple[Any, int, str], point: int
) -> None:
    federation, calls, _ = prepared
    copy = moved(federation, f"terminated-{point}")
    ended = signalled(copy, calls * point // 8, "SIGTERM")
    assert ended.code == 75
    assert ended.message.reason == "Terminated"
    assert list((copy.root / "global").glob("1/*")) == []


def test_leftovers_of_a_dead_aggregation_are_removed_by_the_next_number(
    prepared: tuple[Any, int, str],
) -> None:
    federation, calls, _ = prepared
    copy, at = moved(federation, "leftover"), calls
    while not list((copy.root / "global").glob("1/.tmp-1-*")):
        at -= 2
        copy = moved(federation, f"leftover-{at}")
        assert signalled(copy, at).code == -9
    folder = copy.root / "global/1"
    shutil.rmtree(folder / "1", ignore_errors=True)
    mine = folder / ".tmp-3-of-a-later-number"
    mine.mkdir()
    assert copy.run(output="global/1/2").code == 0
    assert sorted(entry.name for entry in folder.iterdir()) == [mine.name, "2"]


def test_only_whole_folders_are_ever_seen(prepared: tuple[Any, int, str]) -> None:
    federation, calls, _ = prepared
    seen = set()
    for at in range(calls - 26, calls, 2):
        copy = moved(federation, f"whole-{at}")
        assert signalled(copy, at).code == -9
        seen.add((copy.root / "global/1/1").exists())
        for folder in (copy.root / "global").glob("1/[0-9]*"):
            assert sorted(path.name for path in Path(folder).iterdir()) == [
                "manifest.json",
                "model.safetensors",
                "schema.json",
            ]
    assert seen == {False, True}, "kills on both sides of the rename"
