"""A stage on the API server that all tests share."""

import pytest

from fedoperator.cluster import api
from tests.cluster.stage import Stage


@pytest.fixture
async def stage(transport: api.Api) -> Stage:
    """A namespace of its own, an operator without its queue and its watch."""
    stage = Stage(transport)
    await stage.open()
    return stage
