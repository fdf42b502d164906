"""What a cached binary is keyed by."""

import pathlib

import pytest

from devcluster import binaries, recipes, report

MODULES = pathlib.Path(recipes.__file__).parent / "go"
GO_MOD = """module example

require go.etcd.io/etcd/server/v3 v3.6.16

require (
	k8s.io/kubernetes v1.37.2
	k8s.io/kubelet v0.37.2 // indirect
)
"""


def key(name: str, **changes: str) -> str:
    inputs = {"go_mod": GO_MOD, "go_sum": "sums", "go_version": "go1.26.8"} | changes
    return recipes.cache_key(recipes.BINARIES[name], **inputs)


def test_the_same_inputs_give_the_same_key() -> None:
    assert key("kubelet") == key("kubelet")


def test_programs_of_one_family_lie_in_one_folder() -> None:
    assert key("kubelet") == key("kube-proxy")


@pytest.mark.parametrize(
    "changes",
    [
        {"go_mod": GO_MOD.replace("v1.37.2", "v1.37.3")},
        {"go_mod": GO_MOD + "\n"},
        {"go_sum": "other sums"},
        {"go_version": "go1.26.9"},
        # The same characters, divided otherwise between two inputs.
        {"go_sum": "sum", "go_version": "sgo1.26.8"},
    ],
)
def test_a_change_of_any_input_gives_another_key(changes: dict[str, str]) -> None:
    assert key("kubelet", **changes) != key("kubelet")


def test_a_module_is_not_taken_for_another_whose_name_it_begins() -> None:
    assert recipes.pinned_version(GO_MOD, "k8s.io/kubernetes/cmd/kubelet") == (1, 37, 2)
    with pytest.raises(report.DevclusterError, match="requires no module"):
        recipes.pinned_version(GO_MOD, "k8s.io/kube")


@pytest.mark.parametrize("name", recipes.BINARIES)
def test_every_program_is_a_tool_of_its_module(name: str) -> None:
    binary = recipes.BINARIES[name]
    go_mod = (MODULES / binary.family / "go.mod").read_text()
    tools = {line.removeprefix("tool").strip() for line in go_mod.splitlines()}
    assert binary.package in tools
    assert recipes.pinned_version(go_mod, binary.package)


def test_kubernetes_is_told_its_version() -> None:
    arguments = recipes.build_arguments(recipes.BINARIES["kubelet"], GO_MOD)
    assert "k8s.io/component-base/version.gitVersion=v1.37.2" in arguments[-1]


@pytest.mark.parametrize(("name", "folder"), [("kubelet", "kubernetes-1.34"), ("etcd", "etcd")])
def test_another_version_of_kubernetes_is_another_module(name: str, folder: str) -> None:
    pins = binaries.module(recipes.BINARIES[name], "1.34")
    assert pins == MODULES / folder
    if name == "kubelet":
        package = recipes.BINARIES[name].package
        assert recipes.pinned_version((pins / "go.mod").read_text(), package)[:2] == (1, 34)


def test_a_version_of_kubernetes_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(report.DevclusterError, match=r"1\.12: no such version.*or use 1\.34"):
        binaries.module(recipes.BINARIES["kubelet"], "1.12")
