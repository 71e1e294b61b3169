"""What `skelgraph models` does."""

from __future__ import annotations

import asyncio
import sys
import threading

from rich.console import Console
from rich.table import Table

from skelgraph.local import catalogue, folders, models
from skelgraph.local.events import StackEvent, StackStep
from skelgraph.progress import Kind
from skelgraph.startup import Startup


def print_models() -> None:
    """Print the table of models and which of them are here."""
    folder = folders.models_dir()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "model", "download", "here"):
        table.add_column(name, justify="right" if name == "download" else "left")
    for model in catalogue.MODELS.values():
        is_here = models.is_complete(model, folder / model.file_name)
        size = f"{model.download_bytes / 1e6:.0f} MB"
        table.add_row(model.name, model.title, size, "yes" if is_here else "no")
    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.print(table)
    console.print(f"folder: {folder}", soft_wrap=True)


async def download(names: list[str], kind: Kind) -> int:
    """Download models of the table.

    Raises:
        UnknownModel: the table has no such name.
        ModelUnavailable: it could not be had.
    """
    for name in names:
        catalogue.find_model(name)
    with Startup(kind) as startup:
        for name in names:
            await _download(name, startup)
    for name in names:
        startup.say(f"{name}: {folders.models_dir() / catalogue.find_model(name).file_name}")
    return 0


async def _download(name: str, startup: Startup) -> None:
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def progress(stage: str, done_bytes: int, total_bytes: int) -> None:
        event = StackEvent(
            StackStep.FETCHING, name, stage, done_bytes=done_bytes, total_bytes=total_bytes
        )
        loop.call_soon_threadsafe(startup.report, event)

    try:
        await asyncio.to_thread(models.ensure_model, name, progress, stop=stop)
    finally:
        stop.set()  # a cancelled task leaves its thread running
