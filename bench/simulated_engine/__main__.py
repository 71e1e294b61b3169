"""`python -m bench.simulated_engine --port 8080 --profile llama-70b-4xa100`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from bench.simulated_engine.author import LengthLaw, read_recorded
from bench.simulated_engine.faults import KINDS, Faults
from bench.simulated_engine.options import FAMILIES, Options
from bench.simulated_engine.profiles import PROFILES
from bench.simulated_engine.server import serving


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    found = argparse.ArgumentParser(
        prog="python -m bench.simulated_engine",
        description="An engine without a model: TGI's or vLLM's wire over a timing model.",
    )
    add = found.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0: any that is free; the URL is printed")
    add("--dialect", choices=FAMILIES, default="tgi")
    add("--profile", choices=sorted(PROFILES), default="no-op")
    add("--time-scale", type=float, default=1.0, help="real seconds of a second of the profile")
    add("--seed", type=int, default=0)
    add("--model", default="", help="its name; the profile's if not set")
    add("--api-key", default="")
    add("--max-concurrent-requests", type=int, default=128, help="TGI refuses what comes beyond")
    add("--no-prefix-cache", action="store_true")
    add("--replies", type=Path, help="JSONL: match, reply and, optionally, tokens")
    add("--median-tokens", type=float, default=160.0, help="of replies that are not recorded")
    add("--spread", type=float, default=0.6, help="of their lengths (log-normal); 0: all equal")
    add("--keep-alive-s", type=float, default=15.0)
    add("--fault", choices=KINDS, help="what goes wrong")
    add("--fault-share", type=float, default=1.0, help="of the requests that it befalls")
    add("--fault-count", type=int, help="how many it befalls at most")
    add("--fault-after-tokens", type=int)
    add("--slow", type=float, default=1.0, help="factor on the duration of all steps")
    return found


def options(args: argparse.Namespace) -> Options:
    """Return what the flags say.

    Raises:
        ValueError: a file of replies is not one.
        OSError: it cannot be read.
    """
    return Options(
        family=args.dialect,
        profile=PROFILES[args.profile],
        time_scale=args.time_scale,
        slow=args.slow,
        seed=args.seed,
        model=args.model,
        api_key=args.api_key,
        max_concurrent_requests=args.max_concurrent_requests,
        prefix_cache=not args.no_prefix_cache,
        keep_alive_s=args.keep_alive_s,
        lengths=LengthLaw(args.median_tokens, args.spread),
        recorded=read_recorded(args.replies) if args.replies else (),
        faults=Faults(
            args.fault,
            share=args.fault_share,
            count=args.fault_count,
            after_tokens=args.fault_after_tokens,
            seed=args.seed,
        ),
    )


async def _serve(args: argparse.Namespace) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    async with serving(options(args), args.host, args.port, when_dead=asked.set) as url:
        print(url, flush=True)
        await asked.wait()


def main() -> None:
    """Serve until the process is asked to end."""
    found = parser()
    args = found.parse_args()
    if args.time_scale <= 0:
        found.error("--time-scale must be greater than 0")
    uvloop.run(_serve(args))


if __name__ == "__main__":
    main()
