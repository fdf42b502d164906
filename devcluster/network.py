"""The network namespace and its link to the host.

Inside it the host's network does not exist: iptables and nftables rules, routes and listening
ports of the cluster all go away with the namespace. On the host there are one end of a veth pair
and two routes over it, which go away with the pair.
"""

import pathlib

from devcluster import settings, shell

LINK = settings.NAME
PEER = "eth0"


def entering(netns: pathlib.Path) -> tuple[str, ...]:
    """The words to put before a command; not `ip netns exec`, whose fresh /sys hides cgroups."""
    return ("nsenter", f"--net={netns}", "--")


def create(netns: pathlib.Path) -> None:
    """Make namespace, link and routes; what is there already is kept."""
    if not _exists(netns):
        netns.touch()
        shell.run("unshare", f"--net={netns}", "true")
    if not (pathlib.Path("/sys/class/net") / LINK).exists():
        pair = ("type", "veth", "peer", "name", PEER, "netns", netns)
        shell.run("ip", "link", "add", LINK, *pair)
    prefix = settings.LINK_PREFIX
    shell.run("ip", "address", "replace", f"{settings.HOST_ADDRESS}/{prefix}", "dev", LINK)
    shell.run("ip", "link", "set", LINK, "up")
    inside = entering(netns)
    address = f"{settings.NODE_ADDRESS}/{prefix}"
    shell.run(*inside, "ip", "link", "set", "lo", "up")
    shell.run(*inside, "ip", "address", "replace", address, "dev", PEER)
    shell.run(*inside, "ip", "link", "set", PEER, "up")
    # Some components look for the interface of the default route to learn their own address.
    shell.run(*inside, "ip", "route", "replace", "default", "via", settings.HOST_ADDRESS)
    shell.run(*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    for network in (settings.POD_CIDR, settings.SERVICE_CIDR):
        shell.run("ip", "route", "replace", network, "via", settings.NODE_ADDRESS, "dev", LINK)


def remove(netns: pathlib.Path) -> None:
    """Take the link down, and the routes with it; the namespace is unmounted with the state."""
    if (pathlib.Path("/sys/class/net") / LINK).exists():
        shell.run("ip", "link", "delete", LINK)
    if _exists(netns):
        shell.run("umount", netns)
    netns.unlink(missing_ok=True)


def inhabitants(netns: pathlib.Path) -> list[int]:
    """The processes in the namespace, all of which are the cluster's by construction."""
    if not _exists(netns):
        return []
    ours = netns.stat().st_ino
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if entry.stat().st_ino == ours:
                found.append(int(entry.parts[2]))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def _exists(netns: pathlib.Path) -> bool:
    """Whether a namespace is mounted on the file (pathlib's is_mount knows folders only)."""
    return netns.exists() and netns.stat().st_dev != netns.parent.stat().st_dev
