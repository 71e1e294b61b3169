"""How soon a closed client connection closes the engine's: `python -m tests.gateway.measure`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.gateway.site import Site, chat, endless, whole_site

ROUNDS = 30


async def measure(site: Site, *, stream: bool) -> list[float]:
    """Return the milliseconds from one closing to the other, sorted."""
    took_ms: list[float] = []
    for _ in range(ROUNDS):
        site.engine.calls.clear()
        async with site.http() as http:
            body = chat(model="skelgraph-direct", stream=stream, max_tokens=500)
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
            call = await site.engine.call(1)
            await call.waiting.wait()
            began = time.monotonic()
            asking.cancel()
            await call.left.wait()
            took_ms.append((time.monotonic() - began) * 1000)
    return sorted(took_ms)


async def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        async with whole_site(Path(folder), endless(3)) as site:
            for stream in (True, False):
                took_ms = await measure(site, stream=stream)
                what = "stream" if stream else "whole answer"
                print(f"{what}: median {median(took_ms):.0f} ms, longest {took_ms[-1]:.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
