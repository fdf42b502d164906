"""The cluster's programs, built as ordinary Go dependencies into `<cache>/bin/<family>-<key>/`."""

import collections.abc
import contextlib
import fcntl
import functools
import os
import pathlib
import subprocess
import time

from devcluster import recipes, report, settings

MODULES = settings.HERE / "go"
BUILD_LIMIT = 45 * 60.0


@functools.cache
def _go_version() -> str:
    result = subprocess.run(
        ["go", "env", "GOVERSION", "GOOS", "GOARCH"], capture_output=True, text=True, timeout=60
    )
    if result.returncode:
        raise report.DevclusterError(f"Go is needed to build the cluster: {result.stderr.strip()}")
    return result.stdout


def module(binary: recipes.Binary, kubernetes: str = "") -> pathlib.Path:
    """The folder that pins a program, of that version of Kubernetes, or the usual one.

    Raises DevclusterError for a version that is not there.
    """
    if binary.family != "kubernetes" or not kubernetes:
        return MODULES / binary.family
    folder = MODULES / f"kubernetes-{kubernetes}"
    if not folder.is_dir():
        others = ", ".join(p.name.partition("-")[2] for p in sorted(MODULES.glob("kubernetes-*")))
        raise report.DevclusterError(
            f"FEDTRAIN_KUBERNETES={kubernetes}: no such version; leave it out, or use {others}"
        )
    return folder


@functools.cache
def path(name: str) -> pathlib.Path:
    """Where a program lies, built or not."""
    assets = settings.settings().assets
    if assets is not None and name in recipes.FROM_ASSETS:
        return assets / name
    if name not in recipes.BINARIES:
        raise report.DevclusterError(f"{name} is none of {', '.join(recipes.BINARIES)}")
    binary = recipes.BINARIES[name]
    pins = module(binary, settings.settings().kubernetes)
    key = recipes.cache_key(
        binary,
        go_mod=(pins / "go.mod").read_text(),
        go_sum=(pins / "go.sum").read_text(),
        go_version=_go_version(),
    )
    return settings.settings().cache / "bin" / f"{pins.name}-{key}" / name


def built(name: str) -> pathlib.Path:
    """The path of a program that is there; builds it first if need be, in minutes."""
    target = path(name)
    if not target.exists():
        if name in recipes.FROM_ASSETS and settings.settings().assets is not None:
            raise report.DevclusterError(f"KUBEBUILDER_ASSETS has no {name}; add it or unset it")
        with _one_build_at_a_time():
            if not target.exists():
                _build(name, target)
    return target


def build_all(names: collections.abc.Iterable[str]) -> None:
    """Build what is missing, one after the other: two such builds at once exhaust a laptop."""
    missing = [name for name in names if not path(name).exists()]
    if missing:
        report.say(f"building {len(missing)} programs: {', '.join(missing)} (minutes, once)")
    for number, name in enumerate(missing, start=1):
        report.say(f"[{number}/{len(missing)}] {name}")
        built(name)


@contextlib.contextmanager
def _one_build_at_a_time() -> collections.abc.Iterator[None]:
    lock = settings.settings().cache / "bin" / ".lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        began = time.monotonic()
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    report.say("another process builds; waiting for it")
                told = True
                if time.monotonic() - began > BUILD_LIMIT:
                    raise report.DevclusterError(f"{lock} is held for too long") from None
                time.sleep(0.5)
        yield


def _build(name: str, target: pathlib.Path) -> None:
    binary = recipes.BINARIES[name]
    pins = module(binary, settings.settings().kubernetes)
    target.parent.mkdir(parents=True, exist_ok=True)
    log = target.with_name(f"{name}.log")
    unfinished = target.with_name(f".{name}.unfinished")
    arguments = recipes.build_arguments(binary, (pins / "go.mod").read_text())
    environment = os.environ | {"CGO_ENABLED": "1" if binary.cgo else "0", "GOWORK": "off"}
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            ["go", *arguments, "-o", str(unfinished), binary.package],
            cwd=pins,
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            _watch(name, process, began)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        raise report.DevclusterError(f"building {name} failed\n--- {log}\n{report.tail(log)}")
    unfinished.rename(target)
    report.say(f"built {name} in {time.monotonic() - began:.0f} s")


def _watch(name: str, process: subprocess.Popen[bytes], began: float) -> None:
    while True:
        try:
            process.wait(timeout=20)
            return
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - began
            if elapsed > BUILD_LIMIT:
                raise report.DevclusterError(f"building {name} took over {elapsed:.0f} s") from None
            report.say(f"building {name}, {elapsed:.0f} s so far")
