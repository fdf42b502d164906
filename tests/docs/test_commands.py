"""Every command of the tutorial and the README is run, here or by a test that is named here."""

import os
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from fedoperator.local import processes
from tests.docs.conftest import DOCS, ROOT, commands, write_files

LAPTOP, CLUSTER = DOCS / "tutorial" / "laptop.md", DOCS / "tutorial" / "cluster.md"
README = ROOT / "README.md"

ELSEWHERE = {
    "python3 -m venv .venv && . .venv/bin/activate": "the environment of the tests is one",
    "pip install": "test_what_pip_is_asked_for_is_there_and_pinned",
    "fedtrain run examples/01-digits/federation.yaml": "tests/trainer/test_digits.py, with the "
    "same script; ten rounds on a cluster in tests/e2e/test_digits.py",
    "make": "test_the_targets_of_make_exist; `make test` is what runs this, and demo is its parts",
    "docker": "test_images_are_built_from_targets_that_exist; tests/e2e builds both by buildah",
    "$EDITOR": "a person's work",
}
"""Beginning of a command that the tests below do not run → what does, or why nothing can."""


def here(page: Path) -> list[str]:
    return [c for c in commands(page) if not any(c.startswith(known) for known in ELSEWHERE)]


def test_each_page_has_commands_and_all_are_of_known_kinds() -> None:
    kinds = {command.split()[0] for page in (LAPTOP, CLUSTER, README) for command in here(page)}
    assert kinds == {"python", "fedtrain", "cat", "helm", "kubectl"}


def run(command: str, folder: Path, **environment: str) -> str:
    """What a command says that a shell runs in this folder, as a reader types it."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    if not (tools / "fedtrain").exists():
        (tools / "fedtrain").write_text('#!/bin/sh\nexec python -m fedoperator.cli "$@"\n')
        (tools / "fedtrain").chmod(0o755)
    paths = [str(tools), *filter(None, [environment.pop("tools", "")]), os.environ["PATH"]]
    ended = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=os.environ | environment | {"PATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout + ended.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tutorial").mkdir()
    return tmp_path / "tutorial"


@pytest.mark.processes
def test_the_tutorial_on_a_laptop_does_what_it_says(folder: Path) -> None:
    assert write_files(LAPTOP, folder) == ["train.py", "federation.yaml"]
    said = {command: run(command, folder) for command in here(LAPTOP)}
    status = yaml.safe_load(said["cat out/status.yaml"])
    assert status["phase"] == "Succeeded"
    assert status["metrics"]["accuracy"] > 0.85
    record = yaml.safe_load(said["cat out/rounds/first-00003.yaml"])
    assert {p["name"]: p["samples"] for p in record["status"]["participants"]} == {
        "north": 479,
        "south": 479,
        "west": 479,
    }
    assert list((folder / "exported").glob("*.safetensors"))
    assert processes.marked(str(folder)) == []


@pytest.mark.processes
def test_the_tutorials_mistake_is_told_in_a_sentence(folder: Path) -> None:
    write_files(LAPTOP, folder)
    file = folder / "federation.yaml"
    file.write_text(file.read_text().replace("rounds: 3", "rounds: 0"))
    with pytest.raises(AssertionError, match=r"spec\.rounds: 0 is too small; use 1 or more"):
        run("fedtrain validate federation.yaml", folder)


@pytest.mark.processes
def test_the_readmes_commands_for_a_laptop_are_right(folder: Path) -> None:
    (folder / "examples").symlink_to(ROOT / "examples")
    (validated,) = (c for c in here(README) if c.startswith("fedtrain validate"))
    run(validated, folder)


@pytest.mark.apiserver
def test_the_commands_for_a_cluster_are_taken_by_a_real_api_server(kubectl, folder: Path) -> None:
    """Without an operator: what it would write is written by hand, so that `watch` ends."""
    names = write_files(CLUSTER, folder)
    assert names == ["train.py", "federation.yaml"]
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder.parent / "tools").mkdir()
    (folder.parent / "tools" / "kubectl").symlink_to(kubectl.program)
    kubectl("create", "namespace", "fedtrain")
    done = ("--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Succeeded"}}')
    for page in (CLUSTER, README):
        for command in here(page):
            if command.startswith(("kubectl", "fedtrain apply", "fedtrain watch")):
                if command.startswith("fedtrain watch"):
                    answer = kubectl("patch", "fedt", command.split()[2], "-n", "fedtrain", *done)
                    assert answer[0] == 0, answer
                run(command, folder, KUBECONFIG=str(kubectl.kubeconfig))


def test_what_pip_is_asked_for_is_there_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = (ROOT / "constraints.txt").read_text()
    asked = [c for page in (LAPTOP, README) for c in commands(page) if c.startswith("pip ")]
    assert len(asked) == 2
    for command in asked:
        words = shlex.split(command)
        assert words[:5] == ["pip", "install", "-c", "constraints.txt", "-e"]
        assert words[5].removeprefix(".[").removesuffix("]") in project["optional-dependencies"]
        for name in words[6:]:
            assert f"\n{name}==" in pins, name


def test_the_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    pages = (LAPTOP, CLUSTER, README, ROOT / "CONTRIBUTING.md")
    targets = {c.split()[1] for page in pages for c in commands(page) if c.startswith("make ")}
    assert "test" in targets
    for target in targets:
        assert f"\n{target}:" in makefile, target


def test_images_are_built_from_targets_that_exist() -> None:
    stages = (ROOT / "Dockerfile").read_text()
    built = [c for c in commands(CLUSTER) if c.startswith("docker build")]
    assert len(built) == 2
    for command in built:
        words = shlex.split(command)
        assert f" AS {words[words.index('--target') + 1]}\n" in stages
    pushed = [c.split()[-1] for c in commands(CLUSTER) if c.startswith("docker push")]
    assert pushed == [shlex.split(c)[shlex.split(c).index("-t") + 1] for c in built]
