"""A stage on the API server that all tests share."""

from collections.abc import AsyncIterator

import pytest

from fedoperator.cluster import api
from tests.cluster.stage import Stage


@pytest.fixture
async def transport(kubectl) -> AsyncIterator[api.Api]:
    """The admin's session with an API server that knows our resources."""
    session = api.Api(await api.configuration(kubectl.kubeconfig))
    yield session
    await session.close()


@pytest.fixture
async def stage(transport: api.Api) -> Stage:
    """A namespace of its own, an operator without its queue and its watch."""
    stage = Stage(transport)
    await stage.open()
    return stage
