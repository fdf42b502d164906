"""What `down` does: every trace of a cluster goes, found by what it is, not by what it is called.

Processes go by their record, by their cgroup, by the socket they serve and by the namespace they
live in; mounts by the folder they lie under; the rest goes with the namespace and the folder.
"""

import json
import os
import pathlib
import shutil
import typing

from devcluster import cgroups, network, process, report, settings, shell

# The kubelet and containerd make these whatever they are told, and leave them behind.
OUTSIDE = tuple(
    pathlib.Path(path)
    for path in (
        "/run/containerd",
        "/run/nri",
        "/var/lib/cni",
        "/var/lib/kubelet",
        "/var/log/containers",
        "/var/log/pods",
    )
)
_BEFORE = "before.json"
# There is nothing to save: the whole state goes.
_PATIENCE = 1.0
# The kubelet sets these for the whole machine.
TUNABLES = tuple(
    pathlib.Path("/proc/sys") / name
    for name in (
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys",
        "kernel/keys/root_maxbytes",
    )
)


def remember(state: pathlib.Path) -> None:
    """Write down, once, what the machine looked like before; `down` goes back to that.

    The file is also what makes the folder ours to remove: any other is refused here.
    """
    file = state / _BEFORE
    if file.exists():
        return
    if state.exists() and any(state.iterdir()):
        raise report.DevclusterError(f"{state} holds something else; set FEDTRAIN_STATE anew")
    tunables = {str(path): path.read_text().strip() for path in TUNABLES if path.exists()}
    absent = [str(path) for path in OUTSIDE if not path.exists()]
    shell.write(file, json.dumps({"tunables": tunables, "absent": absent}))


def everything(current: settings.Settings) -> None:
    """Stop and remove all of it; harmless when there is nothing, or only half of it."""
    state = current.state
    records = [process.Record(file) for file in sorted((state / "pids").glob("*.json"))]
    # The kubelet first: it would start again what the next lines end.
    for name in ("kubelet", "provisioner", "kube-controller-manager"):
        process.Record(state / "pids" / f"{name}.json").stop(seconds=_PATIENCE)
    process.kill_all(cgroups.members, what="processes of pods")
    process.kill_all(lambda: shims(current.containerd_socket), what="containerd's shims")
    running = [record.running() for record in records]
    process.end([one for one in running if one is not None], seconds=_PATIENCE)
    process.kill_all(lambda: network.inhabitants(current.netns), what="processes in the namespace")
    unmount(state)
    cgroups.remove()
    network.remove(current.netns)
    if (state / _BEFORE).exists():
        _restore(json.loads((state / _BEFORE).read_text()))
        # A disk that discards what is deleted takes its time for unpacked images.
        with report.step(f"removing {state}"):
            shutil.rmtree(state)


def shims(socket: pathlib.Path) -> list[int]:
    """containerd's shims, one a pod, which outlive it on purpose; known by their socket."""
    found = []
    for pid in process.all_processes():
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        serves = os.fsencode(socket) in words
        if serves and words[0].endswith(b"containerd-shim-runc-v2") and process.identify(pid):
            found.append(pid)
    return found


def mounts(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is mounted under a folder, the latest first."""
    found = []
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        # The kernel writes a blank in a path as \040, and so on.
        where = pathlib.Path(line.split()[1].encode().decode("unicode_escape"))
        if where.is_relative_to(folder):
            found.append(where)
    return found[::-1]


def unmount(folder: pathlib.Path) -> None:
    """Unmount all of it; detach what is busy, since its users are dead and only the kernel lags."""
    for where in mounts(folder):
        try:
            shell.run("umount", where)
        except report.DevclusterError:
            shell.run("umount", "--lazy", where)


def _restore(before: dict[str, typing.Any]) -> None:
    for path, value in before["tunables"].items():
        tunable = pathlib.Path(path)
        if tunable.read_text().strip() != value:
            tunable.write_text(value)
    for path in before["absent"]:
        if pathlib.Path(path).exists():
            unmount(pathlib.Path(path))
            shutil.rmtree(path)
