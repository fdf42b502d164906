"""Pod Security *restricted*, as its list stands (kubernetes.io/docs/concepts/security), in Python.

What the API server's own admission says is compared with it in `test_restricted`.
"""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
SECCOMP = ("RuntimeDefault", "Localhost")
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip


def offences(pod: Object) -> Iterator[str]:
    """What the standard forbids in a pod (metadata, spec), each in a word."""
    spec = pod["spec"]
    yield from _of_the_host(spec)
    for key, value in (pod["metadata"].get("annotations") or {}).items():
        own = value in ("", "runtime/default") or value.startswith("localhost/")
        if key.startswith(APPARMOR) and not own:
            yield "AppArmor"
    for volume in spec.get("volumes") or []:
        if not set(volume) - {"name"} <= VOLUMES:
            yield "volume types"
    own = spec.get("securityContext") or {}
    yield from _of_a_context(own)
    for sysctl in own.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield "sysctls"
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            yield from _of_a_container(container, own)


def _of_the_host(spec: Object) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field


def _of_a_context(context: Object) -> Iterator[str]:
    """What is forbidden in the pod's as in a container's."""
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess"
    selinux = context.get("seLinuxOptions") or {}
    types = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
    if selinux.get("user") or selinux.get("role") or selinux.get("type", "") not in types:
        yield "SELinux"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield "AppArmor"


def _of_a_container(container: Object, pod: Object) -> Iterator[str]:
    own = container.get("securityContext") or {}
    yield from _of_a_context(own)
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities"
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if own.get("procMount") not in (None, "Default"):
        yield "procMount"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot"
    seccomp = own.get("seccompProfile") or pod.get("seccompProfile") or {}
    if seccomp.get("type") not in SECCOMP:
        yield "seccomp"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield "hostPort"
