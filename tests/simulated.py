"""Simulated engines for tests: as processes of their own, or in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from bench.simulated_engine.options import Options
from bench.simulated_engine.processes import (
    Json,
    Simulated,
    simulated_engine,
    simulated_engines,
)
from bench.simulated_engine.server import serving

__all__ = ["Json", "Simulated", "client_of", "simulated_engine", "simulated_engines"]


@asynccontextmanager
async def client_of(**options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve in this process' event loop; gives a client of it."""
    async with (
        serving(Options(**options)) as url,
        httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client
