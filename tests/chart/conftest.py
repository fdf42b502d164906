"""Helm, and what the chart renders to."""

import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "charts" / "fedtrain"

Document = dict[str, Any]


class HelmError(Exception):
    """What helm said when it refused."""


@pytest.fixture(scope="session")
def helm_program() -> pathlib.Path:
    from devcluster import binaries

    program = binaries.path("helm")
    if not program.exists():
        pytest.skip("helm is not built yet: run `python3 -m devcluster binary helm` (2 minutes)")
    return program


@pytest.fixture(scope="session")
def helm(helm_program: pathlib.Path, tmp_path_factory) -> Callable[..., str]:
    """Helm as a user has it, with folders of its own; raises HelmError."""
    home = tmp_path_factory.mktemp("helm")
    folders = {f"HELM_{kind}_HOME": str(home / kind) for kind in ("CACHE", "CONFIG", "DATA")}

    def run(*words: str | pathlib.Path) -> str:
        result = subprocess.run(
            [helm_program, *words],
            capture_output=True,
            text=True,
            timeout=240,
            env=os.environ | folders,
        )
        if result.returncode:
            raise HelmError(result.stderr)
        return result.stdout

    return run


@pytest.fixture(scope="session")
def rendered(helm: Callable[..., str]) -> Callable[..., list[Document]]:
    """The documents that the chart renders to, with these values."""

    def run(values: Document | None = None) -> list[Document]:
        words = ["--namespace", "fedtrain-system"]
        if values:
            words += [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
        text = helm("template", "fedtrain", CHART, *words)
        # libyaml's, as the definitions are long.
        return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]

    return run


def only(documents: list[Document], kind: str, name: str = "fedtrain") -> Document:
    """The one of that kind and name."""
    (found,) = (d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)
    return found


@pytest.fixture(scope="session")
def kubeconfig(dev_cluster: None) -> pathlib.Path:
    from devcluster import cluster

    return cluster.kubeconfig()


@pytest.fixture(scope="session")
def image(kubeconfig: pathlib.Path) -> Iterator[str]:
    """The controller of this working tree, under a tag that never moves, as pods pull it."""
    from devcluster import images, shell

    built = "fedtrain/controller:test"
    images.build(images.Build(tag=built, context=ROOT, target="controller"))
    tag = f"fedtrain/controller:{shell.run('buildah', 'images', '--quiet', built).strip()}"
    shell.run("buildah", "tag", built, tag)
    yield images.load(tag)
    shell.run("buildah", "rmi", tag)
