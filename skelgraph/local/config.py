"""What a local stack is made of. Pure: nothing here starts or opens anything.

Sizes. Two engines with one thread each have the throughput of one engine with two, and a busy
neighbour slows only one of them, where it slows a two-threaded engine fourfold; so each engine
gets half of the cores. More slots than four buy little more throughput on a CPU and make every
single node slower; two or three hardly beat one. So four slots each: as wide as most skeletons.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from skelgraph.local import catalogue, folders

SLOTS = 4
CONTEXT_TOKENS_PER_SLOT = 2560
FALLBACK_MODEL = catalogue.SMALL.name


def engine_threads(cores: int | None = None) -> int:
    """Return the threads of each of the two engines: half of the cores, at least one."""
    return max(1, (cores or os.cpu_count() or 1) // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """One pool: an engine of this machine, or engines that run already (`urls`).

    `model` is a name of the catalogue or the path of a GGUF file; it, `threads`, `port` and the
    context mean nothing when there are `urls`. `slots` is also how many nodes the pool's worker
    decodes at once.
    """

    model: str
    urls: tuple[str, ...] = ()
    slots: int = SLOTS
    context_tokens_per_slot: int = CONTEXT_TOKENS_PER_SLOT
    threads: int = field(default_factory=engine_threads)
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """A whole stack; ports of 0 become free ones. `env` is added to every service's.

    The gateway is for whoever stays: `gateway_port` None is the usual one if it is free.
    """

    large: PoolConfig = PoolConfig(model=catalogue.LARGE.name)
    small: PoolConfig = PoolConfig(model=catalogue.SMALL.name)
    nats_port: int = 0
    nats_monitor_port: int = 0
    gateway: bool = False
    gateway_port: int | None = None
    state_dir: Path = field(default_factory=folders.state_dir)
    models_dir: Path = field(default_factory=folders.models_dir)
    log_level: str = "info"
    verbose_engines: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    #: Folder of the keys that NATS and services use; without one NATS lets everybody in.
    auth_dir: Path | None = None

    @property
    def logs_dir(self) -> Path:
        """Where each process's output goes."""
        return self.state_dir / "logs"

    @property
    def store_dir(self) -> Path:
        """Where NATS keeps its streams, across runs; without keys they are of another account."""
        return self.state_dir / ("nats-auth" if self.auth_dir else "nats")

    def pools(self) -> dict[str, PoolConfig]:
        """Return the pools by name."""
        return {"large": self.large, "small": self.small}

    def with_small_everywhere(self) -> StackConfig:
        """Return this stack with the small model in both pools, as the tests use it."""
        return replace(self, large=replace(self.large, model=self.small.model))
