"""Images: built without a container engine, pushed to the cluster's registry, layer by layer."""

import collections.abc
import dataclasses
import hashlib
import os
import pathlib
import tempfile

from devcluster import report, settings, shell

# No documentation in the base: it is a quarter of its size and nobody reads it in a container.
_BASE_OPTIONS = (
    "--variant=minbase",
    "--include=python3,python3-venv,python3-pip,ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
_BASE_SUITE = "bookworm"
# To a registry buildah always compresses; this costs two thirds of the time that gzip takes.
_FAST = ("--compression-format", "zstd", "--compression-level", "1")
_CERTIFICATES = pathlib.Path("/etc/ssl/certs")
_PIP_CACHE = "/var/cache/pip"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What `build` is asked for."""

    tag: str
    context: pathlib.Path
    file: pathlib.Path | None = None
    target: str | None = None
    arguments: tuple[str, ...] = ()


def repository(image: str) -> str:
    """An image's name without a registry and with a tag: `fedtrain/controller:dev`."""
    for prefix in ("localhost/", f"{settings.REGISTRY_NAME}/"):
        image = image.removeprefix(prefix)
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def pullable(image: str) -> str:
    """The name by which pods pull an image that was loaded."""
    registry = settings.settings().foreign_registry or settings.REGISTRY_NAME
    return f"{registry}/{repository(image)}"


def load(image: str) -> str:
    """Push an image that buildah has; return the name by which pods pull it.

    Layers that the registry has are not moved again.
    """
    current = settings.settings()
    if current.foreign_kubeconfig is not None and current.foreign_registry is None:
        raise report.DevclusterError(
            "KUBECONFIG names a cluster of yours; set FEDTRAIN_REGISTRY to the registry that it "
            "pulls from and that buildah may push to"
        )
    name = pullable(image)
    with report.step(f"pushing {name}"):
        if current.foreign_registry is not None:
            shell.run("buildah", "push", image, f"docker://{name}", seconds=3600)
        else:
            target = f"docker://{settings.REGISTRY_ADDRESS}/{repository(image)}"
            options = ("--tls-verify=false", *_FAST)
            shell.run("buildah", "push", *options, image, target, seconds=1800)
    return name


def forget(name: str, *, but: collections.abc.Container[str]) -> None:
    """Remove an image's other tags, and what no other image is made of: gigabytes each."""
    known = shell.run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").split()
    old = [k for k in known if k.rpartition(":")[0] == name and k.rpartition(":")[2] not in but]
    if old:
        shell.run("buildah", "rmi", *old, seconds=300)


def base() -> str:
    """The image that stands in for a public one: Debian with Python, made once."""
    key = hashlib.sha256(" ".join((*_BASE_OPTIONS, _BASE_SUITE)).encode()).hexdigest()[:12]
    name = f"localhost/fedtrain/base:{_BASE_SUITE}-{key}"
    if not _exists(name):
        with report.step(f"making {name}"), tempfile.TemporaryDirectory() as folder:
            archive = pathlib.Path(folder) / "base.tar"
            shell.run("mmdebstrap", *_BASE_OPTIONS, _BASE_SUITE, archive, seconds=900)
            _commit(name, archive, command="/bin/bash")
    return name


def pause() -> str:
    """The image of a pod's first container: one static program."""
    name = f"localhost/{settings.PAUSE_IMAGE}"
    if not _exists(name):
        with report.step(f"making {name}"), tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "pause"
            shell.run("gcc", "-static", "-Os", "-s", "-o", program, settings.HERE / "pause.c")
            _commit(name, program, command="/pause")
    return name


def build(wanted: Build) -> None:
    """Build a Dockerfile with the network of the host and the base image as BASE.

    chroot isolation, as there may be no container runtime on the host. pip in the build sees the
    host's certificates and settings. A cache that outlives the build is mounted for Dockerfiles
    that do not say `--no-cache-dir`; ours do, so that they are the same everywhere.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = pathlib.Path(folder) / "pip.conf"
        pip.write_text(pip_configuration(dict(os.environ)))
        options = ["--volume", f"{pip}:/etc/pip.conf:ro"]
        cache = settings.settings().cache / "pip"
        cache.mkdir(parents=True, exist_ok=True)
        options += ["--volume", f"{cache}:{_PIP_CACHE}"]
        if _CERTIFICATES.is_dir():
            options += ["--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"]
        if not any(argument.startswith("BASE=") for argument in wanted.arguments):
            options += ["--build-arg", f"BASE={base()}"]
        for argument in wanted.arguments:
            options += ["--build-arg", argument]
        if wanted.file is not None:
            options += ["--file", str(wanted.file)]
        if wanted.target is not None:
            options += ["--target", wanted.target]
        with report.step(f"building {wanted.tag}"):
            shell.stream(
                *("buildah", "bud", "--isolation", "chroot", "--network", "host", "--layers"),
                *("--tag", wanted.tag, *options, str(wanted.context)),
                seconds=3600,
            )


def pip_configuration(environment: dict[str, str]) -> str:
    """pip's settings on the host, as the file that pip reads in a build: PIP_X_Y becomes x-y.

    Only what makes pip reach its index is taken over; a folder of the host (find-links) would not
    be there in a build.
    """
    wanted = ("INDEX_URL", "EXTRA_INDEX_URL", "TRUSTED_HOST", "CERT", "PROXY", "DEFAULT_TIMEOUT")
    lines = ["[global]", f"cache-dir = {_PIP_CACHE}", "disable-pip-version-check = true"]
    for name in wanted:
        value = environment.get(f"PIP_{name}")
        if value:
            key = "timeout" if name == "DEFAULT_TIMEOUT" else name.lower().replace("_", "-")
            lines.append(f"{key} = {value}")
    return "\n".join(lines) + "\n"


def _exists(name: str) -> bool:
    return bool(shell.run("buildah", "images", "--quiet", "--filter", f"reference={name}").strip())


def _commit(name: str, content: pathlib.Path, *, command: str) -> None:
    """An image of one layer; an archive is unpacked, anything else lies at the root."""
    container = shell.run("buildah", "from", "scratch").strip()
    try:
        shell.run("buildah", "add", container, content, "/", seconds=300)
        shell.run("buildah", "config", "--cmd", f'["{command}"]', container)
        shell.run("buildah", "commit", container, name, seconds=300)
    finally:
        shell.run("buildah", "rm", container)
