"""The workflows do what anybody can do: they call make, with actions that are pinned."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def jobs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from yaml.safe_load(path.read_text())["jobs"].items()


def test_there_is_one_for_each_thing_that_is_checked_or_published() -> None:
    assert [path.stem for path in WORKFLOWS] == ["chart", "docs", "images", "release", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_a_target_of_make_that_exists(path: Path) -> None:
    commands = [step["run"] for _, job in jobs(path) for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        match = re.fullmatch(r"make ([a-z-]+)( [A-Z]+=[\w.-]+)*", command)
        assert match is not None, command
        assert match[1] in TARGETS, command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_rights_and_time_are_bounded(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    assert document["permissions"]["contents"] in ("read", "write")
    for name, job in jobs(path):
        assert 0 < job["timeout-minutes"] <= 180, name
        for step in job["steps"]:
            if "uses" in step:
                assert re.search(r"@(v\d+|[0-9a-f]{40})$", step["uses"]), step["uses"]


def test_the_continuous_integration_runs_the_readmes_own_command() -> None:
    commands = [
        s["run"]
        for _, job in jobs(ROOT / ".github/workflows/tests.yaml")
        for s in job["steps"]
        if "run" in s
    ]
    assert commands == ["make check", "make test"]
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_the_name_of_a_tag_is_no_program(tmp_path: Path) -> None:
    evil = "v$(touch${IFS}" + f"{tmp_path}/shell)$(shell touch {tmp_path}/make)`touch {tmp_path}/x`"
    for path in WORKFLOWS:
        for _, job in jobs(path):
            assert all("${{" not in step.get("run", "") for step in job["steps"]), path
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "gh").write_text('#!/bin/sh\necho "$3"\n')
    (tools / "gh").chmod(0o755)
    environment = {**os.environ, "TAG": evil, "PATH": f"{tools}:{os.environ['PATH']}"}
    command = ["make", "-s", "publish", "-o", "release"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.stdout.strip() == evil
    assert [file.name for file in tmp_path.iterdir()] == ["bin"]
