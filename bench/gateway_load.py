"""The processes beside the gateway in `bench.gateway`: who makes events, and who reads them.

Each is a process of its own, so that its processor time is its own. They tell what they see as
JSON lines on stdout; instants are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import orjson
import uvloop

from proto.codec import decode, encode
from proto.messages import (
    AnswerAssembled,
    NodeDecoded,
    NodePlanned,
    NodeReport,
    NodeSpec,
    NodeStarted,
    PlanCompleted,
    RequestAccepted,
    SubmitRequest,
    Timings,
    TokensDecoded,
    Usage,
)
from proto.names import PLANNER_CONSUMER, Pool, Stream, Subjects, request_of
from services.runtime import logs
from services.runtime.client import Client
from services.runtime.connection import Connection
from services.runtime.facts import EventLog, StoredFact
from services.runtime.order import OrderedText
from services.runtime.publisher import DurablePublisher
from services.runtime.pull import ConsumerPull, Delivery

WORD = "word "
SPEC = NodeSpec(id=1, summary="the only part")


def say(**told: object) -> None:
    """Tell the bench something."""
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    sys.stdout.flush()


async def hear() -> dict[str, object]:
    """Return what the bench says next."""
    line = await asyncio.to_thread(sys.stdin.buffer.readline)
    told: dict[str, object] = orjson.loads(line)
    return told


async def connect(url: str) -> tuple[Connection, DurablePublisher]:
    """Connect to NATS."""
    connection = Connection([url], name="bench")
    await connection.open(timeout_s=10)
    publisher = DurablePublisher(connection)
    await publisher.open()
    return connection, publisher


# --- events ---------------------------------------------------------------------------


async def make_events(url: str, partitions: int, streams: int, tokens: int, rate: float) -> None:
    """Take `streams` requests up, and answer each with `tokens` tokens, `rate` a second."""
    connection, publisher = await connect(url)
    events = EventLog(connection, publisher, partitions)
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = ConsumerPull(connection, Stream.REQUESTS, PLANNER_CONSUMER, taken.put_nowait)
    await pull.start()
    pull.want(64)
    requests = [await _plan(await taken.get(), events) for _ in range(streams)]
    say(requests=requests)
    await hear()
    spread_s = 1 / rate / streams  # so that tokens come evenly, not all at once
    async with asyncio.TaskGroup() as group:
        for number, request in enumerate(requests):
            speaking = _speak(connection, events, request, tokens, rate, number * spread_s)
            group.create_task(speaking)
    say(done=True, cpu_s=time.process_time())


async def _plan(delivery: Delivery, events: EventLog) -> str:
    request = request_of(delivery.subject)
    submitted = decode(SubmitRequest, delivery.data)
    at = delivery.stored_at
    accepted = RequestAccepted(
        request=request, submitted=submitted, submitted_at=at, deadline_at=at + 600
    )
    await events.append(accepted)
    await events.append(NodePlanned(request=request, node=SPEC, line="1. part", planned_ms=1))
    await events.append(_plan_of(request))
    await delivery.ack()
    return request


def _plan_of(request: str) -> PlanCompleted:
    return PlanCompleted(request=request, mode="sgd", reason="planned", nodes=(1,))


async def _speak(
    connection: Connection,
    events: EventLog,
    request: str,
    tokens: int,
    rate: float,
    delay_s: float,
) -> None:
    subject, begin = Subjects.live(request, 1), time.monotonic() + delay_s
    started = NodeStarted(
        request=request,
        node=1,
        attempt=1,
        pool=Pool.LARGE,
        worker="w",
        endpoint="e",
        max_tokens=10 * tokens + 1000,
    )
    await connection.publish(subject, encode(started))
    for number in range(tokens):
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        piece = TokensDecoded(
            request=request,
            node=1,
            attempt=1,
            offset=number * len(WORD),
            text=WORD,
            tokens=number + 1,
        )
        await connection.publish(subject, encode(piece))
    await events.append(_decoded(request, tokens))
    await events.append(_answer(request, tokens))


def _decoded(request: str, tokens: int) -> NodeDecoded:
    return NodeDecoded(
        request=request,
        node=1,
        attempt=1,
        text=WORD * tokens,
        finish_reason="stop",
        pool=Pool.LARGE,
        model="m",
        endpoint="e",
        worker="w",
        queued_ms=0,
        slot_wait_ms=0,
        first_token_ms=1,
        decode_ms=1,
        usage=Usage(generated_tokens=tokens),
    )


def _answer(request: str, tokens: int) -> AnswerAssembled:
    report = NodeReport(
        node=SPEC,
        pool=Pool.LARGE,
        model="m",
        endpoint="e",
        attempt=1,
        finish_reason="stop",
        queued_ms=0,
        slot_wait_ms=0,
        first_token_ms=1,
        decode_ms=1,
        usage=Usage(generated_tokens=tokens),
        start=0,
        end=len(WORD) * tokens,
    )
    timings = Timings(
        wall_ms=1,
        plan_ms=0,
        critical_path=(1,),
        critical_engine_ms=1,
        critical_slot_wait_ms=0,
        overhead_ms=0,
        sequential_ms=1,
    )
    return AnswerAssembled(
        request=request,
        mode="sgd",
        text=WORD * tokens,
        nodes=(report,),
        plan=_plan_of(request),
        usage=Usage(generated_tokens=tokens),
        timings=timings,
    )


# --- readers --------------------------------------------------------------------------


async def read_nats(url: str) -> None:
    """Read the same events from NATS, as our command line does."""
    connection, publisher = await connect(url)
    client = Client(connection, publisher)
    told = await hear()
    requests = told["requests"]
    assert isinstance(requests, list)
    reading = [asyncio.create_task(_read_nats(client, str(one))) for one in requests]
    await asyncio.sleep(0.01 * len(requests) + 1)  # consumers are made
    say(ready=True)
    cpu_s = time.process_time()
    firsts = dict(await asyncio.gather(*reading))
    say(firsts=firsts, cpu_s=time.process_time() - cpu_s)


async def _read_nats(client: Client, request: str) -> tuple[str, float]:
    order, first_at = OrderedText("live"), 0.0
    async with aclosing(client.listen(request)) as heard:
        async for one in heard:
            out = order.fold(one.fact if isinstance(one, StoredFact) else one)
            if out and not first_at:
                first_at = time.monotonic()
    return request, first_at


async def read_http(url: str, streams: int, tokens: int) -> None:
    """Ask for so many streams, and read them over bare sockets: what they cost is not ours."""
    firsts: dict[str, float] = {}
    opened = asyncio.Semaphore(16)
    port = int(url.rpartition(":")[2])
    reading = [_read_http(port, firsts, opened) for _ in range(streams)]
    texts = await asyncio.gather(*reading)
    whole = sum(text == tokens for text in texts)
    say(firsts=firsts, whole=whole, words=sum(texts), cpu_s=time.process_time())


async def _read_http(port: int, firsts: dict[str, float], opened: asyncio.Semaphore) -> int:
    body = orjson.dumps(
        {
            "model": "skelgraph-sgd",
            "messages": [{"role": "user", "content": "?"}],
            "stream": True,
        }
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: "
        f"application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    async with opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        got = await reader.readuntil(b"\r\n\r\n")
    request = next(
        line.partition(b": ")[2].decode()
        for line in got.split(b"\r\n")
        if line.lower().startswith(b"x-request-id")
    )
    words = 0
    while piece := await reader.read(65536):
        if found := piece.count(WORD.encode()):
            firsts.setdefault(request, time.monotonic())
            words += found
    writer.close()
    return words


ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "events": make_events,
    "nats": read_nats,
    "http": read_http,
}


def main() -> None:
    """Play a role: its name and its arguments as JSON."""
    role, arguments = sys.argv[1], orjson.loads(sys.argv[2])
    logs.configure("error", "console")
    uvloop.run(_play(role, arguments))


async def _play(role: str, arguments: dict[str, object]) -> None:
    await ROLES[role](**arguments)


if __name__ == "__main__":
    main()
