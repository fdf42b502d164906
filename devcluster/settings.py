"""Where things lie and which addresses they have; our variables are read only here."""

import dataclasses
import functools
import os
import pathlib

HERE = pathlib.Path(__file__).parent.absolute()

NAME = "fedtrain-dev"
"""The name of the node, of the cgroups and of the host's end of the link."""

# 100.64.0.0/10 is the space that carriers share: neither a private network nor a public host uses
# it, so that these routes hide nothing that a developer may want to reach.
HOST_ADDRESS = "100.90.0.1"
NODE_ADDRESS = "100.90.0.2"
LINK_PREFIX = 30
POD_CIDR = "100.91.0.0/16"
SERVICE_CIDR = "100.92.0.0/16"
KUBERNETES_ADDRESS = "100.92.0.1"
"""The first address of SERVICE_CIDR, which the API server gives to `kubernetes.default`."""

API_PORT = 6443
REGISTRY_ADDRESS = f"{NODE_ADDRESS}:5000"
REGISTRY_NAME = "registry.fedtrain.local:5000"
"""How pods spell the registry. No name server knows it: containerd's hosts.toml does."""
PAUSE_IMAGE = "fedtrain/pause:1"
CLUSTER_DOMAIN = "cluster.local"
MAX_PODS = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment decides."""

    state: pathlib.Path
    cache: pathlib.Path
    foreign_kubeconfig: pathlib.Path | None
    """KUBECONFIG of a cluster that is not ours; set, it makes `up` do nothing."""
    foreign_registry: str | None
    assets: pathlib.Path | None
    """KUBEBUILDER_ASSETS: etcd, kube-apiserver and kubectl built by somebody else."""
    kubernetes: str = ""
    """FEDTRAIN_KUBERNETES: another version than the usual, of those in go/, such as 1.34."""

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The admin's, which works from the host as well as inside the namespace."""
        return self.state / "admin.kubeconfig"

    @property
    def netns(self) -> pathlib.Path:
        """The network namespace: a file of ours, as /run/netns would stay mounted for ever."""
        return self.state / "netns"

    @property
    def logs(self) -> pathlib.Path:
        return self.state / "logs"

    @property
    def pki(self) -> pathlib.Path:
        return self.state / "pki"

    @property
    def config(self) -> pathlib.Path:
        return self.state / "config"

    @property
    def volumes(self) -> pathlib.Path:
        """Where the folders of dynamically provisioned volumes lie."""
        return self.state / "volumes"

    @property
    def containerd_socket(self) -> pathlib.Path:
        return self.state / "containerd" / "containerd.sock"


@functools.cache
def settings() -> Settings:
    """Read once: a process that changes its environment half-way gets no other cluster."""
    state = pathlib.Path(os.environ.get("FEDTRAIN_STATE") or "/var/tmp/fedtrain-dev").absolute()
    cache = os.environ.get("FEDTRAIN_CACHE") or pathlib.Path.home() / ".cache" / "fedtrain"
    kubeconfig = os.environ.get("KUBECONFIG") or None
    # `eval "$(python3 -m devcluster kubeconfig --export)"` leaves our own path in there.
    ours = kubeconfig is None or pathlib.Path(kubeconfig) == state / "admin.kubeconfig"
    assets = os.environ.get("KUBEBUILDER_ASSETS") or None
    return Settings(
        state=state,
        cache=pathlib.Path(cache).absolute(),
        foreign_kubeconfig=None if ours or kubeconfig is None else pathlib.Path(kubeconfig),
        foreign_registry=os.environ.get("FEDTRAIN_REGISTRY") or None,
        assets=pathlib.Path(assets).absolute() if assets else None,
        kubernetes=os.environ.get("FEDTRAIN_KUBERNETES") or "",
    )
