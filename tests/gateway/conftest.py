"""One site for all tests of this package: NATS, services, a scripted engine, a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.gateway.site import Site, whole_site
from tests.scripted_engine import writer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The site, started once."""
    async with whole_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="package")
async def site(whole: Site) -> Site:
    """The site with an engine that behaves."""
    whole.engine.script = writer(token_s=0.002)
    whole.engine.calls.clear()
    return whole
