"""The operator installed by its chart on a real cluster, once for all tests of this folder."""

from collections.abc import Iterator

import pytest
from federation import NAMESPACE, a_script, publish_script

from devcluster import stack


@pytest.fixture(scope="session")
def images(dev_cluster: None) -> stack.Images:
    return stack.load_images()


@pytest.fixture(scope="session")
def installed(images: stack.Images) -> Iterator[stack.Images]:
    """The chart in a namespace that enforces *restricted*, and the plain script."""
    stack.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", seconds=150)
    stack.install(images.controller, namespace=NAMESPACE)
    publish_script("plain", a_script())
    yield images
    stack.uninstall(namespace=NAMESPACE)
