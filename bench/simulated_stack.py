"""The local stack over simulated engines: all services as processes, as `skelgraph up` has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.simulated_engine.processes import simulated_engines
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
        engines = stack.enter_context(simulated_engines(large, small))
        pools = [PoolConfig(model="", urls=(engine.url,), slots=slots) for engine in engines]
        config = StackConfig(
            large=pools[0], small=pools[1], gateway=True, state_dir=folder, env=env
        )
        local = LocalStack(config, lambda _: None, provision=provision_at)
        state = await local.start()
        stack.push_async_callback(local.stop)
        yield state
