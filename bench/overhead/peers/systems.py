"""The systems of the comparison: where each is, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench.overhead.peers.peer import Kind

OURS: Final = "Skelgraph"
RAW: Final = "raw nats-py"
_PACKAGE: Final = "bench.overhead.peers"

#: For each peer the module, and what opens it there.
MODULES: Final[Mapping[str, tuple[str, str]]] = {
    "LangGraph": (f"{_PACKAGE}.on_langgraph", "in_memory"),
    "LangGraph, SQLite": (f"{_PACKAGE}.on_langgraph", "in_sqlite"),
    "FastStream": (f"{_PACKAGE}.on_faststream", "on_nats"),
    "taskiq": (f"{_PACKAGE}.on_taskiq", "on_nats"),
    "Dask": (f"{_PACKAGE}.on_dask", "on_a_local_cluster"),
    "Ray": (f"{_PACKAGE}.on_ray", "on_this_machine"),
}

KINDS: Final[Mapping[str, Kind]] = {
    OURS: Kind("work, results, graph, answer", "yes", "stored, pushed"),
    RAW: Kind("work, results", "yes", "stored, pushed"),
    "LangGraph": Kind("nothing", "no: a coroutine", "in memory"),
    "LangGraph, SQLite": Kind("state after each step", "no: a coroutine", "in memory"),
    "FastStream": Kind("work, results; no graph", "yes", "stored, pushed"),
    "taskiq": Kind("work, results; no graph", "yes", "stored, polled every 2 ms"),
    "Dask": Kind("nothing", "yes", "pushed, not stored"),
    "Ray": Kind("nothing", "yes", "pushed, not stored"),
}
