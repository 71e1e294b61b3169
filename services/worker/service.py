"""From a node to its text: one attempt, its tokens as they come, and how it ended.

The worker decides nothing about retries: it says how the attempt ended and the
assembler, which knows the request, decides what follows.
"""

from __future__ import annotations

import time

import structlog

from proto.codec import decode, encode
from proto.errors import (
    Cancelled,
    DeadlineExceeded,
    EmptyText,
    EngineError,
    MalformedMessage,
    MessageTooLarge,
    SkelgraphError,
    WorkerLost,
)
from proto.messages import (
    DecodeNode,
    ErrorInfo,
    NodeDecoded,
    NodeFailed,
    NodeReset,
    NodeStarted,
)
from proto.names import Subjects, work_of
from services.runtime import logs, metrics, tracing
from services.runtime.calls import Completion, Engines, EngineStream
from services.runtime.clock import ServerClock
from services.runtime.connection import Connection
from services.runtime.context import fitted
from services.runtime.facts import EventLog
from services.runtime.stops import Stops
from services.runtime.work import MAX_DELIVERIES, Job
from services.worker.preview import Preview
from services.worker.prompts import node_call
from services.worker.text import TextFilter

log = structlog.get_logger()


class Worker:
    """Decodes the nodes of one pool.

    Args:
        name: this replica, as it stands in facts.
        connection: for previews.
        events: where results go.
        engines: the pool's engines.
        stops: ends work that is of no more use.
        clock: NATS's clock, set.
        context_tokens: prompt and reply that the engines take together.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        events: EventLog,
        engines: Engines,
        stops: Stops,
        clock: ServerClock,
        context_tokens: int,
    ) -> None:
        self._name = name
        self._connection = connection
        self._events = events
        self._engines = engines
        self._stops = stops
        self._clock = clock
        self._context_tokens = context_tokens

    async def handle(self, job: Job) -> None:
        """Make one attempt at a node and store how it ended."""
        delivery = job.delivery
        headers = delivery.trace
        try:
            work = decode(DecodeNode, delivery.data)
        except MalformedMessage as error:
            log.error("work_unreadable", subject=delivery.subject, error=error.message)  # noqa: TRY400
            await self._events.append(self._unreadable(delivery.subject, error), headers=headers)
            return
        # Never unbound: a job has a task of its own, and the context ends with it.
        structlog.contextvars.bind_contextvars(
            request=work.request, node=work.node.id, attempt=work.attempt
        )
        with tracing.handling(
            "attempt",
            job,
            work.request,
            node=work.node.id,
            attempt=work.attempt,
            pool=work.pool,
            difficulty=work.node.difficulty,
        ):
            await self._attempt(work, job, headers)

    async def _attempt(self, work: DecodeNode, job: Job, headers: dict[str, str]) -> None:
        if job.delivery.times > 1 and await self._is_settled(work):
            log.info("node_settled_before")
            return
        context = fitted(work.context, work.question, self._context_tokens)
        if len(context) < len(work.context):
            work = work.model_copy(update={"context": context})
        call = node_call(work)
        stream = self._engines.stream(
            call, key=work.request, avoid=work.avoid_endpoint, headers=headers
        )
        try:
            if job.delivery.times > MAX_DELIVERIES:
                raise WorkerLost(f"{job.delivery.times} deliveries")
            decoded = await self._stops.run(
                self._decode(work, job, stream, call.max_tokens),
                request=work.request,
                node=work.node.id,
                deadline_at=work.deadline_at,
            )
            await self._done(work, decoded, headers)
        except (Cancelled, DeadlineExceeded) as error:
            tracing.current().note(stopped=error.code)
            log.info("node_stopped", code=error.code)
        except (EngineError, WorkerLost, MessageTooLarge) as error:
            if job.lapsed:  # the attempt is somebody else's now, and not ours to fail
                raise
            await self._failed(work, error, stream.endpoint, headers)

    async def _is_settled(self, work: DecodeNode) -> bool:
        """Whether this attempt has a result already: its worker died before the ack."""
        for stored in await self._events.read(work.request):
            match stored.fact:
                case NodeDecoded(node=node) if node == work.node.id:
                    return True
                case NodeFailed(node=node, attempt=attempt):
                    if (node, attempt) == (work.node.id, work.attempt):
                        return True
        return False

    async def _decode(
        self, work: DecodeNode, job: Job, stream: EngineStream, max_tokens: int
    ) -> NodeDecoded:
        started_at, started = self._clock.now(), time.monotonic()
        log.debug("node_started", endpoint=stream.endpoint)
        self._tell_started(work, stream.endpoint, max_tokens)
        text = TextFilter(work.node, work.skeleton)
        with Preview(self._connection, work) as preview:
            async with stream:
                completion = await _read(stream, text, preview)
        final = text.finish(completion.finish_reason)
        if not final:
            raise EmptyText
        stored_at = job.delivery.stored_at
        return NodeDecoded(
            request=work.request,
            node=work.node.id,
            attempt=work.attempt,
            text=final,
            finish_reason=completion.finish_reason,
            pool=work.pool,
            model=completion.model,
            endpoint=completion.endpoint,
            worker=self._name,
            queued_ms=work.held_ms + max(0.0, started_at - stored_at) * 1000,
            slot_wait_ms=work.held_ms + _slot_wait_ms(job),
            first_token_ms=stream.first_token_ms or 0.0,
            decode_ms=(time.monotonic() - started) * 1000,
            usage=completion.usage,
        )

    async def _done(self, work: DecodeNode, decoded: NodeDecoded, headers: dict[str, str]) -> None:
        logs.texts("node_text", text=decoded.text)
        first = await self._events.append(decoded, headers=headers)
        usage = decoded.usage
        metrics.count_node(
            decoded.pool,
            work.node.difficulty,
            queued_s=decoded.queued_ms / 1000,
            first_token_s=decoded.first_token_ms / 1000,
            decode_s=decoded.decode_ms / 1000,
        )
        metrics.count_tokens(
            decoded.pool, usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens
        )
        log.debug(
            "node_decoded" if first else "node_decoded_before",
            decode_ms=round(decoded.decode_ms),
            queued_ms=round(decoded.queued_ms, 1),
            tokens=usage.generated_tokens,
        )

    async def _failed(
        self, work: DecodeNode, error: SkelgraphError, endpoint: str, headers: dict[str, str]
    ) -> None:
        info = ErrorInfo.of(error)
        tracing.current().fail(error.code)
        log.warning("node_failed", code=error.code, error=error.message, endpoint=endpoint)
        metrics.NODE_FAILURES.labels(work.pool, error.code).inc()
        failed = NodeFailed(
            request=work.request,
            node=work.node.id,
            attempt=work.attempt,
            pool=work.pool,
            endpoint=endpoint,
            worker=self._name,
            error=info,
        )
        reset = NodeReset(request=work.request, node=work.node.id, attempt=work.attempt, error=info)
        self._tell(work, encode(reset))
        await self._events.append(failed, headers=headers)

    def _tell_started(self, work: DecodeNode, endpoint: str, max_tokens: int) -> None:
        started = NodeStarted(
            request=work.request,
            node=work.node.id,
            attempt=work.attempt,
            pool=work.pool,
            worker=self._name,
            endpoint=endpoint,
            max_tokens=max_tokens,
        )
        self._tell(work, encode(started))

    def _tell(self, work: DecodeNode, preview: bytes) -> None:
        self._connection.preview(Subjects.live(work.request, work.node.id), preview)

    def _unreadable(self, subject: str, error: MalformedMessage) -> NodeFailed:
        work = work_of(subject)
        return NodeFailed(
            request=work.request,
            node=work.node,
            attempt=work.attempt,
            pool=work.pool,
            worker=self._name,
            error=ErrorInfo.of(error),
        )


async def _read(stream: EngineStream, text: TextFilter, preview: Preview) -> Completion:
    """Take the text as it is written; what a model writes on after its end is not waited for."""
    async for chunk in stream:
        preview.add(text.feed(chunk.text))
        if text.is_over:
            return stream.so_far()
    return stream.completion


def _slot_wait_ms(job: Job) -> float:
    """Return how long a job was queued before there was a slot for it."""
    slot_at = min(job.slot_free_since, job.received_at)
    return max(0.0, slot_at - job.delivery.stored_at) * 1000
