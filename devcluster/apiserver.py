"""An API server for tests: etcd and kube-apiserver on free ports of this host, and nothing else.

No node, no scheduler, no controllers: objects are stored, validated, authorized and watched, and
nothing happens to them. Needs neither root nor the cluster of `up`, and any number may run at once.
"""

import collections.abc
import contextlib
import pathlib
import shutil
import socket
import subprocess
import tempfile

from devcluster import api, binaries, components, pki, report, shell

READY_LIMIT = 60.0
_TRIES = 3
# The server refuses to advertise a loopback address; nobody ever connects to this one, which is
# reserved for documentation.
_ADVERTISED = "203.0.113.1"
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@contextlib.contextmanager
def api_server(*flags: str) -> collections.abc.Iterator[pathlib.Path]:
    """Serve the Kubernetes API while the context lasts; the value is the admin's kubeconfig.

    flags: more of kube-apiserver's. Ready in about 5 s once the programs are built. Afterwards both
    processes and their folder are gone, on an exception too, and even if this process is killed:
    the kernel then ends them when the thread that entered the context is gone, so enter it from one
    that stays.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fedtrain-api-"))
    try:
        with contextlib.ExitStack() as processes:
            yield _start(folder, processes, flags)
    finally:
        shutil.rmtree(folder)


def _start(
    folder: pathlib.Path, processes: contextlib.ExitStack, flags: collections.abc.Sequence[str]
) -> pathlib.Path:
    authority = pki.Authority(folder / "pki")
    authority.create()
    authority.issue("server", pki.Identity(user="kube-apiserver"), names=("localhost", "127.0.0.1"))
    authority.issue("admin", pki.Identity(user="admin", group="system:masters"))
    for attempt in range(1, _TRIES + 1):
        with contextlib.ExitStack() as attempted:
            etcd, peers, secure = free_ports(3)
            try:
                start(_etcd(folder, etcd, peers), folder, etcd, "/health", attempted)
                command = [*_api_server(folder, etcd, secure), *flags]
                start(command, folder, secure, "/readyz", attempted)
            except report.DevclusterError:
                # Between our look and its start another test session may have taken a port.
                if attempt == _TRIES or not _port_was_taken(folder):
                    raise
                continue
            kubeconfig = folder / "admin.kubeconfig"
            kubeconfig.write_text(authority.kubeconfig("admin", server=_url(secure)))
            processes.push(attempted.pop_all())
            return kubeconfig
    raise AssertionError("the last attempt returns or raises")


def _url(port: int) -> str:
    return f"https://127.0.0.1:{port}"


def _etcd(folder: pathlib.Path, clients: int, peers: int) -> list[str]:
    own = f"http://127.0.0.1:{peers}"
    return [
        str(binaries.built("etcd")),
        f"--data-dir={folder}/etcd",
        f"--listen-client-urls=http://127.0.0.1:{clients}",
        f"--advertise-client-urls=http://127.0.0.1:{clients}",
        f"--listen-peer-urls={own}",
        f"--initial-advertise-peer-urls={own}",
        f"--initial-cluster=default={own}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server(folder: pathlib.Path, etcd: int, port: int) -> list[str]:
    return [
        str(binaries.built("kube-apiserver")),
        *components.api_server_flags(folder / "pki"),
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--advertise-address={_ADVERTISED}",
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        # No controller makes the accounts that this plugin would ask of every pod.
        "--disable-admission-plugins=ServiceAccount",
    ]


def start(
    command: collections.abc.Sequence[str],
    folder: pathlib.Path,
    port: int,
    path: str,
    processes: contextlib.ExitStack,
    *,
    tls: bool | None = None,
) -> int:
    """Start a process, have the stack end it, and wait until it is healthy; the value is its pid.

    Its log is `<program>.log` in the folder. tls: of its health; None for all but etcd's.
    """
    name = pathlib.Path(command[0]).name
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*_DIE_WITH_PARENT, *command] if shell.has("setpriv") else command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    processes.callback(_end, process)
    report.wait_for(
        name,
        lambda: api.healthy("127.0.0.1", port, path, tls=name != "etcd" if tls is None else tls),
        seconds=READY_LIMIT,
        log=log,
        alive=lambda: process.poll() is None,
    )
    return process.pid


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: there is nothing in there that anyone would want to keep."""
    if process.poll() is None:
        process.kill()
    process.wait(timeout=30)


def free_ports(count: int) -> list[int]:
    """Different ports, free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _port_was_taken(folder: pathlib.Path) -> bool:
    return any("address already in use" in log.read_text() for log in folder.glob("*.log"))
