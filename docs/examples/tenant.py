"""Follows a request with a tenant's credentials: `python tenant.py QUESTION [REQUEST]`."""

import json
import sys
from collections.abc import AsyncIterator

import nats.errors
from connecting import connect, new_id, run
from follow import ENDS, submit
from nats.aio.client import Client
from nats.aio.msg import Msg


async def stored(connection: Client, request: str, kind: str) -> Msg | None:
    """Return the fact of this kind, if it is stored."""
    subject = f"SKELGRAPH_EVENTS.skelgraph.v1.event.*.{request}.{kind}"
    reply = await connection.request(f"$JS.API.DIRECT.GET.{subject}", timeout=5)
    return None if "Status" in (reply.headers or {}) else reply


async def numbered(connection: Client, request: str, kind: str) -> list[Msg]:
    """Return the facts `kind.1`, `kind.2` and so on, as far as they go."""
    found: list[Msg] = []
    while fact := await stored(connection, request, f"{kind}.{len(found) + 1}"):
        found.append(fact)
    return found


async def read(connection: Client, request: str) -> list[Msg]:
    """Return all facts that are stored so far, in their order."""
    found = await numbered(connection, request, "planned")
    nodes = [0, *(json.loads(fact.data)["node"]["id"] for fact in found)]  # 0: the direct answer
    for kind in ["accepted", "plan", "end", *(f"decoded.{node}" for node in nodes)]:
        if fact := await stored(connection, request, kind):
            found.append(fact)
    for node in nodes:
        found += await numbered(connection, request, f"failed.{node}")
    return sorted(found, key=position)


def position(fact: Msg) -> int:
    """Return where in the log a fact stands."""
    return int((fact.headers or {})["Nats-Sequence"])


async def facts(connection: Client, question: str, request: str) -> AsyncIterator[Msg]:
    """Store the request, and yield its facts, each once."""
    said = await connection.subscribe(f"skelgraph.v1.fact.*.{request}.>")
    await submit(connection.jetstream(), request, question)
    fresh, seen = await read(connection, request), set[int]()
    while True:
        for fact in fresh:
            if position(fact) not in seen:
                seen.add(position(fact))
                yield fact
        try:
            fresh = [await said.next_msg(timeout=10)]
        except nats.errors.TimeoutError:  # nothing to be said, or core NATS has lost it
            fresh = await read(connection, request)


async def follow(question: str, request: str) -> None:
    """Print each fact with its position, then the answer."""
    connection = await connect()
    async for message in facts(connection, question, request):
        fact = json.loads(message.data)
        print(position(message), fact["type"], fact.get("node") or "")
        if fact["type"] in ENDS:
            print(fact.get("text") or fact.get("error"))
            break
    await connection.close()


if __name__ == "__main__":
    run(follow(sys.argv[1], sys.argv[2] if sys.argv[2:] else new_id()))
