"""`python -m bench.scale.engines`: several simulated engines in one process, to spare CPU.

Prints one line with their URLs, then serves until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack

import uvloop

from bench.simulated_engine.author import LengthLaw
from bench.simulated_engine.options import Options
from bench.simulated_engine.profiles import PROFILES
from bench.simulated_engine.server import serving


async def _serve(count: int, profile: str, time_scale: float, tokens: float) -> None:
    async with AsyncExitStack() as stack:
        urls = []
        for number in range(count):
            options = Options(
                family="vllm",
                profile=PROFILES[profile],
                time_scale=time_scale,
                seed=number,
                lengths=LengthLaw(tokens, 0.0),
            )
            urls.append(await stack.enter_async_context(serving(options)))
        print(" ".join(urls), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale.engines")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--time-scale", type=float, required=True)
    parser.add_argument("--tokens", type=float, required=True)
    args = parser.parse_args()
    uvloop.run(_serve(args.count, args.profile, args.time_scale, args.tokens))


if __name__ == "__main__":
    main()
