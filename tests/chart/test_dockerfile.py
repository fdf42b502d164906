"""What the images are made of is what the package asks for, at the versions that were tried."""

import re
import tomllib

import pytest

from tests.chart.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements: list[str]) -> set[str]:
    found = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {normal(match.group()) for match in found if match}


def stage(target: str) -> str:
    """The lines of one target of the Dockerfile."""
    (found,) = re.findall(rf"^FROM \w+ AS {target}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    return found


def installed(target: str) -> set[str]:
    """What pip is asked for in one target: all of a file, whose hashes it checks."""
    (file,) = re.findall(r"--require-hashes --requirement /opt/fedtrain/(\S+)", stage(target))
    assert f"COPY requirements/{file} /opt/fedtrain/\n" in stage(target)
    assert len(re.findall(r"^[^#\n]*pip install", stage(target), re.M)) == 1
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    return named([line for line in lines if line and line[0] not in " #"])


def test_the_controller_has_the_operators_dependencies_and_no_torch():
    extras = PROJECT["optional-dependencies"]
    assert named(PROJECT["dependencies"] + extras["operator"]) <= installed("controller")
    assert installed("controller").isdisjoint({"torch", "transformers", "rich"})


def test_the_trainer_has_the_trainers_dependencies_and_no_kubernetes():
    extras = PROJECT["optional-dependencies"]
    assert named(PROJECT["dependencies"] + extras["trainer"]) <= installed("trainer")
    assert installed("trainer").isdisjoint({"kopf", "kubernetes", "aiohttp", "pydantic"})


def labels(target: str) -> dict[str, str]:
    return dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', stage(target)))


@pytest.mark.parametrize("target", ["controller", "trainer"])
def test_an_image_says_what_it_is_and_of_which_commit(target):
    said = labels(target)
    assert said["title"] == f"fedtrain/{target}"
    assert said["licenses"] == PROJECT["license"]
    given = {name: f"${name.upper()}" for name in ("version", "revision", "created", "source")}
    assert given.items() <= said.items()
    for name in given:
        assert re.search(rf"^ARG {name.upper()}=", stage(target), re.M)
        makefile = (ROOT / "Makefile").read_text()
        assert f"--build-arg {name.upper()}=" in makefile
    # After all else: a label that changes with each commit must not make a layer anew.
    assert not re.search(r"^(RUN|COPY)", stage(target).partition("ARG VERSION")[2], re.M)


def test_the_tracker_has_a_name_of_its_own_and_the_controllers_other_labels():
    assert labels("tracker").keys() == {"title", "description"}
    assert labels("tracker")["title"] == "fedtrain/tracker"


def test_the_tracker_is_the_controller_with_the_clients_of_trackers():
    assert "\nFROM controller AS tracker\n" in DOCKERFILE
    assert named(PROJECT["optional-dependencies"]["tracking"]) <= installed("tracker")


def test_constraints_are_names_and_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pins)
    names = [normal(pin.partition("==")[0]) for pin in pins]
    assert len(names) == len(set(names))
    images = ("controller", "tracker", "trainer")
    assert set().union(*map(installed, images)) <= set(names)


def test_the_context_holds_only_what_is_copied():
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.M)
    assert all(any(c == one or c.startswith(f"{one}/") for c in copied) for one in allowed)
    for source in copied:
        assert any(source == one or source.startswith(f"{one}/") for one in allowed), source
