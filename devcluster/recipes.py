"""How each program is compiled, and what its cached binary is keyed by; values only.

Each folder of go/ is a module that names one family of programs as tools at exact versions. The
key covers go.mod, go.sum, the flags and the Go version, so that a second run is instant and a
changed version is a new folder of the cache.
"""

import dataclasses
import hashlib
import re

from devcluster import report


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """One program: the folder of go/ that pins it and how it is compiled."""

    family: str
    package: str
    tags: tuple[str, ...] = ()
    cgo: bool = False
    version_symbols: tuple[tuple[str, str], ...] = ()
    """(linker symbol, format of the version); without it Kubernetes reports a wrong version."""


def _kubernetes(command: str) -> Binary:
    symbols = tuple(
        (f"{package}.{symbol}", form)
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for symbol, form in (
            ("gitVersion", "v{major}.{minor}.{patch}"),
            ("gitMajor", "{major}"),
            ("gitMinor", "{minor}"),
        )
    )
    package = f"k8s.io/kubernetes/cmd/{command}"
    return Binary(family="kubernetes", package=package, version_symbols=symbols)


def _containerd(command: str) -> Binary:
    package = f"github.com/containerd/containerd/v2/cmd/{command}"
    tags = ("no_btrfs", "no_devmapper", "no_zfs", "no_aufs")
    return Binary(family="containerd", package=package, tags=tags)


BINARIES: dict[str, Binary] = {
    "etcd": Binary(family="etcd", package="go.etcd.io/etcd/server/v3"),
    "kube-apiserver": _kubernetes("kube-apiserver"),
    "kube-controller-manager": _kubernetes("kube-controller-manager"),
    "kube-scheduler": _kubernetes("kube-scheduler"),
    "kubelet": _kubernetes("kubelet"),
    "kubectl": _kubernetes("kubectl"),
    "containerd": _containerd("containerd"),
    "containerd-shim-runc-v2": _containerd("containerd-shim-runc-v2"),
    "ctr": _containerd("ctr"),
    "runc": Binary(
        family="runc", package="github.com/opencontainers/runc", tags=("seccomp",), cgo=True
    ),
    "kube-proxy": _kubernetes("kube-proxy"),
    "coredns": Binary(family="coredns", package="github.com/coredns/coredns"),
    "helm": Binary(
        family="helm",
        package="helm.sh/helm/v4/cmd/helm",
        version_symbols=(("helm.sh/helm/v4/internal/version.version", "v{major}.{minor}.{patch}"),),
    ),
    "kwok": Binary(family="kwok", package="sigs.k8s.io/kwok/cmd/kwok"),
}
"""Those that ``up`` wants first, in its order; kwok plays nodes for the operator's benchmark."""

FROM_ASSETS = ("etcd", "kube-apiserver", "kubectl")
"""What KUBEBUILDER_ASSETS holds by convention."""


def pinned_version(go_mod: str, package: str) -> tuple[int, int, int]:
    """The version at which a go.mod requires the module that the package lies in."""
    for module, *numbers in re.findall(
        r"^(?:require )?\s*(\S+) v(\d+)\.(\d+)\.(\d+)", go_mod, re.MULTILINE
    ):
        if package == module or package.startswith(f"{module}/"):
            major, minor, patch = (int(number) for number in numbers)
            return major, minor, patch
    raise report.DevclusterError(f"go.mod requires no module for {package}")


def build_arguments(binary: Binary, go_mod: str) -> list[str]:
    """The arguments of ``go`` up to the output; a pure function, as it is part of the key."""
    linker = ["-s", "-w"]
    if binary.version_symbols:
        major, minor, patch = pinned_version(go_mod, binary.package)
        for symbol, form in binary.version_symbols:
            linker += ["-X", f"{symbol}={form.format(major=major, minor=minor, patch=patch)}"]
    arguments = ["build", "-mod=readonly", "-buildvcs=false", "-trimpath"]
    if binary.tags:
        arguments += ["-tags", ",".join(binary.tags)]
    return [*arguments, "-ldflags", " ".join(linker)]


def cache_key(binary: Binary, *, go_mod: str, go_sum: str, go_version: str) -> str:
    """The same for all programs of a family; new whenever anything that shapes a binary is."""
    siblings = [other for other in BINARIES.values() if other.family == binary.family]
    digest = hashlib.sha256()
    for part in (
        go_mod,
        go_sum,
        go_version,
        *(f"{build_arguments(other, go_mod)} cgo={other.cgo}" for other in siblings),
    ):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:16]
