"""What others wrote into a training is text on a terminal: it moves nothing, and fakes no line."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedoperator.cli import logs, main
from fedoperator.local import visible
from fedoperator.local.folder import Folder
from tests.report.lab import a_round, a_training, accepted, failed, moment

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-digits" / "federation.yaml"
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


def test_a_pod_whose_labels_somebody_wrote_by_hand_is_no_stack_trace() -> None:
    labels = {"fedtrain.dev/role": "train", "fedtrain.dev/round": "2"}
    assert logs.of_pod({"metadata": {"name": "good", "labels": labels}}) is not None
    for name in ("round", "attempt"):
        odd = {**labels, f"fedtrain.dev/{name}": "x"}
        assert logs.of_pod({"metadata": {"name": "odd", "labels": odd}}) is None


BOMB = "\n".join(
    ["  parameters:", "    a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
)


@pytest.mark.parametrize("verb", ["validate", "plan", "diff"])
def test_a_file_that_is_larger_than_it_looks_is_refused_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], verb: str
) -> None:
    lines = EXAMPLE.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("  parameters:")]
    file = tmp_path / "bomb.yaml"
    file.write_text("\n".join([*lines, BOMB]))
    assert main.main([verb, str(file), *([str(EXAMPLE)] if verb == "diff" else [])]) == 1
    assert "aliases" in "".join(capfd.readouterr())


@pytest.mark.parametrize("part", ["status.yaml", "rounds/digits-00001.yaml", "logs"])
def test_a_folder_with_pipes_for_files_is_waited_for_by_nobody(run: Path, part: str) -> None:
    path = run / part if part != "logs" else next((run / "logs").glob("*.log"))
    path.unlink()
    os.mkfifo(path)
    words = [sys.executable, "-m", "fedoperator.cli", "logs" if part == "logs" else "describe"]
    ended = subprocess.run([*words, str(run)], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "no regular file" in ended.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("weight: 0.5", "weight: .nan"),
        ("weight: 0.5", "weight: 1.7e+308\n    metrics: {a: 1.7e+308}"),
        ("seconds: 12.5", "seconds: .inf"),
        ("samples: 100", f"samples: {10**400}"),
    ],
)
def test_figures_that_are_none_are_no_stack_trace(run: Path, before: str, after: str) -> None:
    file = run / "rounds" / "digits-00001.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    for words in (
        ["describe", run],
        ["report", run, "-o", run / "page.html"],
        ["diff", run, run],
    ):
        main.main([str(word) for word in words])
    words = ["track", str(run), "--tensorboard", str(run / "board")]
    command = [sys.executable, "-m", "fedoperator.cli", *words]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in said.stderr
