"""A control plane whose nodes and pods are played: real controllers and scheduler, and kwok.

For thousands of Jobs on a laptop: the API server of `apiserver`, kube-controller-manager with the
Job controller, the garbage collector and the binder of volumes, kube-scheduler, and kwok, which
writes what kubelets would have written, as its stages say. Needs neither root nor the cluster of
`up`.
"""

import collections.abc
import contextlib
import dataclasses
import json
import pathlib

from devcluster import apiserver, binaries

CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "persistentvolume-binder-controller",
    "namespace-controller",
    "resourcequota-controller",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """kubeconfig: the admin's. audit: what the API server was asked, a line of JSON each.

    pids: of the programs, by name.
    """

    kubeconfig: pathlib.Path
    audit: pathlib.Path
    pids: collections.abc.Mapping[str, int]


@contextlib.contextmanager
def control_plane(
    stages: collections.abc.Iterable[collections.abc.Mapping[str, object]],
    audit: collections.abc.Mapping[str, object],
    folder: pathlib.Path,
    gangs: bool = False,
) -> collections.abc.Iterator[Played]:
    """Run it while the context lasts; ready in about 10 s once the programs are built.

    stages: of kwok, all of them, as none is there by default; none at all: pods are placed, and no
    kubelet is played. audit: the API server's policy. folder: for the audit log and the programs'
    own. gangs: with gang scheduling, which is off by default.
    """
    stages = list(stages)
    log, policy = folder / "audit.log", folder / "audit-policy.json"
    policy.write_text(json.dumps(audit))
    flags = (
        f"--audit-policy-file={policy}",
        f"--audit-log-path={log}",
        "--audit-log-mode=blocking",
        # All controllers are one user here, and are not to be held back for that.
        "--enable-priority-and-fairness=false",
        *(apiserver.POD_GROUPS if gangs else ()),
    )
    with apiserver.api_server(*flags) as kubeconfig:
        processes = apiserver.Processes(folder)
        try:
            programs = _programs(kubeconfig, stages, folder, gangs)
            pids = {program.name: processes.start(program) for program in programs}
            yield Played(kubeconfig=kubeconfig, audit=log, pids=pids)
        finally:
            processes.end()


def _programs(
    kubeconfig: pathlib.Path,
    stages: collections.abc.Iterable[collections.abc.Mapping[str, object]],
    folder: pathlib.Path,
    gangs: bool,
) -> collections.abc.Iterator[apiserver.Program]:
    manager, scheduler, kwok = apiserver.free_ports(3)
    pki = kubeconfig.parent / "pki"
    tls = (f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key")
    client = (
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
        *(apiserver.POD_GROUPS[:1] if gangs else ()),
    )
    command = [
        *(str(binaries.built("kube-controller-manager")), *client, *tls),
        f"--secure-port={manager}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--concurrent-job-syncs=10",
    ]
    yield apiserver.Program(command=command, port=manager, path="/healthz")
    command = [str(binaries.built("kube-scheduler")), *client, *tls, f"--secure-port={scheduler}"]
    yield apiserver.Program(command=command, port=scheduler, path="/healthz")
    if not stages:
        return
    config = folder / "kwok.yaml"
    config.write_text("\n---\n".join(json.dumps(stage) for stage in stages))
    command = [
        *(str(binaries.built("kwok")), f"--kubeconfig={kubeconfig}", f"--config={config}"),
        *("--manage-all-nodes=true", f"--server-address=127.0.0.1:{kwok}"),
        # Nobody evicts here, so nobody needs to hear of the nodes every few seconds.
        "--node-lease-duration-seconds=0",
    ]
    yield apiserver.Program(command=command, port=kwok, path="/healthz", tls=False)
