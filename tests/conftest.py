"""What tests of several folders share: an API server that knows our two kinds, a browser."""

import contextlib
import json
import pathlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.browser import Reader

# Machines are shared: how long a test takes to draw its examples says nothing of the test. And
# imported at the end, beside kopf's thread, hypothesis may fail in Python 3.11.
hypothesis.settings.register_profile(
    "fedtrain", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("fedtrain")

ROOT = pathlib.Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl as a user has it; an answer is (exit code, everything it printed)."""

    program: pathlib.Path
    kubeconfig: pathlib.Path

    def __call__(self, *words: str, document: Any = None) -> tuple[int, str]:
        result = subprocess.run(
            [self.program, f"--kubeconfig={self.kubeconfig}", *words],
            input="" if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            timeout=60,
        )
        # Older servers name the type where newer ones leave out what is too large to be shown.
        said = (result.stdout + result.stderr).replace('value: "object": ', "value: ")
        return result.returncode, said

    def read(self, *words: str) -> Any:
        """What `kubectl get ... -o json` answers, which it must."""
        code, answer = self("get", "-o", "json", *words)
        assert code == 0, answer
        return json.loads(answer)


@pytest.fixture(scope="session")
def api_server() -> Iterator[pathlib.Path]:
    """The admin's kubeconfig of a fresh API server with nothing in it."""
    from devcluster import apiserver, settings

    # Older ones know no PodGroups, and do not start with the feature's name.
    flags = () if settings.settings().kubernetes else apiserver.POD_GROUPS
    with apiserver.api_server(*flags) as kubeconfig:
        yield kubeconfig


def installed(kubeconfig: pathlib.Path) -> Kubectl:
    """Our CRDs, established, and their policy."""
    from devcluster import binaries

    kubectl = Kubectl(binaries.built("kubectl"), kubeconfig)
    crds = ROOT / "manifests" / "crds"
    code, answer = kubectl("apply", "--server-side", "--validate=strict", "-f", str(crds))
    assert code == 0, answer
    for _ in range(10):
        wait = ("wait", "--for=condition=Established", "--timeout=30s", "-f", str(crds))
        code, answer = kubectl(*wait)
        if code == 0 or "timed out" in answer:
            break
        time.sleep(0.5)  # it fails at once where a definition has no status yet
    assert code == 0, answer
    policy = ROOT / "manifests" / "policy.yaml"
    code, answer = kubectl("apply", "--server-side", "--validate=strict", "-f", str(policy))
    assert code == 0, answer
    return kubectl


@contextlib.contextmanager
def serving() -> Iterator[Kubectl]:
    """What the fixture above gives, outside pytest."""
    from devcluster import apiserver

    with apiserver.api_server() as kubeconfig:
        yield installed(kubeconfig)


@pytest.fixture(scope="session")
def kubectl(api_server: pathlib.Path) -> Kubectl:
    """For an API server with our CRDs, established, and their policy."""
    return installed(api_server)


@pytest.fixture
async def transport(kubectl: Kubectl) -> AsyncIterator[Any]:
    """The admin's session with an API server that knows our resources."""
    from fedoperator.cluster import api

    session = api.Api(await api.configuration(kubectl.kubeconfig))
    yield session
    await session.close()


@pytest.fixture(scope="session")
def dev_cluster() -> Iterator[None]:
    """A real cluster: KUBECONFIG's, or ours; ours goes again if these tests started it."""
    from devcluster import cluster

    was_up = cluster.is_up()
    cluster.up()
    yield
    if not was_up:
        cluster.down()


@pytest.fixture(scope="module")
def reader() -> Iterator["Reader"]:
    """A real browser, for as long as a module's tests last: its loop would be in the way of tests
    that have one of their own."""
    from tests import browser

    with browser.chromium() as started:
        yield browser.Reader(started)
