"""The components' configurations, and what an image is called where."""

import ipaddress
import itertools
import json
import pathlib
import tomllib
import typing

from devcluster import configs, images, provisioner, settings

STATE = pathlib.Path("/state")


def paths_in(document: typing.Any) -> list[str]:
    """All absolute paths that a parsed configuration names."""
    if isinstance(document, dict):
        return [path for value in document.values() for path in paths_in(value)]
    if isinstance(document, list):
        return [path for value in document for path in paths_in(value)]
    text = str(document).removeprefix("unix://")
    return [text] if text.startswith("/") else []


def test_containerd_keeps_everything_under_the_state() -> None:
    binaries = {"runc": pathlib.Path("/bin/runc"), "shim": pathlib.Path("/bin/shim")}
    config = tomllib.loads(configs.containerd(STATE, **binaries))
    outside = {path for path in paths_in(config) if not path.startswith("/state/")}
    assert outside == {"/bin/runc", "/bin/shim", "/usr/lib/cni", "/opt/cni/bin"}


def test_the_kubelet_keeps_everything_under_the_state() -> None:
    config = json.loads(configs.kubelet(STATE))
    outside = {path for path in paths_in(config) if not path.startswith("/state/")}
    assert outside == {config["cgroupRoot"]}


def test_thirty_pods_have_room() -> None:
    assert json.loads(configs.kubelet(STATE))["maxPods"] >= 40


def test_networks_do_not_overlap() -> None:
    link = ipaddress.ip_network(f"{settings.HOST_ADDRESS}/{settings.LINK_PREFIX}", strict=False)
    pods = ipaddress.ip_network(settings.POD_CIDR)
    services = ipaddress.ip_network(settings.SERVICE_CIDR)
    for one, other in itertools.combinations((link, pods, services), 2):
        assert not one.overlaps(other)
    assert ipaddress.ip_address(settings.NODE_ADDRESS) in link
    assert str(services[1]) == settings.KUBERNETES_ADDRESS


def test_an_image_is_called_the_same_however_it_is_spelt() -> None:
    for spelling in (
        "fedtrain/controller:dev",
        "localhost/fedtrain/controller:dev",
        "registry.fedtrain.local:5000/fedtrain/controller:dev",
    ):
        assert images.repository(spelling) == "fedtrain/controller:dev"
    assert images.repository("fedtrain/controller") == "fedtrain/controller:latest"


def test_pip_in_a_build_takes_over_what_reaches_the_index() -> None:
    environment = {"PIP_CERT": "/certs", "PIP_FIND_LINKS": "/wheels", "PIP_DEFAULT_TIMEOUT": "9"}
    lines = images.pip_configuration(environment).splitlines()
    assert {"cert = /certs", "timeout = 9"} <= set(lines)
    assert not any("wheels" in line for line in lines)


def test_a_volume_is_bound_to_its_claim_beforehand() -> None:
    claim = {
        "metadata": {
            "name": "work",
            "namespace": "team",
            "uid": "1-2",
            "annotations": {"volume.kubernetes.io/storage-provisioner": provisioner.NAME},
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "standard",
        },
    }
    assert provisioner.is_wanted(claim)
    volume = provisioner.volume_for(claim, STATE)
    assert volume["metadata"]["name"] == "pvc-1-2"
    assert volume["spec"]["claimRef"]["uid"] == "1-2"
    assert volume["spec"]["hostPath"]["path"] == "/state/team_work_pvc-1-2"
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]


def test_only_a_released_volume_of_ours_goes() -> None:
    volume = {
        "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": provisioner.NAME}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"},
        "status": {"phase": "Released"},
    }
    assert provisioner.is_over(volume)
    assert not provisioner.is_over(volume | {"status": {"phase": "Bound"}})
    assert not provisioner.is_over(volume | {"metadata": {}})
    assert not provisioner.is_over(volume | {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
