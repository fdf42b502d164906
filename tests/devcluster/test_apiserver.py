"""The API server that other tests build on."""

import json
import os
import pathlib
import subprocess
import typing

import pytest

from devcluster import apiserver, binaries

pytestmark = pytest.mark.apiserver

CRD: dict[str, typing.Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "probes.test.fedtrain.dev"},
    "spec": {
        "group": "test.fedtrain.dev",
        "scope": "Namespaced",
        "names": {"kind": "Probe", "plural": "probes"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}


def kubectl(kubeconfig: pathlib.Path, *words: str, stdin: str = "") -> str:
    command = [str(binaries.built("kubectl")), f"--kubeconfig={kubeconfig}", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, input=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


def processes_in(folder: pathlib.Path) -> list[str]:
    """The processes whose command line names the folder."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in entry.read_bytes():
                found.append(entry.parts[2])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_it_is_ready_and_serves_a_new_kind() -> None:
    with apiserver.api_server() as kubeconfig:
        assert kubectl(kubeconfig, "get", "--raw=/readyz") == "ok"
        kubectl(kubeconfig, "create", "-f", "-", stdin=json.dumps(CRD))
        established = ("--for=condition=Established", "--timeout=30s")
        kubectl(kubeconfig, "wait", "crd/probes.test.fedtrain.dev", *established)
        assert kubectl(kubeconfig, "get", "probes", "--output=name") == ""


def test_nothing_is_left_after_an_error_and_two_run_at_once() -> None:
    folders = []

    def fail_inside() -> None:
        with apiserver.api_server() as kubeconfig:
            folders.append(kubeconfig.parent)
            assert len(processes_in(kubeconfig.parent)) == 2
            raise ZeroDivisionError

    with apiserver.api_server() as other:
        with pytest.raises(ZeroDivisionError):
            fail_inside()
        assert not folders[0].exists()
        assert processes_in(folders[0]) == []
        assert kubectl(other, "get", "--raw=/readyz") == "ok"


def test_what_was_stored_is_there_when_both_were_killed_and_started_anew() -> None:
    with apiserver.server() as server:
        kubectl(server.kubeconfig, "create", "namespace", "kept")
        for name in ("kube-apiserver", "etcd"):
            server.processes.start(server.processes.kill(name))
        assert kubectl(server.kubeconfig, "get", "namespace", "kept", "--output=name") == (
            "namespace/kept\n"
        )
