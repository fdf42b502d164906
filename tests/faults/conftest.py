"""A bench at the API server that all tests share."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.bench import Bench


@pytest.fixture
async def faults(kubectl, tmp_path) -> AsyncIterator[Bench]:
    async with Bench.open(kubectl.kubeconfig, tmp_path) as bench:
        yield bench
