"""The cgroups that the kubelet puts pods under: one folder in each hierarchy of the machine."""

import pathlib

from devcluster import settings

ROOT = pathlib.Path("/sys/fs/cgroup")


def hierarchies() -> list[pathlib.Path]:
    """The mount points of cgroup v1 hierarchies and of the v2 one, as this machine has them."""
    found = []
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            found.append(pathlib.Path(where))
    return found


def create() -> None:
    """Make the kubelet's root everywhere: it refuses to start when one is missing."""
    for hierarchy in hierarchies():
        group = hierarchy / settings.NAME
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # A v1 cpuset begins empty, and then no process can be put into it.
            inherited = hierarchy / name
            if inherited.exists() and not (group / name).read_text().strip():
                (group / name).write_text(inherited.read_text())


def members() -> list[int]:
    """The processes of all pods."""
    pids: set[int] = set()
    for group in _groups():
        try:
            pids.update(int(pid) for pid in (group / "cgroup.procs").read_text().split())
        except (FileNotFoundError, OSError):
            continue
    return sorted(pids)


def remove() -> None:
    """Remove ours, children first; they must be empty of processes."""
    for group in _groups():
        group.rmdir()


def _groups() -> list[pathlib.Path]:
    """Ours in every hierarchy, the deepest first."""
    found = []
    for hierarchy in hierarchies():
        root = hierarchy / settings.NAME
        if root.exists():
            found += [path for path in root.rglob("*") if path.is_dir()] + [root]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)
