"""The worker processes of those peers that do not start their own."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def worker_process(folder: Path, *argv: str, says: bytes = b"") -> AsyncIterator[None]:
    """Run Python with `argv` within the block; its errors go to a file of `folder`.

    Args:
        folder: of the peer.
        argv: the module and its arguments.
        says: its first line when it is ready; not waited for if empty.

    Raises:
        RuntimeError: it says anything else.
    """
    with (folder / "worker.log").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *argv, stdout=PIPE if says else said, stderr=said, stdin=DEVNULL
        )
        try:
            if process.stdout and (await process.stdout.readline()).strip() != says:
                raise RuntimeError(f"the worker did not start; see {said.name}")
            yield
        finally:
            process.terminate()
            await process.wait()
