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
_TRIES = 3
# The server refuses to advertise a loopback address; nobody ever connects to this one, which is
# reserved for documentation.
_ADVERTISED = "203.0.113.1"
_ETCD = "/health"
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """One of the two, and how to see that it is healthy."""

    command: list[str]
    port: int
    path: str

    @property
    def name(self) -> str:
        return pathlib.Path(self.command[0]).name


class Server:
    """The two processes. kubeconfig: of the admin."""

    def __init__(self, folder: pathlib.Path, kubeconfig: pathlib.Path) -> None:
        self.kubeconfig = kubeconfig
        self._folder = folder
        self._running: dict[str, tuple[_Program, subprocess.Popen[bytes]]] = {}

    def start(self, program: _Program) -> None:
        """Healthy when it returns. Raises DevclusterError."""
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
            lambda: api.healthy("127.0.0.1", program.port, program.path, tls=program.path != _ETCD),
            seconds=READY_LIMIT,
            log=log,
            alive=lambda: process.poll() is None,
        )

    def kill(self, name: str) -> _Program:
        """`etcd` or `kube-apiserver`, at once; what it had stored stays."""
        program, process = self._running.pop(name)
        _end(process)
        return program

    def end(self) -> None:
        for name in reversed(list(self._running)):
            self.kill(name)


@contextlib.contextmanager
def api_server() -> collections.abc.Iterator[pathlib.Path]:
    """Serve the Kubernetes API while the context lasts; the value is the admin's kubeconfig.

    Ready in about 5 s once the programs are built. Afterwards both processes and their folder are
    gone, on an exception too, and even if this process is killed: the kernel then ends them when
    the thread that entered the context is gone, so enter it from one that stays.
    """
    with server() as running:
        yield running.kubeconfig


@contextlib.contextmanager
def server() -> collections.abc.Iterator[Server]:
    """The same, for who wants to see it die: `start(kill("etcd"))` starts it anew on its data."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fedtrain-api-"))
    try:
        running = _start(folder)
        try:
            yield running
        finally:
            running.end()
    finally:
        shutil.rmtree(folder)


def _start(folder: pathlib.Path) -> Server:
    authority = pki.Authority(folder / "pki")
    authority.create()
    authority.issue("server", pki.Identity(user="kube-apiserver"), names=("localhost", "127.0.0.1"))
    authority.issue("admin", pki.Identity(user="admin", group="system:masters"))
    kubeconfig = folder / "admin.kubeconfig"
    for attempt in range(1, _TRIES + 1):
        etcd, peers, secure = _free_ports(3)
        running = Server(folder, kubeconfig)
        try:
            running.start(_etcd(folder, etcd, peers))
            running.start(_api_server(folder, etcd, secure))
        except BaseException as error:
            running.end()
            # Between our look and its start another test session may have taken a port.
            taken = isinstance(error, report.DevclusterError) and _port_was_taken(folder)
            if attempt == _TRIES or not taken:
                raise
            continue
        kubeconfig.write_text(authority.kubeconfig("admin", server=_url(secure)))
        return running
    raise AssertionError("the last attempt returns or raises")


def _url(port: int) -> str:
    return f"https://127.0.0.1:{port}"


def _etcd(folder: pathlib.Path, clients: int, peers: int) -> _Program:
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
    return _Program(command=command, port=clients, path=_ETCD)


def _api_server(folder: pathlib.Path, etcd: int, port: int) -> _Program:
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
    ]
    return _Program(command=command, port=port, path="/readyz")


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: there is nothing in there that anyone would want to keep."""
    if process.poll() is None:
        process.kill()
    process.wait(timeout=30)


def _free_ports(count: int) -> list[int]:
    """Different ports, free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _port_was_taken(folder: pathlib.Path) -> bool:
    return any("address already in use" in log.read_text() for log in folder.glob("*.log"))
