"""The commands that look at a run, and take its models, beside a run that is over."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedoperator.cli import logs, main

pytestmark = pytest.mark.processes

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def ended(a_federation: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two rounds of two participants, all files kept."""
    made = a_federation(tmp_path_factory.mktemp("ended"))
    people = {"a": ["--part", "0"], "b": ["--part", "1"]}
    made.of(people, rounds=2, keep={"last": 100, "updates": 100}, evaluation={"by": "a"})
    result = made.run()
    assert result.returncode == 0, result.stderr
    yield made
    made.close()


@pytest.fixture
def out(ended: Any) -> str:
    return str(ended.out)


def test_describe_says_how_far_how_good_and_where_the_model_is(out: str, capsys: Said) -> None:
    assert main.main(["describe", out]) == 0
    said = capsys.readouterr().out
    assert f"linear in {out} is Succeeded after" in said
    assert "2 of at most 2 rounds are published, by FedAvg." in said
    assert "The global model of round 2 has loss" in said
    assert f"What to do: fedtrain models download {out} OUT" in said
    assert "ROUND  PHASE" in said


def test_a_run_that_is_over_is_watched_to_its_end(out: str, capsys: Said) -> None:
    assert main.main(["watch", out]) == 0
    said = capsys.readouterr().out
    assert said.startswith("linear: Succeeded, 2/2")
    assert "round 2/2  accepted 2/2" in said


def test_logs_are_of_the_newest_round_and_of_whom_is_asked_for(out: str, capsys: Said) -> None:
    assert main.main(["logs", out]) == 0
    assert "folded 2 updates with FedAvg" in capsys.readouterr().out
    words = ["--round", "1", "--participant", "b", "--role", "train"]
    assert main.main(["logs", out, *words]) == 0
    said = capsys.readouterr().out
    assert "says None" in said
    assert "aggregate" not in said
    assert main.main(["logs", out, *words, "-f"]) == 0
    assert capsys.readouterr().out == said
    assert main.main(["logs", out, "--round", "77"]) == 1
    assert "there are no logs of round 77" in capsys.readouterr().err
    assert main.main(["logs", out, "--participant", "nobody"]) == 1
    assert "nobody is none of linear's: a, b" in capsys.readouterr().err


def test_a_round_in_which_nothing_is_written_says_so(
    ended: Any, tmp_path: Path, capsys: Said
) -> None:
    copy = shutil.copytree(ended.out, tmp_path / "out")
    for file in (copy / "logs").iterdir():
        file.write_text("")
    assert main.main(["logs", str(copy)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "nothing is written in round 2\n")


def test_models_are_listed_copied_verified_and_written_for_others(
    out: str, ended: Any, capfd: Said, tmp_path: Path
) -> None:
    assert main.main(["models", "list", out, "-o", "json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert rows[-1]["digest"] == ended.digest
    assert all(row["kept"] == "yes" and row["bytes"] > 0 for row in rows)
    copy = tmp_path / "copy"
    assert main.main(["models", "download", out, str(copy), "--round", "1"]) == 0
    assert rows[1]["digest"] in capfd.readouterr().out
    assert main.main(["models", "verify", str(copy)]) == 0
    assert main.main(["models", "verify", out]) == 0
    assert ended.digest in capfd.readouterr().out
    assert main.main(["models", "download", out, str(copy)]) == 1
    assert "is there already, and not empty" in capfd.readouterr().err
    assert main.main(["models", "push", out, str(tmp_path / "pushed")]) == 0
    assert (tmp_path / "pushed" / "model.safetensors").exists()


def test_a_model_that_was_changed_is_found_out(ended: Any, capfd: Said, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ended.model.parent, copy)
    assert main.main(["models", "verify", str(copy), "--digest", "sha256:0"]) == 1
    assert "expected was sha256:0" in capfd.readouterr().err
    file = copy / "model.safetensors"
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    assert main.main(["models", "verify", str(copy)]) == 1
    said = capfd.readouterr().err
    assert "is not as it was published: the digest is sha256:" in said
    assert len(said.splitlines()) == 1


def test_a_run_and_its_file_ask_for_the_same(out: str, ended: Any, capsys: Said) -> None:
    assert main.main(["diff", out, str(ended.file)]) == 0
    assert "they ask for the same" in capsys.readouterr().out
    assert main.main(["diff", out, out, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fields"] == []
    assert all(row["same"] for row in told["rounds"])
    assert len(told["rounds"]) == 3


@pytest.mark.parametrize(
    ("file", "whose"),
    [
        ("d-train-3-north-1.log", ("train", 3, "north", 1)),
        ("d-train-3-north-1-2-0.log", ("train", 3, "north-1", 2)),
        ("d-aggregate-2-1-3.log", ("aggregate", 2, "", 1)),
        ("d-prepare-0-1.log", ("prepare", 0, "", 1)),
        ("another.log", None),
    ],
)
def test_the_name_of_a_log_says_whose_it_is(file: str, whose: tuple[Any, ...] | None) -> None:
    found = logs.parsed(file, "d", ["north", "north-1"])
    told = found and (found.role, found.round, found.participant, found.attempt)
    assert told == whose
