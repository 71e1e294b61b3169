"""What the commands do, apart from reading their options."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import textwrap
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import orjson
from rich.console import Console

from proto.messages import SkeletonDrafted, SubmitRequest
from services.runtime.client import Ending, make_request
from services.runtime.order import Grain
from services.runtime.streams import StreamLimits
from skelgraph import answering, skeleton, status
from skelgraph.answering import Manner
from skelgraph.draw import glyphs_for
from skelgraph.local.state import StackState, find_running
from skelgraph.session import (
    NothingRuns,
    Session,
    Where,
    first_failure,
    provision_at,
    reach,
    started,
)

#: Has parts that do not need each other, and one that needs them all.
DEMO_QUESTION: Final = (
    "What should a small company consider before it moves its office to another city? "
    "Cover costs, staff and customers, and end with a recommendation."
)
NEXT: Final = """
next:  skelgraph up            keep everything running, in another terminal
       skelgraph ask "…"       ask it something
       skelgraph plan "…"      see a skeleton without an answer
       skelgraph ask --help    modes, limits, engines of your own"""
PlanForm = Literal["tree", "mermaid", "json"]


async def ask(where: Where, request: SubmitRequest, manner: Manner) -> int:
    """Answer one question, on what runs or on a stack of its own."""
    async with reach(where, may_start=True) as session:
        return await _ask(session, request, manner)


async def plan(where: Where, request: SubmitRequest, form: PlanForm) -> int:
    """Draft a skeleton and print it."""
    async with reach(where, may_start=True) as session:
        manner = Manner(where.progress, as_json=form == "json")
        return await _ask(session, request, manner, form)


async def demo(where: Where, question: str, grain: Grain) -> int:
    """Start everything, answer a sample question, say what to do next, stop everything."""
    request = make_request(question=question, mode="sgd")
    async with reach(where, may_start=True) as session:
        columns = shutil.get_terminal_size().columns
        answering.say(textwrap.fill(f"question: {question}", columns) + "\n", where.progress)
        code = await _ask(session, request, Manner(where.progress, grain))
    if code == 0:
        answering.say(NEXT, where.progress)
    return code


async def up(where: Where, http_port: int | None = None, auth_dir: Path | None = None) -> int:
    """Keep a stack running, with a gateway, until it is interrupted."""
    stack_config = replace(where.stack, gateway=True, gateway_port=http_port, auth_dir=auth_dir)
    async with started(replace(where, stack=stack_config)) as (stack, state, startup):
        startup.say(_addresses(state))
        try:
            raise await stack.wait_failed()
        except asyncio.CancelledError:
            return 0  # Ctrl-C is how `up` is meant to end


async def watch(where: Where, request_id: str, manner: Manner) -> int:
    """Follow a request that was asked elsewhere; leaving it does not touch it."""
    async with reach(where, may_start=False) as session:
        await session.client.state(request_id)
        following = answering.follow(session.client, request_id, manner)
        try:
            return await first_failure(session, _task(_shown(following, manner, "tree")))
        except asyncio.CancelledError:
            answering.say(f"stopped watching; request {request_id} goes on", manner.progress)
            raise


async def cancel(where: Where, request_id: str, reason: str) -> int:
    """Cancel a request."""
    async with reach(where, may_start=False) as session:
        outcome = (await session.client.cancel(request_id, reason)).outcome
        if outcome == "unknown":
            await session.client.state(request_id)  # says what is wrong
        print(f"request {request_id}: {outcome.replace('_', ' ')}")
        return 0 if outcome != "unknown" else 1


async def show_status(where: Where, *, as_json: bool) -> int:
    """Print what runs and what waits."""
    async with reach(where, may_start=False) as session:
        state = None if where.nats_url else find_running(where.stack.state_dir)
        url = where.nats_url or (state.nats_url if state else "")
        found = await status.look(session.over_nats.connection, state, url)
    if as_json:
        print(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        console = _console()
        console.print(f"NATS {found.nats_url}")
        for table in status.table(found):
            console.print()
            console.print(table)
    return 0 if found.is_healthy else 1


async def provision(where: Where, limits: StreamLimits) -> int:
    """Make the streams of a deployment."""
    state = None if where.nats_url else find_running(where.stack.state_dir)
    url = where.nats_url or (state.nats_url if state else None)
    if url is None:
        raise NothingRuns
    access = state.access(where.access, "provision") if state else where.access
    await provision_at(url, limits, access=access)
    print(f"streams and consumers are in place on {url} ({limits.partitions} partitions)")
    return 0


async def _ask(
    session: Session, request: SubmitRequest, manner: Manner, form: PlanForm = "tree"
) -> int:
    asking = answering.ask(session.client, request, session.client.new_id(), manner)
    return await first_failure(session, _task(_shown(asking, manner, form)))


async def _shown(ending: Coroutine[object, object, Ending], manner: Manner, form: PlanForm) -> int:
    end = await ending
    if isinstance(end, SkeletonDrafted) and not manner.as_json:
        _print_skeleton(end, form)
    return answering.report(end)


def _print_skeleton(drafted: SkeletonDrafted, form: PlanForm) -> None:
    if form == "mermaid":
        print(skeleton.mermaid(drafted.nodes))
    else:
        glyphs = glyphs_for(sys.stdout.encoding, os.environ.get("TERM", ""))
        _console().print(skeleton.tree(drafted, glyphs))


def _task(work: Coroutine[object, object, int]) -> asyncio.Task[int]:
    return asyncio.create_task(work, name="command")


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def _addresses(state: StackState) -> str:
    engines = [
        f"  {pool + ' pool':<12}{url}" for pool, urls in state.engine_urls.items() for url in urls
    ]
    return "\n".join(
        [
            "everything runs:",
            *_gateway_lines(state),
            f"  {'NATS':<12}{state.nats_url}   (monitoring: {state.nats_monitor_url})",
            *engines,
            f"  {'logs':<12}{state.state_dir / 'logs'}",
            f'ask, in another terminal:  skelgraph ask "…"{_or_in_browser(state)}',
            "Ctrl-C stops everything.",
        ]
    )


def _gateway_lines(state: StackState) -> list[str]:
    if state.gateway_url is None:
        return []
    base = f"OpenAI-compatible API: {state.gateway_url}/v1"
    return [f"  {'gateway':<12}{state.gateway_url}   ({base})"]


def _or_in_browser(state: StackState) -> str:
    return f"   or open {state.gateway_url} in a browser" if state.gateway_url else ""
