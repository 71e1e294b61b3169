"""`python -m bench.overhead.worker`: the real worker with an engine that does nothing."""

from __future__ import annotations

import sys
from functools import partial

from pydantic import Field

from bench.overhead.noop import ENDPOINT, NoOpEngines
from proto.names import Pool
from services.runtime.lifecycle import run
from services.runtime.settings import EngineSettings, Urls
from services.worker.__main__ import WorkerSettings, serve


class NoOpSettings(WorkerSettings):
    """Decodes the nodes of one pool without an engine."""

    large_urls: Urls = (ENDPOINT,)
    small_urls: Urls = (ENDPOINT,)
    no_op_tokens: int = Field(1, ge=1, description="pieces of each text")
    no_op_gap_s: float = Field(0, ge=0, description="seconds from one to the next")


def engines_of(settings: EngineSettings, pool: Pool) -> NoOpEngines:
    """Return what stands for the engines of `pool`."""
    del pool
    if not isinstance(settings, NoOpSettings):
        raise TypeError("this worker needs its own settings")
    return NoOpEngines(settings.no_op_tokens, settings.no_op_gap_s)


def main() -> int:
    """Run the worker; return its exit code."""
    return run("worker-no-op", NoOpSettings.load(), partial(serve, engines_of=engines_of))


if __name__ == "__main__":
    sys.exit(main())
