"""What lies under the state before anything starts: certificates, kubeconfigs, configurations."""

from devcluster import binaries, configs, pki, settings, shell

API_URL = f"https://{settings.NODE_ADDRESS}:{settings.API_PORT}"

# A certificate each, with the names that upstream's bootstrap roles are bound to.
CLIENTS = {
    "admin": pki.Identity(user="admin", group="system:masters"),
    "kube-controller-manager": pki.Identity(user="system:kube-controller-manager"),
    "kube-scheduler": pki.Identity(user="system:kube-scheduler"),
    "kube-proxy": pki.Identity(user="system:kube-proxy"),
    "kubelet": pki.Identity(user=f"system:node:{settings.NAME}", group="system:nodes"),
    "coredns": pki.Identity(user="devcluster:coredns"),
    "provisioner": pki.Identity(user="devcluster:provisioner"),
}
SERVER_NAMES = (
    "localhost",
    "127.0.0.1",
    settings.NODE_ADDRESS,
    settings.KUBERNETES_ADDRESS,
    settings.NAME,
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{settings.CLUSTER_DOMAIN}",
)


def certify(current: settings.Settings) -> None:
    """Make the certificates that are missing, and the kubeconfigs that hold them."""
    authority = pki.Authority(current.pki)
    authority.create()
    authority.issue("server", pki.Identity(user=settings.NAME), names=SERVER_NAMES)
    authority.issue("front-proxy", pki.Identity(user="front-proxy"))
    for name, identity in CLIENTS.items():
        authority.issue(name, identity)
        # The admin's is the one that people look for, so it lies on top.
        folder = current.state if name == "admin" else current.config
        text = authority.kubeconfig(name, server=API_URL)
        shell.write(folder / f"{name}.kubeconfig", text, mode=0o600)


def configure(current: settings.Settings) -> None:
    """Write the components' configuration files; one that says so already is not touched."""
    state, config = current.state, current.config
    storage = current.cache / "registry"
    programs = {"runc": binaries.path("runc"), "shim": binaries.path("containerd-shim-runc-v2")}
    files = {
        "kubelet.json": configs.kubelet(state),
        "kube-proxy.json": configs.kube_proxy(state),
        "cni/10-fedtrain.conflist": configs.cni(state),
        "Corefile": configs.coredns(state),
        "registry.json": configs.registry(storage),
        "containerd.toml": configs.containerd(state, **programs),
        f"certs.d/{settings.REGISTRY_NAME}/hosts.toml": configs.registry_hosts(),
        "resolv.conf": "",
    }
    for name, text in files.items():
        shell.write(config / name, text)
