"""The Debian packages that cluster and images need, installed only where they are missing."""

import os
import pathlib
import shutil

from devcluster import report, shell

# What each package is known by on the machine: a program, or a file when it has none.
NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
    "docker-registry": "docker-registry",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "iproute2": "ip",
    "iptables": "iptables",
    "nftables": "nft",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdio.h",
    "libseccomp-dev": "/usr/include/seccomp.h",
    "pkg-config": "pkg-config",
    "prometheus": "promtool",
    "chromium": "chromium",
}
SERVICES = ("docker-registry", "prometheus", "prometheus-node-exporter")


def _present(mark: str) -> bool:
    return pathlib.Path(mark).exists() if mark.startswith("/") else shell.has(mark)


def extend_path() -> None:
    """Find the programs of administrators too: an ordinary user's PATH, kept by sudo, has none."""
    path = os.environ.get("PATH", "").split(":")
    missing = [f for f in ("/usr/local/sbin", "/usr/sbin", "/sbin") if f not in path]
    os.environ["PATH"] = ":".join(path + missing)


def ensure() -> None:
    """Install what is missing, and let none of it run as a service of the machine."""
    extend_path()
    missing = [package for package, mark in NEEDED.items() if not _present(mark)]
    if not missing:
        return
    if not shell.has("apt-get"):
        raise report.DevclusterError(f"install the equivalents of {', '.join(missing)} first")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with report.step(f"installing {', '.join(missing)}"):
        shell.run("apt-get", "update", seconds=300, environment=environment)
        command = ("apt-get", "install", "-y", "--no-install-recommends", *missing)
        shell.run(*command, seconds=900, environment=environment)
    if pathlib.Path("/run/systemd/system").exists() and shutil.which("systemctl"):
        # A service that Debian starts on installation would hold the ports and the memory.
        for service in SERVICES:
            if pathlib.Path(f"/lib/systemd/system/{service}.service").exists():
                shell.run("systemctl", "disable", "--now", service)
