"""What runs: the command of each component, what it is made from, and when it is ready."""

import collections.abc
import dataclasses
import hashlib
import pathlib
import socket

from devcluster import api, binaries, report, settings

NODE = settings.NODE_ADDRESS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One process in the namespace."""

    name: str
    command: tuple[str, ...]
    ready: report.Ready
    inputs: tuple[pathlib.Path, ...] = ()
    """Files it reads at its start: when one changes, `up` starts the component again."""

    @property
    def fingerprint(self) -> str:
        """Changes with the command, the version of the program and the inputs."""
        digest = hashlib.sha256("\0".join(self.command).encode())
        for path in self.inputs:
            digest.update(path.read_bytes() if path.exists() else b"")
        return digest.hexdigest()


def server(authority_folder: pathlib.Path) -> api.Server:
    """The API server as its admin sees it."""
    pki = authority_folder
    admin = (pki / "ca.crt", pki / "admin.crt", pki / "admin.key")
    return api.Server(NODE, settings.API_PORT, *admin)


def all_components(current: settings.Settings) -> tuple[tuple[Component, ...], ...]:
    """The stages of `up`: those of one stage start together, once the stage before is ready."""
    state, config = current.state, current.config
    return (
        (_etcd(state), _registry(config), _containerd(current)),
        (_api_server(current.pki),),
        (
            _controller_manager(current),
            _scheduler(config),
            _provisioner(current),
            _coredns(config),
            _kube_proxy(config),
            _kubelet(current),
        ),
    )


def _program(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(binaries.path(name)), *arguments)


def _probe(port: int, path: str, *, tls: bool = False) -> collections.abc.Callable[[], bool]:
    return lambda: api.healthy(NODE, port, path, tls=tls)


def _etcd(state: pathlib.Path) -> Component:
    command = _program(
        "etcd",
        f"--data-dir={state}/etcd",
        f"--listen-metrics-urls=http://{NODE}:2381",
        # Durable over a restart of etcd, not over a crash of the machine: this is no data to keep.
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return Component(name="etcd", command=command, ready=_probe(2381, "/health"))


def _registry(config: pathlib.Path) -> Component:
    file = config / "registry.json"
    command = ("/usr/bin/docker-registry", "serve", str(file))
    return Component(name="registry", command=command, inputs=(file,), ready=_probe(5000, "/v2/"))


def _containerd(current: settings.Settings) -> Component:
    file = current.config / "containerd.toml"

    def listening() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(current.containerd_socket)) == 0

    command = _program("containerd", f"--config={file}", "--log-level=warn")
    return Component(name="containerd", command=command, inputs=(file,), ready=listening)


def api_server_flags(pki: pathlib.Path) -> tuple[str, ...]:
    """What a test's API server (apiserver.py) has in common with the cluster's."""
    return (
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/server.crt",
        f"--tls-private-key-file={pki}/server.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{settings.CLUSTER_DOMAIN}",
        f"--service-account-key-file={pki}/accounts.crt",
        f"--service-account-signing-key-file={pki}/accounts.key",
        f"--service-cluster-ip-range={settings.SERVICE_CIDR}",
        "--profiling=false",
    )


def _api_server(pki: pathlib.Path) -> Component:
    command = _program(
        "kube-apiserver",
        *api_server_flags(pki),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--secure-port={settings.API_PORT}",
        # For API servers behind this one, and so that the other components find no gap.
        f"--requestheader-client-ca-file={pki}/ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        f"--advertise-address={NODE}",
        "--authorization-mode=Node,RBAC",
        # Pod Security admission is among the plugins that are on by default.
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/admin.crt",
        f"--kubelet-client-key={pki}/admin.key",
        # Else `kubectl logs` waits for a name of the node that no name server knows.
        "--kubelet-preferred-address-types=InternalIP",
    )
    files = (pki / "ca.crt", pki / "server.crt")
    ready = _probe(settings.API_PORT, "/readyz", tls=True)
    return Component(name="kube-apiserver", command=command, inputs=files, ready=ready)


def _controller_manager(current: settings.Settings) -> Component:
    pki, kubeconfig = current.pki, current.config / "kube-controller-manager.kubeconfig"
    command = _program(
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--tls-cert-file={pki}/server.crt",
        f"--tls-private-key-file={pki}/server.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/accounts.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--kube-api-qps=100",
        "--kube-api-burst=200",
    )
    return Component(
        name="kube-controller-manager", command=command, ready=_probe(10257, "/healthz", tls=True)
    )


def _scheduler(config: pathlib.Path) -> Component:
    kubeconfig = config / "kube-scheduler.kubeconfig"
    command = _program(
        "kube-scheduler",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--tls-cert-file={config.parent}/pki/server.crt",
        f"--tls-private-key-file={config.parent}/pki/server.key",
        "--leader-elect=false",
    )
    ready = _probe(10259, "/healthz", tls=True)
    return Component(name="kube-scheduler", command=command, ready=ready)


def _provisioner(current: settings.Settings) -> Component:
    return Component(
        name="provisioner",
        # By its path, as the process outlives the folder it was started from only this way.
        command=(
            *("/usr/bin/env", f"PYTHONPATH={settings.HERE.parent}", "python3", "-u"),
            *("-m", "devcluster.provisioner", str(current.pki), str(current.volumes)),
        ),
        inputs=tuple(settings.HERE / name for name in ("provisioner.py", "api.py")),
        ready=(current.volumes / ".ready").exists,
    )


def _coredns(config: pathlib.Path) -> Component:
    file = config / "Corefile"
    command = _program("coredns", "-conf", str(file), "-quiet")
    return Component(name="coredns", command=command, inputs=(file,), ready=_probe(8181, "/ready"))


def _kube_proxy(config: pathlib.Path) -> Component:
    file = config / "kube-proxy.json"
    command = _program("kube-proxy", f"--config={file}")
    return Component(
        name="kube-proxy", command=command, inputs=(file,), ready=_probe(10256, "/healthz")
    )


def _kubelet(current: settings.Settings) -> Component:
    file = current.config / "kubelet.json"
    command = _program(
        "kubelet",
        f"--config={file}",
        f"--kubeconfig={current.config}/kubelet.kubeconfig",
        f"--root-dir={current.state}/kubelet",
        f"--cert-dir={current.state}/kubelet/pki",
        f"--hostname-override={settings.NAME}",
        f"--node-ip={NODE}",
    )

    def ready() -> bool:
        try:
            node = server(current.pki).request("GET", f"/api/v1/nodes/{settings.NAME}")
        except (api.ApiError, *api.UNREACHABLE):
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    return Component(name="kubelet", command=command, inputs=(file,), ready=ready)
