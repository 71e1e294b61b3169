"""A client that follows requests until somebody kills it: `python -m tests.chaos.follower`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from services.runtime import logs
from services.runtime.client import Client
from services.runtime.opening import open_client


async def _follow(client: Client, request: str) -> None:
    async with aclosing(client.follow(request)) as heard:
        async for _ in heard:
            pass


async def _main(servers: str, requests: list[str]) -> None:
    async with open_client(servers.split(",")) as client:
        await asyncio.gather(*(_follow(client, request) for request in requests))


if __name__ == "__main__":
    logs.configure("error", "console")
    asyncio.run(_main(sys.argv[1], sys.argv[2:]))
