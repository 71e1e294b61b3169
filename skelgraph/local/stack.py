"""The supervisor: NATS, engines and services as processes of this machine.

Started in order (models, NATS, engines, streams, services), stopped in the opposite one. What
ends later is started again on the same port, after a growing pause; what keeps ending makes the
stack fail. `kill -9` of this process takes everything with it (see `guard`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import structlog

from skelgraph.auth.book import Book
from skelgraph.local import ports, services, state
from skelgraph.local.config import StackConfig
from skelgraph.local.engine import EngineOptions
from skelgraph.local.errors import LocalStackError
from skelgraph.local.events import Report, StackEvent, StackStep
from skelgraph.local.fetch import model_files
from skelgraph.local.nats import NatsServer
from skelgraph.local.process import Child
from skelgraph.local.watch import Watch

log = structlog.get_logger()

Provision = Callable[[str], Awaitable[None]]


class LocalStack:
    """Everything that answers a question, on this machine.

    Call `start` from the main thread, then wait for `wait_failed` or whatever you wish, then
    call `stop`; a `start` that fails or is cancelled has stopped what it had started.
    """

    def __init__(
        self,
        config: StackConfig,
        report: Report,
        *,
        provision: Provision,
        service_specs: Sequence[services.ServiceSpec] | None = None,
    ) -> None:
        self.config = config
        self._report = report
        self._book = Book(config.auth_dir) if config.auth_dir else None
        self._provision = provision
        self._service_specs = (
            services.default_services(config) if service_specs is None else service_specs
        )
        self._lock: IO[bytes] | None = None
        self._nats: NatsServer | None = None
        self._engines: dict[str, Child] = {}
        self._services: list[Child] = []
        self._gateway_port: int | None = None
        self._watch = Watch(report)
        self.state: state.StackState | None = None

    async def start(self) -> state.StackState:
        """Start everything and return its addresses once all of it is ready.

        Raises:
            LocalStackError: Something could not be started; its message says what and why.
        """
        self._lock = state.hold(self.config.state_dir)
        state.forget(self.config.state_dir)  # what a killed stack left
        try:
            await self._start()
        except BaseException:
            await self.stop()  # cancelled once more, it kills instead of asking
            raise
        assert self.state is not None  # noqa: S101 - `_start` has set it
        return self.state

    async def _start(self) -> None:
        self._keep_last_logs()
        model_paths = await model_files(self.config, self._report)
        nats = self._nats = self._make_nats()
        await self._up(nats)
        self._engines = self._make_engines(model_paths)
        await self._all_up(self._engines.values())
        await self._provision(nats.url)
        self._services = self._make_services(nats.url)
        await self._all_up(self._services)
        self.state = self._describe(nats)
        state.write(self.state)
        self._watch.start([nats, *self._engines.values(), *self._services])
        log.info("stack_ready", nats_url=nats.url, engine_urls=self.state.engine_urls)

    async def wait_failed(self) -> LocalStackError:
        """Wait until a part keeps ending and return why; cancel it to stop waiting."""
        return await self._watch.failed()

    async def stop(self) -> None:
        """Stop everything, services first, NATS last; nothing is left when it returns."""
        everything = [*self._services, *self._engines.values(), *filter(None, [self._nats])]
        try:
            await self._watch.stop()
            await self._all_down(self._services)
            await self._all_down(self._engines.values())
            await self._all_down(filter(None, [self._nats]))
        finally:
            for child in everything:
                child.kill()
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            state.forget(self.config.state_dir)
            self._lock.close()
            self._lock = None

    def _make_nats(self) -> NatsServer:
        options = self.config
        return NatsServer(
            options.store_dir,
            options.nats_port,
            options.nats_monitor_port,
            log_path=self._log_path("nats-server"),
            book=self._book,
        )

    def _make_engines(self, model_paths: Mapping[str, Path]) -> dict[str, Child]:
        free = ports.free_ports(len(model_paths))
        return {
            pool: self._make_engine(pool, path, free_port)
            for (pool, path), free_port in zip(model_paths.items(), free, strict=True)
        }

    def _make_engine(self, pool: str, model: Path, free_port: int) -> Child:
        options, name = self.config.pools()[pool], f"engine-{pool}"
        engine = EngineOptions(
            model=model,
            port=ports.claim(options.port, name) if options.port else free_port,
            # One more than its worker has: the planner calls the large engine too.
            slots=options.slots + (pool == "large"),
            context_tokens_per_slot=options.context_tokens_per_slot,
            threads=options.threads,
            verbose=self.config.verbose_engines,
        )
        return Child(engine.process_spec(name), self._log_path(name))

    def _make_services(self, nats_url: str) -> list[Child]:
        common = services.common_env(self.config, nats_url, self._engine_urls())
        free = ports.free_ports(len(self._service_specs))
        self._gateway_port = self._claim_gateway_port()
        specs = [
            services.process_spec(
                service, port, common, http_port=self._gateway_port, book=self._book
            )
            for service, port in zip(self._service_specs, free, strict=True)
        ]
        return [Child(spec, self._log_path(spec.name)) for spec in specs]

    def _claim_gateway_port(self) -> int | None:
        if all(service.name != services.GATEWAY for service in self._service_specs):
            return None
        wanted = self.config.gateway_port
        if wanted is None:
            return ports.prefer(services.GATEWAY_PORT)
        return ports.claim(wanted, services.GATEWAY)

    def _engine_urls(self) -> dict[str, list[str]]:
        own = {
            pool: [f"http://{ports.HOST}:{engine.spec.port}"]
            for pool, engine in self._engines.items()
        }
        given = {pool: list(options.urls) for pool, options in self.config.pools().items()}
        return {**given, **own}

    def _describe(self, nats: NatsServer) -> state.StackState:
        return state.StackState(
            pid=os.getpid(),
            nats_url=nats.url,
            nats_monitor_url=nats.monitor_url,
            engine_urls=self._engine_urls(),
            health_ports={child.spec.name: child.spec.port for child in self._services},
            state_dir=self.config.state_dir,
            gateway_url=f"http://{ports.HOST}:{self._gateway_port}" if self._gateway_port else None,
            auth_dir=self._book.folder if self._book else None,
        )

    async def _up(self, child: Child) -> None:
        self._say(StackStep.STARTING, child)
        started_s = time.monotonic()
        child.launch()
        await child.ready()
        self._say(StackStep.READY, child, took_s=time.monotonic() - started_s)

    async def _all_up(self, children: Iterable[Child]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(self._up(child), name=f"start {child.spec.name}")
        except ExceptionGroup as failures:
            ours = failures.subgroup(LocalStackError)
            raise (ours or failures).exceptions[0] from None

    async def _all_down(self, children: Iterable[Child]) -> None:
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(self._down(child), name=f"stop {child.spec.name}")

    async def _down(self, child: Child) -> None:
        if child.alive:
            self._say(StackStep.STOPPING, child)
            asked = await child.stop()
            self._say(StackStep.STOPPED if asked else StackStep.KILLED, child)

    def _say(self, step: StackStep, child: Child, *, took_s: float | None = None) -> None:
        log.info("process", step=step, process=child.spec.name, took_s=took_s)
        self._report(StackEvent(step, child.spec.name, took_s=took_s))

    def _log_path(self, name: str) -> Path:
        return self.config.logs_dir / f"{name}.log"

    def _keep_last_logs(self) -> None:
        """Keep the logs of this run and of the one before, so that they cannot fill the disk."""
        if self.config.logs_dir.is_dir():
            before = self.config.logs_dir.with_name("logs.before")
            shutil.rmtree(before, ignore_errors=True)
            self.config.logs_dir.rename(before)
