"""fedtrain on the cluster in use: its images built and loaded, its chart installed."""

import dataclasses
import json
import pathlib
import typing

from devcluster import binaries, cluster, images, shell

ROOT = pathlib.Path(__file__).parent.parent.absolute()
CHART = ROOT / "charts" / "fedtrain"
EXAMPLE = ROOT / "examples" / "01-digits"
_CONTROLLER = "localhost/fedtrain/controller:dev"
_TRAINER = "localhost/fedtrain/trainer:dev"
_DIGITS = "localhost/fedtrain/digits:dev"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The names by which pods pull them; each holds its content's id, so a change is a new name."""

    controller: str
    trainer: str
    digits: str


def load_images() -> Images:
    """Build what changed, push the layers that changed."""
    builds = (
        images.Build(tag=_CONTROLLER, context=ROOT, target="controller"),
        images.Build(tag=_TRAINER, context=ROOT, target="trainer"),
        images.Build(tag=_DIGITS, context=EXAMPLE, arguments=(f"TRAINER={_TRAINER}",)),
    )
    names = []
    for build in builds:
        images.build(build)
        identity = shell.run("buildah", "images", "--quiet", "--no-trunc", build.tag).strip()
        tag = identity.removeprefix("sha256:")[:12]
        name = f"{build.tag.rpartition(':')[0]}:{tag}"
        shell.run("buildah", "tag", build.tag, name)
        names.append(images.load(name))
        images.forget(build.tag.rpartition(":")[0], but=("dev", tag))
    controller, trainer, digits = names
    return Images(controller=controller, trainer=trainer, digits=digits)


def image_bytes(tag: str = _CONTROLLER) -> int:
    """Size of an image, uncompressed, as its layers lie on a node."""
    name = shell.run("buildah", "from", "--pull-never", tag, seconds=120).strip()
    try:
        root = shell.run("buildah", "mount", name).strip()
        return int(shell.run("du", "-sb", root, seconds=120).split()[0])
    finally:
        shell.run("buildah", "rm", name)


def labels(tag: str = _CONTROLLER) -> dict[str, str]:
    """What an image says of itself."""
    said = shell.run("buildah", "inspect", "--type", "image", tag)
    return typing.cast(dict[str, str], json.loads(said)["OCIv1"]["config"]["Labels"])


def kubectl(*arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
    """What kubectl prints, as the administrator."""
    program = binaries.built("kubectl")
    return shell.run(
        program, f"--kubeconfig={cluster.kubeconfig()}", *arguments, stdin=stdin, seconds=seconds
    )


def get(*arguments: str) -> dict[str, typing.Any]:
    """An object, or a list of objects."""
    return typing.cast(dict[str, typing.Any], json.loads(kubectl("get", *arguments, "-o", "json")))


def apply(document: dict[str, typing.Any]) -> str:
    """`kubectl apply` of one document (JSON is YAML); raises with the API server's reply."""
    return kubectl("apply", "-f", "-", stdin=json.dumps(document))


def make_namespace(name: str) -> None:
    """A namespace whose pods must all be *restricted* (Pod Security)."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": name, "labels": labels}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})


def install(controller: str, *, namespace: str, release: str = "fedtrain") -> None:
    """`helm upgrade --install`, waiting until the operator is ready."""
    make_namespace(namespace)
    repository, _, tag = controller.rpartition(":")
    shell.run(
        binaries.built("helm"),
        *("upgrade", "--install", release, CHART, f"--kubeconfig={cluster.kubeconfig()}"),
        *("--namespace", namespace, "--wait", "--timeout", "120s"),
        # The definitions are one for the whole cluster; a release of another namespace, or a test,
        # may have brought them before.
        *("--take-ownership", "--force-conflicts"),
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
        seconds=180,
    )


def uninstall(*, namespace: str, release: str = "fedtrain") -> None:
    """Remove the release and the namespace with everything in it, volumes included."""
    shell.run(
        binaries.built("helm"),
        *("uninstall", release, f"--kubeconfig={cluster.kubeconfig()}"),
        *("--namespace", namespace, "--ignore-not-found", "--wait", "--timeout", "120s"),
        seconds=180,
    )
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s", seconds=150)
