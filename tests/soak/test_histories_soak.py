"""The recorded histories of tests/contract/test_histories.py, longer and by other seeds. `make soak ARGS="-k histories"`.

HISTORY_SECONDS (30) is how long each is.
"""

from __future__ import annotations

import os

import pytest

from tests.contract.histories import record
from tests.contract.test_histories import (
    Server,
    adapters,
    in_trouble,
    must_be_linearizable,
    must_have_happened,
    postgres,
    redis,
)

SECONDS = float(os.environ.get("HISTORY_SECONDS", "30"))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 4 + 300)]
__all__ = ["postgres", "redis"]


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [4711, 4712, 4713])
@pytest.mark.parametrize("backend", ["redis", "postgres"])
async def test_a_long_history_in_trouble_can_be_put_in_one_order(
    backend: str, seed: int, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(backend)

    async with in_trouble(backend, server, seed) as port:
        history = await record(adapters(backend, port), SECONDS, seed)

    must_be_linearizable(history)
    must_have_happened(history.counted)
