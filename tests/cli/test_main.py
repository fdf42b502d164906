"""The command line: mistakes are sentences, and nothing is imported that is not used."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedoperator.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-digits" / "federation.yaml"


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_without_a_command_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in _refused(capsys)


def test_a_number_of_jobs_is_one_or_more(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "run", "x.yaml", "--out", "o", "--jobs", "0")
    assert "'0' is not a number of ranks; use 1 or more" in said


def test_a_claim_is_a_name_and_a_folder_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "run", "x.yaml", "--out", "o", "--claim", "models=/no/such")
    assert "not NAME=FOLDER with a folder that exists" in said


def test_a_time_is_written_as_in_the_resource(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "run", "x.yaml", "--out", "o", "--give-up-after", "5")
    assert "write it like 90s or 10m" in said


def test_a_file_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "none.yaml"
    assert main.main(["run", str(file), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"{file}: cannot be read")
    assert not (tmp_path / "out").exists()


def test_a_file_of_two_trainings_is_to_be_split(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    one = yaml.safe_load(EXAMPLE.read_text())
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump_all([one, {**one, "metadata": {"name": "other"}}]))
    assert main.main(["run", str(file), "--out", str(tmp_path / "out")]) == 1
    assert "2 trainings are in it" in capsys.readouterr().err


def test_what_is_wrong_with_a_file_is_said_by_run_as_by_validate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(EXAMPLE.read_text().replace("rounds:", "round:"))
    assert main.main(["validate", str(file)]) == 1
    said = capsys.readouterr().out
    assert "did you mean rounds?" in said
    assert main.main(["run", str(file), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == said
    assert not (tmp_path / "out").exists()


def test_a_run_reads_standard_input_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"kind: Pod")))
    assert main.main(["run", "-", "--out", str(tmp_path / "out")]) == 1
    assert '-: kind: "Pod" is not FederatedTraining' in capsys.readouterr().err


def test_validate_gives_the_worst_code_of_its_files(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: FederatedTraining")
    assert main.main(["validate", str(EXAMPLE)]) == 0
    assert main.main(["validate", str(EXAMPLE), str(bad)]) == 1


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("fedtrain")


@pytest.mark.parametrize(
    "command", ["validate", "plan", "run", "track", "report", "models download", "diff"]
)
def test_help_is_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main.main([*command.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert "exit codes: 0" in "\n".join(lines)


def _python(code: str) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(__file__).parents[2] / name) for name in ("operator", "trainer")]
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(paths)},
        capture_output=True,
        text=True,
    )


def test_running_here_needs_no_kubernetes_and_no_torch() -> None:
    done = _python(
        "import sys; from fedoperator.cli import main; main.parser(); "
        "print(*{'kubernetes', 'kopf', 'torch', 'numpy', 'asyncio'} & sys.modules.keys())"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "")


INTERRUPTED = """
import sys

class CtrlC:
    def find_spec(name, path, target=None):
        if name == "{name}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC)
from fedoperator.cli.main import main
sys.exit(main(["version"]))
"""


@pytest.mark.parametrize("name", ["fedtrain.contract", "dataclasses", "pydantic"])
def test_ctrl_c_while_the_program_is_loading_is_no_stack_trace(name: str) -> None:
    done = _python(INTERRUPTED.format(name=name))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("name", ["runs/digts", "digts"])
def test_a_folder_that_is_mistyped_is_not_only_taken_for_a_name(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert main.main(["describe", name]) == 1
    said = capsys.readouterr().err
    assert said.startswith("no cluster to ask (")
    assert said.endswith("; set KUBECONFIG, or name the --out of a fedtrain run\n")


@pytest.mark.parametrize(
    ("parameters", "words"), [("1000", "less than 0.1 s a round"), ("700B", " h ")]
)
def test_an_aggregators_time_is_in_units_that_people_use(
    capsys: pytest.CaptureFixture[str], parameters: str, words: str
) -> None:
    main.main(["plan", str(EXAMPLE), "--parameters", parameters])
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("aggregator"))
    assert words in line
    assert "e+" not in line
