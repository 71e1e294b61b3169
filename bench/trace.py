"""One request's trace, as it is exported: `python -m bench.trace`.

Starts all services on simulated engines with a receiver of OTLP beside them, asks the gateway one
question and draws the trace that arrived. Engines of your own: `--large-url`, `--small-url`.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Final

import httpx2
import typer

from bench.collector import Collector
from bench.simulated_stack import simulated_stack
from bench.trace_tree import draw
from services.runtime import logs

QUESTION: Final = "How does a lighthouse work, who built the first, and which still stand?"


async def ask(gateway_url: str, question: str) -> None:
    """Ask the gateway for a streamed chat completion, and read it to its end."""
    body = {
        "model": "skelgraph-sgd",
        "messages": [{"role": "user", "content": question}],
        "stream": True,
    }
    async with httpx2.AsyncClient(trust_env=False, timeout=120) as http:
        reply = await http.post(f"{gateway_url}/v1/chat/completions", json=body)
        reply.raise_for_status()


async def _draw(question: str, time_scale: float, folder: Path) -> str:
    slower = ("--time-scale", str(time_scale))
    large = ("--dialect", "tgi", "--profile", "llama-70b-4xh100", *slower)
    small = ("--dialect", "vllm", "--profile", "llama-8b-1xh100", *slower)
    with Collector() as collector:
        async with simulated_stack(
            folder, env=collector.environment, large=large, small=small
        ) as state:
            assert state.gateway_url
            await ask(state.gateway_url, question)
            collector.trace_with("request")
        # They have ended, and sent what they had.
        return draw(collector.trace_with("request"))


def main(
    question: Annotated[str, typer.Option(help="to be asked")] = QUESTION,
    time_scale: Annotated[
        float, typer.Option(help="real seconds of a second of the simulated engines")
    ] = 0.5,
) -> None:
    """Ask one question and print its trace."""
    logs.configure("error", "console")
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(_draw(question, time_scale, Path(folder))))


if __name__ == "__main__":
    typer.run(main)
