"""What others wrote into a training is text on a terminal: it moves nothing, and fakes no line."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedoperator.cli import main
from fedoperator.local import visible
from fedoperator.local.folder import Folder
from tests.report.lab import a_round, a_training, accepted, failed, moment

TEXT = "\x1b]0;t\x07\x1b[2J\x9b31m\u202egpj [bold]b[/bold] [/x]\r\nround 9/9  accepted 3/3"
SHOWN = r"\x1b]0;t\x07\x1b[2J\x9b31m\u202egpj [bold]b[/bold] [/x] round 9/9  accepted 3/3"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of one that failed, of which every text is TEXT."""
    folder = Folder(tmp_path / "out")
    for part in (folder.exchange, folder.logs, folder.rounds):
        part.mkdir(parents=True)
    training = a_training(
        phase="Failed",
        reason=TEXT,
        message=TEXT,
        round=1,
        score=TEXT,
        progress=TEXT,
        metrics={TEXT: 0.5},
        startedAt=moment(0),
        globalModel={"round": 1, "path": f"x/global/1/1/{TEXT}", "digest": TEXT},
        conditions=[
            {
                "type": "Failed",
                "status": "True",
                "reason": TEXT,
                "message": TEXT,
                "lastTransitionTime": moment(3),
            }
        ],
    )
    folder.write_training(training)
    folder.write_status(training.status)
    broken = [failed("south", TEXT, TEXT), failed(TEXT, TEXT, TEXT)]
    record = a_round(1, accepted("north"), *broken, metrics={TEXT: 0.5}, worst=TEXT)
    folder.write_record(record, training)
    (folder.logs / "digits-train-1-north-1.log").write_text(f"\x1b[32mfine\x1b[0m {TEXT}")
    return folder.root


def on_a_terminal(*words: object) -> str:
    """What it shows, and in which colours."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fedoperator.cli", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "400", "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            said += piece
    os.close(ours)
    return said.decode()


@pytest.mark.parametrize("verb", ["describe", "watch", "models list", "diff"])
def test_texts_of_others_are_shown_and_obeyed_by_no_terminal(
    run: Path, capfd: pytest.CaptureFixture[str], verb: str
) -> None:
    other: list[Any] = [run] if verb == "diff" else []
    main.main([*verb.split(), str(run), *map(str, other)])
    piped = "".join(capfd.readouterr())
    assert r"\x1b]0;t" in piped.lower()
    for said in (piped, on_a_terminal(*verb.split(), run, *other)):
        assert "Traceback" not in said
        assert not {"\x07", "\x9b", "\u202e"} & set(said)
        assert "\x1b]0;t" not in said
        assert "\x1b[2J" not in said
        assert not any(line.startswith("round 9/9") for line in said.splitlines())


def test_of_logs_a_terminal_gets_the_colours_and_a_pipe_gets_the_bytes(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main.main(["logs", str(run)])
    assert "\x1b]0;t\x07" in capfd.readouterr().out
    shown = on_a_terminal("logs", run)
    assert "\x1b[32mfine\x1b[0m" in shown
    assert "\x1b]0;t" not in shown
    assert "\x1b[2J" not in shown


def test_what_is_shown_is_what_was_written() -> None:
    assert visible.line(TEXT) == SHOWN
    assert visible.line("größer → 0.9 \\x1b") == "größer → 0.9 \\x1b"
    assert visible.lines("a\nb\x1b") == "a\nb\\x1b"
