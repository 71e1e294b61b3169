"""LangGraph: nodes are coroutines of one process; the state may be checkpointed after each step.

Graphs are compiled once a shape and kept, in its favour: a plan of a request's own would have to be
compiled for each request.
"""

from __future__ import annotations

import operator
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from bench.overhead.peers.peer import TEXT, Where
from bench.overhead.shapes import Shape


class State(TypedDict):
    """What nodes hand on: texts, and when each was done."""

    texts: Annotated[dict[int, str], operator.or_]
    done_at: Annotated[dict[int, float], operator.or_]


class LangGraph:
    """Runs graphs in this process.

    Args:
        saver: keeps the state after each step, or None.
    """

    def __init__(self, saver: Any = None) -> None:  # noqa: ANN401  # its package is not ours
        self._saver = saver
        self._compiled: dict[Shape, Any] = {}

    async def run(self, shape: Shape) -> list[float]:
        """Run one graph."""
        if shape not in self._compiled:
            self._compiled[shape] = _graph(shape).compile(checkpointer=self._saver)
        config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 1000}
        # With a saver: the state is stored before the next step begins, as our facts are.
        durable = {"durability": "sync"} if self._saver else {}
        start: State = {"texts": {}, "done_at": {}}
        state = await self._compiled[shape].ainvoke(start, config, **durable)
        return [state["done_at"][node] for node in shape.nodes]


def _graph(shape: Shape) -> Any:  # noqa: ANN401
    graph = StateGraph(State)
    dependants = shape.dependants()
    for node in shape.nodes:
        graph.add_node(f"n{node}", partial(_step, node))
    for node in shape.nodes:
        needs = [f"n{need}" for need in shape.needs_of(node)]
        graph.add_edge(needs or START, f"n{node}")
        if not dependants[node]:
            graph.add_edge(f"n{node}", END)
    return graph


async def _step(node: int, state: State) -> dict[str, object]:
    del state
    return {"texts": {node: TEXT}, "done_at": {node: time.perf_counter()}}


@asynccontextmanager
async def in_memory(where: Where) -> AsyncIterator[LangGraph]:
    """Give a LangGraph that keeps nothing."""
    del where
    yield LangGraph()


@asynccontextmanager
async def in_sqlite(where: Where) -> AsyncIterator[LangGraph]:
    """Give a LangGraph with its SQLite checkpointer, on a file."""
    async with AsyncSqliteSaver.from_conn_string(str(where.folder / "langgraph.db")) as saver:
        yield LangGraph(saver)
