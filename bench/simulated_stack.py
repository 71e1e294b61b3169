"""The local stack over simulated engines: all services as processes, as `skelgraph up` has them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from skelgraph.local.config import PoolConfig, StackConfig
from skelgraph.local.stack import LocalStack
from skelgraph.local.state import StackState
from skelgraph.session import provision_at


@asynccontextmanager
async def simulated_stack(
    folder: Path,
    *,
    env: Mapping[str, str],
    large: Sequence[str] = ("--dialect", "tgi", "--profile", "llama-70b-4xh100"),
    small: Sequence[str] = ("--dialect", "vllm", "--profile", "llama-8b-1xh100"),
    slots: int = 8,
) -> AsyncIterator[StackState]:
    """Run everything, gateway included, within the block.

    Args:
        folder: for logs and streams.
        env: variables of all services.
        large: flags of the large pool's engine.
        small: flags of the small pool's.
        slots: of each worker.
    """
    async with AsyncExitStack() as stack:
        urls = [await _engine(stack, flags) for flags in (large, small)]
        pools = [PoolConfig(model="", urls=(url,), slots=slots) for url in urls]
        config = StackConfig(
            large=pools[0], small=pools[1], gateway=True, state_dir=folder, env=env
        )
        local = LocalStack(config, lambda _: None, provision=provision_at)
        state = await local.start()
        stack.push_async_callback(local.stop)
        yield state


async def _engine(stack: AsyncExitStack, flags: Sequence[str]) -> str:
    argv = (sys.executable, "-m", "bench.simulated_engine", *flags)
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
    stack.push_async_callback(_end, process)
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
