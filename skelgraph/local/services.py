"""Which services a stack runs, and with what settings. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.runtime.credentials import Access
from skelgraph.auth.book import Book
from skelgraph.local.config import StackConfig
from skelgraph.local.process import ProcessSpec

_READY_PATH = "/readyz"

GATEWAY = "gateway"
#: Where the gateway listens if nobody else does.
GATEWAY_PORT = 8080


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service as a process: its command, and settings of its own beside the common ones."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_timeout_s: float = 8.0


def default_services(config: StackConfig) -> tuple[ServiceSpec, ...]:
    """Return every service of the product, as it runs in production."""
    workers = (_worker(pool, options.slots) for pool, options in config.pools().items())
    services = (_service("assembler"), *workers, _service("planner"))
    return (*services, _service(GATEWAY)) if config.gateway else services


def _service(name: str) -> ServiceSpec:
    return ServiceSpec(name, (sys.executable, "-m", f"services.{name}"))


def _worker(pool: str, slots: int) -> ServiceSpec:
    argv = (sys.executable, "-m", "services.worker", "--pool", pool)
    return ServiceSpec(f"worker-{pool}", argv, {"SKELGRAPH_SLOTS": str(slots)})


def common_env(
    config: StackConfig, nats_url: str, engine_urls: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the settings that every service gets."""
    pools = {f"SKELGRAPH_{pool.upper()}_URLS": ",".join(urls) for pool, urls in engine_urls.items()}
    return {
        "SKELGRAPH_NATS_URL": nats_url,
        "SKELGRAPH_LOG_FORMAT": "json",
        "SKELGRAPH_LOG_LEVEL": config.log_level,
        **pools,
        **_context(config),
        **config.env,
    }


def _context(config: StackConfig) -> dict[str, str]:
    own = [pool.context_tokens_per_slot for pool in config.pools().values() if not pool.urls]
    return {"SKELGRAPH_CONTEXT_TOKENS": str(min(own))} if own else {}


def process_spec(
    service: ServiceSpec,
    health_port: int,
    common: Mapping[str, str],
    *,
    http_port: int | None = None,
    book: Book | None = None,
) -> ProcessSpec:
    """Return how to run a service with its health pages on a port, and its API on another."""
    http = {"SKELGRAPH_HTTP_PORT": str(http_port)} if http_port else {}
    secret = shown(book.access(service.name.partition("-")[0])) if book else {}
    own = {"SKELGRAPH_HEALTH_PORT": str(health_port), **http, **secret, **service.env}
    return ProcessSpec(
        name=service.name,
        argv=service.argv,
        env={**common, **own},
        port=health_port,
        ready_path=_READY_PATH,
        stop_timeout_s=service.stop_timeout_s,
    )


def shown(access: Access) -> dict[str, str]:
    """Return the settings by which a service shows NATS what `access` names."""
    said = {"CREDS": access.creds, "CA": access.ca, "CERT": access.cert, "KEY": access.key}
    return {f"SKELGRAPH_NATS_{name}": path for name, path in said.items() if path}
