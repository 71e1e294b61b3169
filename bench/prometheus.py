"""A real Prometheus that scrapes a local stack as the PodMonitors have it in a cluster.

The binary is Debian's (`apt-get install prometheus`); no registry that we use has it as a wheel.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from skelgraph.local import ports
from skelgraph.local.state import StackState

Json = dict[str, Any]
SCRAPE_S: Final = 2


@dataclass(frozen=True, slots=True)
class Series:
    """An answer of a query: its labels, and its values over time (seconds since the epoch)."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


class NoPrometheus(Exception):
    """There is no `prometheus` on the PATH."""


class Prometheus:
    """Asks a Prometheus.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20)

    async def ready(self) -> None:
        """Return when it answers and has scraped every target."""
        while True:
            try:
                up = await self.query("up")
                if up and all(one.points[-1][1] == 1 for one in up):
                    return
            except httpx2.HTTPError:
                pass  # it is starting
            await asyncio.sleep(0.2)

    async def query(self, expression: str) -> list[Series]:
        """Return what `expression` is now."""
        reply = await self._http.get("/api/v1/query", params={"query": expression})
        return [_series(one, [one["value"]]) for one in _result(reply)]

    async def query_range(
        self, expression: str, start_at: float, end_at: float, step_s: float
    ) -> list[Series]:
        """Return what `expression` was over time."""
        params: dict[str, str | float] = {"query": expression}
        params |= {"start": start_at, "end": end_at, "step": step_s}
        reply = await self._http.get("/api/v1/query_range", params=params)
        return [_series(one, one["values"]) for one in _result(reply)]

    async def close(self) -> None:
        """Ask no more."""
        await self._http.aclose()


@asynccontextmanager
async def prometheus(folder: Path, state: StackState) -> AsyncIterator[Prometheus]:
    """Run one over a stack within the block; all targets have been scraped at its start.

    Raises:
        NoPrometheus: it is not installed.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        raise NoPrometheus("Debian has it: apt-get install prometheus")
    file, port = _written(folder, state), ports.free_port()
    process = await asyncio.create_subprocess_exec(
        binary,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    asked = Prometheus(f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(60):
            await asked.ready()
        yield asked
    finally:
        await asked.close()
        process.terminate()
        await process.wait()


def _written(folder: Path, state: StackState) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(_config(state)))  # JSON is YAML
    return file


def _config(state: StackState) -> Json:
    services = [
        {"targets": [f"127.0.0.1:{port}"], "labels": _service_labels(name)}
        for name, port in state.health_ports.items()
    ]
    engines = [
        {"targets": [urlsplit(url).netloc], "labels": {"namespace": "skelgraph", "pool": pool}}
        for pool, urls in state.engine_urls.items()
        for url in urls
    ]
    return {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s"},
        "scrape_configs": [
            {"job_name": "services", "static_configs": services},
            {"job_name": "engines", "static_configs": engines},
        ],
    }


def _service_labels(name: str) -> dict[str, str]:
    component, _, pool = name.partition("-")
    labels = {"namespace": "skelgraph", "component": component}
    return {**labels, "worker_pool": pool} if pool else labels


def _result(reply: httpx2.Response) -> list[Json]:
    reply.raise_for_status()
    result: list[Json] = reply.json()["data"]["result"]
    return result


def _series(one: Json, values: Sequence[tuple[float, str]]) -> Series:
    return Series(one["metric"], [(float(at), float(value)) for at, value in values])
