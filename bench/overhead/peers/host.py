"""`python -m bench.overhead.peers.host NAME NATS_URL FOLDER`: one peer, in its own environment.

It says `ready`, then takes an order a line, `{"needs": …, "copies": …}`, and tells the times of
each graph: `{"wall_s": …, "graphs": [{"total_ms": …, "done_at": […]}]}`. It ends with its input.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from pathlib import Path

import orjson
import uvloop

from bench.overhead.peers.peer import Peer, Where
from bench.overhead.peers.systems import MODULES
from bench.overhead.shapes import Shape


async def main(name: str, nats_url: str, folder: str) -> None:
    """Serve orders until there are no more."""
    module, opening = MODULES[name]
    # What a peer prints must not come between: it goes where errors go.
    told_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    opened = getattr(importlib.import_module(module), opening)
    async with opened(Where(nats_url, Path(folder))) as peer:
        print("ready", file=told_to, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = orjson.loads(line)
            shape = Shape("asked", tuple(tuple(needed) for needed in order["needs"]))
            told = await _run(peer, shape, order["copies"])
            print(orjson.dumps(told).decode(), file=told_to, flush=True)


async def _run(peer: Peer, shape: Shape, copies: int) -> dict[str, object]:
    began_at = time.perf_counter()
    graphs = await asyncio.gather(*(_graph(peer, shape) for _ in range(copies)))
    return {"wall_s": time.perf_counter() - began_at, "graphs": graphs}


async def _graph(peer: Peer, shape: Shape) -> dict[str, object]:
    began_at = time.perf_counter()
    done_at = await peer.run(shape)
    return {"total_ms": (time.perf_counter() - began_at) * 1000, "done_at": done_at}


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
