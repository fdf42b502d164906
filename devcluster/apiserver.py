"""An API server for tests: etcd and kube-apiserver on free ports of this host, and nothing else.

No node, no scheduler, no controllers: objects are stored, validated, authorized and watched, and
nothing happens to them. Needs neither root nor the cluster of `up`, and any number may run at once.
"""

import collections.abc
import contextlib
import dataclasses
import pathlib
import shutil
import socket
import subprocess
import tempfile

from devcluster import api, binaries, components, pki, report, shell

READY_LIMIT = 60.0
POD_GROUPS = (
    "--feature-gates=GenericWorkload=true",
    "--runtime-config=scheduling.k8s.io/v1beta1=true",
)
"""Flags of an API server that serves gang scheduling, which is off by default in 1.37."""
_TRIES = 3
# The server refuses to advertise a loopback address; nobody ever connects to this one, which is
# reserved for documentation.
_ADVERTISED = "203.0.113.1"
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process, and how to see that it is healthy."""

    command: list[str]
    port: int
    path: str
    tls: bool = True

    @property
    def name(self) -> str:
        return pathlib.Path(self.command[0]).name


class Processes:
    """Programs that run until `end`, each with a log of its name in the folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._running: dict[str, tuple[Program, subprocess.Popen[bytes]]] = {}

    def start(self, program: Program) -> int:
        """Its pid, once it is healthy. Raises DevclusterError."""
        log = self._folder / f"{program.name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*_DIE_WITH_PARENT, *program.command] if shell.has("setpriv") else program.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running[program.name] = program, process
        report.wait_for(
            program.name,
            lambda: api.healthy("127.0.0.1", program.port, program.path, tls=program.tls),
            seconds=READY_LIMIT,
            log=log,
            alive=lambda: process.poll() is None,
        )
        return process.pid

    def kill(self, name: str) -> Program:
        """At once; what it had stored stays."""
        program, process = self._running.pop(name)
        _end(process)
        return program

    def end(self) -> None:
        for name in reversed(list(self._running)):
            self.kill(name)


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """kubeconfig: the admin's. processes: `etcd` and `kube-apiserver`."""

    kubeconfig: pathlib.Path
    processes: Processes


@contextlib.contextmanager
def api_server(*flags: str) -> collections.abc.Iterator[pathlib.Path]:
    """Serve the Kubernetes API while the context lasts; the value is the admin's kubeconfig.

    flags: more of kube-apiserver's. Ready in about 5 s once the programs are built. Afterwards both
    processes and their folder are gone, on an exception too, and even if this process is killed:
    the kernel then ends them when the thread that entered the context is gone, so enter it from one
    that stays.
    """
    with server(*flags) as running:
        yield running.kubeconfig


@contextlib.contextmanager
def server(*flags: str) -> collections.abc.Iterator[Server]:
    """The same, for who wants to see it die: what was killed starts anew on its data."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fedtrain-api-"))
    processes = Processes(folder)
    try:
        yield Server(_start(folder, processes, flags), processes)
    finally:
        processes.end()
        shutil.rmtree(folder)


def _start(
    folder: pathlib.Path, processes: Processes, flags: collections.abc.Sequence[str]
) -> pathlib.Path:
    authority = pki.Authority(folder / "pki")
    authority.create()
    authority.issue("server", pki.Identity(user="kube-apiserver"), names=("localhost", "127.0.0.1"))
    authority.issue("admin", pki.Identity(user="admin", group="system:masters"))
    kubeconfig = folder / "admin.kubeconfig"
    for attempt in range(1, _TRIES + 1):
        etcd, peers, secure = free_ports(3)
        try:
            processes.start(_etcd(folder, etcd, peers))
            processes.start(_api_server(folder, etcd, secure, flags))
        except report.DevclusterError:
            processes.end()
            # Between our look and its start another test session may have taken a port.
            if attempt == _TRIES or not _port_was_taken(folder):
                raise
            continue
        kubeconfig.write_text(authority.kubeconfig("admin", server=_url(secure)))
        return kubeconfig
    raise AssertionError("the last attempt returns or raises")


def _url(port: int) -> str:
    return f"https://127.0.0.1:{port}"


def _etcd(folder: pathlib.Path, clients: int, peers: int) -> Program:
    own = f"http://127.0.0.1:{peers}"
    command = [
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
    return Program(command=command, port=clients, path="/health", tls=False)


def _api_server(
    folder: pathlib.Path, etcd: int, port: int, flags: collections.abc.Sequence[str]
) -> Program:
    command = [
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
        *flags,
    ]
    return Program(command=command, port=port, path="/readyz")


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
