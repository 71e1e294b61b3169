"""What a service process is: settings in, signals obeyed, every task watched, an exit code out."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

import structlog
import uvloop

from proto.errors import AddressUnavailable, NotProvisioned, QueueUnavailable, SkelgraphError
from services.runtime import logs, tracing
from services.runtime.connection import Connection
from services.runtime.health import HealthServer
from services.runtime.settings import ServiceSettings
from services.runtime.streams import check_provisioned

log = structlog.get_logger()

PROVISION_PAUSE_S: Final = 0.5
#: New objects, less those gone, after which the youngest are looked at for garbage.
COLLECT_AFTER: Final = 10_000
PROVISION_SAY_EVERY: Final = 20
#: Containers may have the same host name, and the same process id in each.
_MARK: Final = secrets.token_hex(2)


class Process:
    """This process: its name, whether it is to stop, its tasks and its connection.

    Args:
        name: the service's name; with host, process id and a random mark it names this replica.
        settings: the service's settings.
    """

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        #: Names this replica in facts and logs.
        self.replica = replica_of(name)
        self.settings = settings
        self.stopping = asyncio.Event()
        self.failure: BaseException | None = None
        self.connection = Connection(
            settings.servers(),
            name=self.replica,
            access=settings.access(),
        )
        self._provisioned = False
        self._serving = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.health = HealthServer(
            settings.health_host,
            settings.health_port,
            live={"nats": lambda: not self.connection.closed.is_set()},
            ready={
                "nats": lambda: self.connection.is_connected,
                "provisioned": lambda: self._provisioned,
                "consumers": lambda: not self.connection.missing,
                "serving": lambda: self._serving and not self.stopping.is_set(),
            },
        )

    def spawn(self, coroutine: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run a side task; if it fails, the process stops."""
        task = asyncio.create_task(coroutine, name=name)
        return self.watch(task)

    def watch(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Stop the process if `task` fails."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def serving(self) -> None:
        """Say that work may be given to this process."""
        self._serving = True
        log.info("serving", health_port=self.health.port)

    @property
    def is_serving(self) -> bool:
        """Whether work may have been given to this process."""
        return self._serving

    def fail(self, error: BaseException) -> None:
        """Stop the process with an exit code that says so."""
        if self.failure is None:
            self.failure = error
        self.stopping.set()

    async def wait_provisioned(self) -> None:
        """Return when the streams are there; meanwhile the process is not ready."""
        tries = 0
        while not self.stopping.is_set():
            try:
                await check_provisioned(
                    self.connection, self.settings.partitions, self.settings.ack_wait_s
                )
            except (NotProvisioned, QueueUnavailable) as error:
                if tries % PROVISION_SAY_EVERY == 0:
                    log.warning("waiting_for_streams", error=error.message)
                tries += 1
                await asyncio.sleep(PROVISION_PAUSE_S)
            else:
                self._provisioned = True
                return

    async def cancel_tasks(self) -> None:
        """End the side tasks."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("task_failed", task=task.get_name(), exc_info=error)
            self.fail(error)


def replica_of(name: str) -> str:
    """Return the name of this process, among all of its service."""
    return f"{name}-{socket.gethostname()}-{os.getpid()}-{_MARK}"


def run(name: str, settings: ServiceSettings, serve: Callable[[Process], Awaitable[None]]) -> int:
    """Run a service until SIGTERM or SIGINT and return its exit code.

    Args:
        name: the service's name.
        settings: its settings.
        serve: does the work; returns when `process.stopping` is set and work is drained.
    """
    logs.configure(
        settings.log_level, settings.log_format, with_texts=settings.log_texts, service=name
    )
    _collect_less()
    try:
        tracing.start(name, replica_of(name))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return uvloop.run(_run(name, settings, serve))
    except AddressUnavailable as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    finally:
        tracing.stop()


def _collect_less() -> None:
    """Spare the garbage collector what lives as long as the process, and look less often.

    Facts are many objects that live for a while: at Python's own pace a sixth of an assembler's
    time went into looking at them in vain (ADR 0024).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


async def _run(
    name: str, settings: ServiceSettings, serve: Callable[[Process], Awaitable[None]]
) -> int:
    process = Process(name, settings)
    _obey_signals(process)
    process.spawn(process.health.serve(), "health server")
    working = asyncio.create_task(_work(process, serve), name=name)
    try:
        await _until_done(process, working)
    except SkelgraphError as error:
        process.fail(error)
        log.error("failed", code=error.code, error=error.message)  # noqa: TRY400  # typed, no trace
    finally:
        await process.cancel_tasks()
        await process.connection.close()
    log.info("stopped")
    return 1 if process.failure else 0


async def _work(process: Process, serve: Callable[[Process], Awaitable[None]]) -> None:
    await process.connection.open()
    process.watch(process.connection.watchdog)
    process.spawn(_notice_closed(process), "nats closed")
    await process.wait_provisioned()
    if not process.stopping.is_set():
        await serve(process)


async def _until_done(process: Process, working: asyncio.Task[None]) -> None:
    """Wait for the work to end; before it has begun a signal ends it at once."""
    stopping = asyncio.create_task(process.stopping.wait(), name="stopping")
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        log.info("draining", limit_s=process.settings.drain_s)
        # Draining is bounded by `serve` itself; this bound is for what hangs after it.
        limit_s = process.settings.drain_s + 2 if process.is_serving else 0
        _, hanging = await asyncio.wait([working], timeout=limit_s)
        if hanging:
            working.cancel()
            await asyncio.wait([working])
            return
    await working


async def _notice_closed(process: Process) -> None:
    await process.connection.closed.wait()
    raise QueueUnavailable("the connection was closed for good")


def _obey_signals(process: Process) -> None:
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, process.stopping.set)
