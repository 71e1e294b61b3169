"""What an assembler stores: work, dead letters and ends; each repeated until it is stored."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from proto.codec import encode
from proto.errors import MessageTooLarge, QueueUnavailable
from proto.messages import (
    DeadLetter,
    DecodeNode,
    End,
    ErrorInfo,
    NodeReleased,
    RequestFailed,
    StopWork,
)
from proto.names import PIN_GROUP, STREAM_SUBJECTS, Stream, Subjects, partition_of, work_of
from services.assembler.graph import Dead, Release
from services.runtime import metrics
from services.runtime.connection import ApiError, Connection
from services.runtime.facts import EventLog
from services.runtime.publisher import DurablePublisher, Outcome

log = structlog.get_logger()


class Ledger:
    """What an assembler needs to store effects.

    Args:
        connection: an open connection.
        publisher: an open publisher.
        events: the event log.
    """

    def __init__(
        self, connection: Connection, publisher: DurablePublisher, events: EventLog
    ) -> None:
        self.connection = connection
        self.publisher = publisher
        self.events = events

    def release(self, release: Release, headers: dict[str, str]) -> asyncio.Future[Outcome]:
        """Hand a node to its pool; that it is queued already is as good.

        It ends with `MessageTooLarge` if what the node builds on is more than NATS takes.
        """
        work = release.work
        subject = Subjects.node(work.pool, release.band, work.request, work.node.id, work.attempt)
        stored = self.publisher.send(subject, encode(work), headers=headers, keep_on=True)
        stored.add_done_callback(partial(self._released, release))
        return stored

    def _released(self, release: Release, stored: asyncio.Future[Outcome]) -> None:
        if stored.cancelled() or stored.exception():
            return
        work = release.work
        metrics.count_release(work.pool, _kind(release))
        log.debug(
            "node_released",
            request=work.request,
            node=work.node.id,
            attempt=work.attempt,
            pool=work.pool,
        )
        released = NodeReleased(
            request=work.request, node=work.node.id, attempt=work.attempt, pool=work.pool
        )
        self.connection.preview(Subjects.live(work.request, work.node.id), encode(released))

    async def bury(self, dead: Dead, headers: dict[str, str]) -> None:
        """Write the dead letter of a node."""
        work = dead.work
        letter = DeadLetter(
            request=work.request,
            node=work.node.id,
            attempts=len(dead.history),
            error=dead.error,
            work=work,
            history=dead.history,
            submitted=dead.submitted,
        )
        subject = Subjects.dead(work.request, work.node.id)
        try:
            await self._letter(subject, letter, headers)
        except MessageTooLarge:
            short = letter.model_copy(update={"work": _without_texts(work)})
            await self._letter(subject, short, headers)
        metrics.DEAD_LETTERS.inc()
        log.error(
            "node_died",
            request=work.request,
            node=work.node.id,
            attempts=len(dead.history),
            code=dead.error.code,
        )

    async def end(self, end: End, headers: dict[str, str]) -> bool:
        """Store the end; return whether ours was the first."""
        try:
            return await self.events.append(end, headers=headers)
        except MessageTooLarge as error:
            # The reason of a failure stays, its partial texts do not.
            info = end.error if isinstance(end, RequestFailed) else ErrorInfo.of(error)
            failed = RequestFailed(request=end.request, error=info)
            return await self.events.append(failed, headers=headers)

    async def stop(self, request: str, nodes: tuple[int, ...] | None = None) -> None:
        """Tell planners and workers that their work is of no more use, and unqueue it."""
        word = StopWork(request=request, nodes=nodes)
        await self.connection.publish(Subjects.stop(request), encode(word))
        if nodes is None:
            await self._unqueue(Subjects.nodes_of(request))
        for node in nodes or ():
            await self._unqueue(f"{Subjects.nodes_of(request).removesuffix('>')}{node}.>")

    async def queued(self, request: str) -> list[tuple[int, int]]:
        """Return node and attempt of the work of `request` that is queued or running."""
        subjects = await self._subjects(Stream.NODES, Subjects.nodes_of(request))
        return [_node_and_attempt(subject) for subject in subjects]

    async def queued_requests(self, partition: int) -> set[str]:
        """Return the requests of `partition` of which work is queued or running."""
        subjects = await self._subjects(Stream.NODES, STREAM_SUBJECTS[Stream.NODES])
        requests = {work_of(subject).request for subject in subjects}
        partitions = self.events.subjects.partitions
        return {one for one in requests if partition_of(one, partitions) == partition}

    async def is_queued(self, request: str) -> bool:
        """Return whether `request` waits for a planner, or is with one."""
        return bool(await self._subjects(Stream.REQUESTS, Subjects.request(request)))

    async def _subjects(self, stream: Stream, matching: str) -> list[str]:
        """Return the subjects of `stream` that hold messages; raises `QueueUnavailable`."""
        try:
            info = await self.connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": matching})
        except ApiError as error:
            raise QueueUnavailable(f"{stream}: {error}") from error
        state = info.get("state")
        subjects = state.get("subjects") if isinstance(state, dict) else None
        return list(subjects or ())

    async def unpin(self, consumer: str) -> None:
        """Let another process have a partition now."""
        try:
            await self.connection.api(
                f"CONSUMER.UNPIN.{Stream.EVENTS}.{consumer}", {"group": PIN_GROUP}
            )
        except (ApiError, QueueUnavailable) as error:
            log.warning("unpin_failed", consumer=consumer, error=str(error))

    async def _unqueue(self, matching: str) -> None:
        try:
            await self.connection.api(f"STREAM.PURGE.{Stream.NODES}", {"filter": matching})
        except (ApiError, QueueUnavailable) as error:
            # Workers look for the end at each mark, so what stays queued is dropped there.
            log.warning("unqueue_failed", matching=matching, error=str(error))

    async def _letter(self, subject: str, letter: DeadLetter, headers: dict[str, str]) -> None:
        await self.publisher.send(
            subject, encode(letter), headers=headers, first=True, keep_on=True
        )


def _kind(release: Release) -> str:
    if release.escalated:
        return "escalation"
    return "retry" if release.work.attempt > 1 else "first"


def _without_texts(work: DecodeNode) -> DecodeNode:
    return work.model_copy(
        update={"question": "", "context": (), "skeleton": (), "predecessors": ()}
    )


def _node_and_attempt(subject: str) -> tuple[int, int]:
    work = work_of(subject)
    return work.node, work.attempt
