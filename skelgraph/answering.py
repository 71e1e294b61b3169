"""Asks a question and follows its answer to the end; what it did not finish, it cancels."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import orjson

from proto.errors import DeadlineExceeded, SkelgraphError
from proto.messages import AnswerAssembled, RequestFailed, SubmitRequest
from services.runtime.client import END_TYPES, Client, Ending, error_of
from services.runtime.facts import StoredFact
from services.runtime.order import Grain, OrderedText
from skelgraph.outlet import Outlet
from skelgraph.progress import Kind, Show, make_show
from skelgraph.remote import RemoteClient
from skelgraph.view import Dag

AnyClient = Client | RemoteClient

#: How long after its deadline a request may take to be ended by the services.
GRACE_S: Final = 15.0
AGAIN: Final = "Ctrl-C again ends at once"


@dataclass(frozen=True, slots=True)
class Manner:
    """How an answer and the way to it are shown.

    Args:
        progress: on stderr.
        grain: the portions in which the answer comes to stdout.
        as_json: the end as JSON instead, with its timings.
    """

    progress: Kind
    grain: Grain = "whole"
    as_json: bool = False


async def ask(client: AnyClient, request: SubmitRequest, request_id: str, manner: Manner) -> Ending:
    """Submit `request`, print its answer as it comes, and return its end.

    When this is cancelled, or the reader of stdout goes away, the request is cancelled too.

    Raises:
        SkelgraphError: it could not be submitted, or nothing ended it in time.
        BrokenPipeError: the reader of stdout has gone.
    """
    try:
        request_id = await client.submit(request, request_id)
        async with asyncio.timeout(request.deadline_s + GRACE_S):
            return await follow(client, request_id, manner)
    except (asyncio.CancelledError, BrokenPipeError):
        await _cancel(client, request_id, manner.progress)
        raise
    except TimeoutError:
        await _cancel(client, request_id, manner.progress)
        late = f"no service has ended it {GRACE_S:g} s after that: are all of them running?"
        raise DeadlineExceeded(late) from None


async def follow(client: AnyClient, request_id: str, manner: Manner) -> Ending:
    """Show how a request goes, print its answer, and return its end."""
    show = make_show(manner.progress, Dag(request_id, time.time()))
    order = None if manner.as_json else OrderedText(manner.grain)
    async with show:
        end = await _until_end(client, request_id, show, order)
    if isinstance(end, AnswerAssembled):
        show.summary(end)
    if manner.as_json:
        print_json(end)
    return end


async def _until_end(
    client: AnyClient, request_id: str, show: Show, order: OrderedText | None
) -> Ending:
    async with aclosing(client.listen(request_id)) as heard:
        async for one in heard:
            event = one.fact if isinstance(one, StoredFact) else one
            show.event(event, one.stored_at if isinstance(one, StoredFact) else time.time())
            for output in order.fold(event) if order else ():
                if isinstance(output, str):
                    show.text(output)
                else:
                    show.mark(output)
            if isinstance(event, END_TYPES):
                return event
    raise AssertionError("following ends with the end")


async def _cancel(client: AnyClient, request_id: str, kind: Kind) -> None:
    say(f"cancelling request {request_id} ({AGAIN})", kind)
    try:
        outcome = await client.cancel(request_id, "the client was interrupted")
    except SkelgraphError as error:
        say(f"request {request_id} could not be cancelled: {error.message}", kind)
    else:
        say(f"request {request_id}: {outcome.outcome.replace('_', ' ')}", kind)


def report(end: Ending) -> int:
    """Return the exit code for `end`; say why there is no answer."""
    if not isinstance(end, RequestFailed):
        return 0
    complain(error_of(end.error), code=end.error.code, message=end.error.message)
    return 1


def complain(error: SkelgraphError, *, code: str = "", message: str = "") -> None:
    """Say in one line what went wrong."""
    said = f"error: {message or error.message} ({code or error.code})"
    if error.retry_after_s is not None:
        said += f"; try again in {error.retry_after_s:g} s"
    print(said, file=sys.stderr, flush=True)


def say(text: str, kind: Kind) -> None:
    """Tell a person something, unless stderr is meant for a program or for nobody."""
    if kind not in {"json", "quiet"}:
        print(text, file=sys.stderr, flush=True)


def print_json(end: Ending) -> None:
    """Print an end as JSON."""
    data = orjson.dumps(end.model_dump(mode="json"), option=orjson.OPT_INDENT_2)
    Outlet(sys.stdout).write(data.decode() + "\n")
