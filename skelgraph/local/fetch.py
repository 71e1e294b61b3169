"""The model files of a stack, fetched without holding up the event loop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from skelgraph.local import models
from skelgraph.local.config import FALLBACK_MODEL, StackConfig
from skelgraph.local.errors import ModelUnavailable
from skelgraph.local.events import Report, StackEvent, StackStep


async def model_files(config: StackConfig, report: Report) -> dict[str, Path]:
    """Return each pool's GGUF file, of the pools that have no engines of their own.

    A model that cannot be had is replaced by the small one, with a warning.

    Raises:
        UnknownModel: A name or file is wrong.
        ModelUnavailable: Not even the small model can be had.
        NotEnoughDisk: The models folder has too little space.
    """
    wanted = {pool: given.model for pool, given in config.pools().items() if not given.urls}
    return {pool: await _model_file(name, config, report) for pool, name in wanted.items()}


async def _model_file(name: str, config: StackConfig, report: Report) -> Path:
    if models.is_path(name):
        return await asyncio.to_thread(models.check_gguf, Path(name))
    try:
        return await _fetch(name, config, report)
    except ModelUnavailable as error:
        if name == FALLBACK_MODEL:
            raise
        report(StackEvent(StackStep.WARNING, name, f"{error.message}; using {FALLBACK_MODEL}"))
        return await _fetch(FALLBACK_MODEL, config, report)


async def _fetch(name: str, config: StackConfig, report: Report) -> Path:
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def progress(stage: str, done_bytes: int, total_bytes: int) -> None:
        event = StackEvent(
            StackStep.FETCHING, name, stage, done_bytes=done_bytes, total_bytes=total_bytes
        )
        loop.call_soon_threadsafe(report, event)

    try:
        return await asyncio.to_thread(
            models.ensure_model, name, progress, folder=config.models_dir, stop=stop
        )
    finally:
        stop.set()  # a cancelled task leaves its thread running
