"""What the images are made of is what the package asks for, at the versions that were tried."""

import re
import tomllib

from tests.chart.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements: list[str]) -> set[str]:
    found = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {normal(match.group()) for match in found if match}


def installed(target: str) -> set[str]:
    """What pip is asked for in one target of the Dockerfile."""
    (stage,) = re.findall(rf"^FROM common AS {target}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    options = r"pip install --no-cache-dir --constraint \S+"
    asked = re.findall(options + r"((?:\s+(?:\\\n\s*)?[a-z][\w-]*)+)", stage)
    return named(" ".join(asked).replace("\\\n", " ").split())


def test_the_controller_has_the_operators_dependencies_and_no_torch():
    extras = PROJECT["optional-dependencies"]
    assert installed("controller") == named(PROJECT["dependencies"] + extras["operator"])


def test_the_trainer_has_the_trainers_dependencies_and_no_kubernetes():
    extras = PROJECT["optional-dependencies"]
    assert installed("trainer") == named(PROJECT["dependencies"] + extras["trainer"])


def test_constraints_are_names_and_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pins)
    names = [normal(pin.partition("==")[0]) for pin in pins]
    assert len(names) == len(set(names))
    assert installed("controller") | installed("trainer") <= set(names)


def test_the_context_holds_only_what_is_copied():
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.M)
    assert allowed <= set(copied)
    for source in copied:
        assert any(source == one or source.startswith(f"{one}/") for one in allowed), source
