"""The commands of helm that pages show are taken by helm, with this chart."""

import shlex
from collections.abc import Callable

import pytest

from tests.chart.conftest import ROOT
from tests.docs.conftest import DOCS, commands

PAGES = (ROOT / "README.md", DOCS / "tutorial" / "cluster.md", *sorted(DOCS.glob("how-to/*.md")))
ONLY_ONLINE = ("--create-namespace", "--reuse-values")
COMMANDS = [c for page in PAGES for c in commands(page) if c.startswith("helm ")]


def test_there_are_some() -> None:
    assert len(COMMANDS) > 4


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_helm_renders_the_operator(command: str, helm: Callable[..., str]) -> None:
    """`helm template` takes what `install` and `upgrade` take, and needs no cluster."""
    _, verb, release, chart, *rest = shlex.split(command)
    assert verb in ("install", "upgrade")
    options = [word for word in rest if word not in ONLY_ONLINE]
    assert "kind: Deployment" in helm("template", release, ROOT / chart, *options)
