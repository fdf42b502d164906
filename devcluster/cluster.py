"""The cluster as a whole: bring it up, ask after it, take it down."""

import collections.abc
import contextlib
import fcntl
import os
import pathlib
import sys
import time

from devcluster import (
    api,
    binaries,
    cgroups,
    components,
    images,
    network,
    packages,
    prepare,
    process,
    recipes,
    report,
    settings,
    shell,
    teardown,
)

START_LIMIT = 120.0
PROGRAMS = tuple(name for name in recipes.BINARIES if name not in ("helm", "kwok"))


def kubeconfig() -> pathlib.Path:
    """The kubeconfig of the cluster in use: KUBECONFIG's if that is set, else the one here."""
    current = settings.settings()
    return current.foreign_kubeconfig or current.kubeconfig


def is_up() -> bool:
    """Whether the cluster in use answers, and its node (ours at least) takes pods."""
    current = settings.settings()
    if current.foreign_kubeconfig is not None:
        kubectl = binaries.path("kubectl")
        command = (kubectl if kubectl.exists() else "kubectl", "get", "--raw=/readyz")
        try:
            shell.run(*command, f"--kubeconfig={kubeconfig()}", "--request-timeout=5s")
        except report.DevclusterError:
            return False
        return True
    return current.kubeconfig.exists() and all(ready for _, _, ready in status())


def up() -> None:
    """Make whatever is missing, start whatever does not run, and return when pods can run."""
    current = settings.settings()
    if current.foreign_kubeconfig is not None:
        report.say(f"KUBECONFIG is set: using the cluster of {current.foreign_kubeconfig} as it is")
        return
    began = time.monotonic()
    _require_root()
    packages.ensure()
    binaries.build_all(PROGRAMS)
    with _alone():
        teardown.remember(current.state)
        prepare.certify(current)
        prepare.configure(current)
        network.create(current.netns)
        cgroups.create()
        for stage in components.all_components(current):
            _start(current, stage)
            if any(component.name == "registry" for component in stage):
                _load_pause()
            if any(component.name == "kube-apiserver" for component in stage):
                _apply_addons(current)
        _wait_for_pods(current)
    report.say(f"up after {time.monotonic() - began:.1f} s; kubeconfig: {current.kubeconfig}")


def down() -> None:
    """Leave nothing of it on the machine but the caches."""
    current = settings.settings()
    _require_root()
    packages.extend_path()
    with _alone(), report.step("taking the cluster down"):
        teardown.everything(current)


def status() -> list[tuple[str, str, bool]]:
    """(component, what it does, whether it is ready) for each, in the order of their start."""
    current = settings.settings()
    lines = []
    for stage in components.all_components(current):
        for component in stage:
            running = _record(current, component.name).running()
            ready = running is not None and component.ready()
            state = "not running" if running is None else "ready" if ready else "not ready"
            pid = "" if running is None else f" (pid {running.pid})"
            lines.append((component.name, state + pid, ready))
    return lines


def log_of(component: str) -> pathlib.Path:
    """The log of a component; an unknown one is an error that names those there are."""
    current = settings.settings()
    names = [one.name for stage in components.all_components(current) for one in stage]
    if component not in names:
        raise report.DevclusterError(f"{component} is none of {', '.join(names)}")
    return current.logs / f"{component}.log"


def _record(current: settings.Settings, name: str) -> process.Record:
    return process.Record(current.state / "pids" / f"{name}.json")


def _require_root() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise report.DevclusterError("a cluster on this machine needs Linux and root")


@contextlib.contextmanager
def _alone() -> collections.abc.Iterator[None]:
    """One `up` or `down` at a time; the lock is in the cache, because the state comes and goes."""
    lock = settings.settings().cache / "devcluster.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:

        def taken() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        report.wait_for("another `up` or `down`", taken, seconds=300)
        yield


def _start(current: settings.Settings, stage: tuple[components.Component, ...]) -> None:
    """Start what does not run or was started from something else; then wait for all of it."""
    for component in stage:
        record = _record(current, component.name)
        recorded = record.read()
        fingerprint = component.fingerprint
        if record.running() is not None and recorded is not None and recorded[1] == fingerprint:
            continue
        record.stop()
        report.say(f"starting {component.name}")
        record.start(
            [*network.entering(current.netns), *component.command],
            log=current.logs / f"{component.name}.log",
            fingerprint=fingerprint,
        )
    for component in stage:
        _await(current, component)


def _await(current: settings.Settings, component: components.Component) -> None:
    record = _record(current, component.name)
    report.wait_for(
        component.name,
        component.ready,
        seconds=START_LIMIT,
        log=current.logs / f"{component.name}.log",
        alive=lambda: record.running() is not None,
    )


def _load_pause() -> None:
    """Without this image no pod has a sandbox."""
    name, _, _ = settings.PAUSE_IMAGE.partition(":")
    host, _, port = settings.REGISTRY_ADDRESS.partition(":")
    if not api.healthy(host, int(port), f"/v2/{name}/tags/list"):
        images.load(images.pause())


def _apply_addons(current: settings.Settings) -> None:
    kubectl = binaries.path("kubectl")
    arguments = ("apply", "--server-side", "-f", settings.HERE / "addons.yaml")
    shell.run(kubectl, f"--kubeconfig={current.kubeconfig}", *arguments)


def _wait_for_pods(current: settings.Settings) -> None:
    """A pod needs the account of its namespace, which the controller manager makes."""

    def account() -> bool:
        try:
            path = "/api/v1/namespaces/default/serviceaccounts/default"
            components.server(current.pki).request("GET", path)
        except (api.ApiError, *api.UNREACHABLE):
            return False
        return True

    log = current.logs / "kube-controller-manager.log"
    report.wait_for("the default service account", account, seconds=60, log=log)
