"""A partition of the event log, while it is pinned to this process.

An event is acked when all that follows from it is stored. The `accepted` event of a
request is held until its end: whoever takes a partition over is handed the open
requests again, with their deadlines and pending retries.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Final

import structlog

from proto.errors import (
    MalformedMessage,
    QueueUnavailable,
)
from proto.messages import (
    AnswerAssembled,
    Fact,
    NodeFailed,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
)
from proto.names import PIN_GROUP, Stream, partition_consumer
from services.assembler.effects import BURY, Effects
from services.assembler.folded import RetryPolicy
from services.assembler.graph import Graph
from services.assembler.ledger import Ledger
from services.assembler.open_request import Event, OpenRequest
from services.assembler.releases import Releases
from services.assembler.report import report_end
from services.runtime import metrics, tracing
from services.runtime.clock import ServerClock
from services.runtime.facts import fact_at
from services.runtime.marks import Marks
from services.runtime.pull import ConsumerPull, Delivery

log = structlog.get_logger()

#: Events of a partition that may be on their way, or in hand, at once. What one turn of the event
#: loop may find there, of all partitions, should take it less than a pin lasts: a few are meant.
CREDIT: Final = 256
#: Short, so that a partition changes hands soon after its owner has fallen silent.
PULL_EXPIRES_S: Final = 1.0
#: What is at hand when the process is to stop may take this long.
DRAIN_S: Final = 2.0
#: After a take-over open requests have come back by then, and what is left over is looked for.
SWEEP_AFTER_S: Final = 5.0
#: Ended requests whose late events are recognised without a read.
REMEMBERED: Final = 20_000


class Partition:
    """One partition of the event log, while it is pinned to this process.

    Args:
        number: the partition.
        ledger: stores effects.
        policy: how failed nodes are retried.
        releases: hands ready nodes over, of all partitions of this process.
        marks: keeps held events from being redelivered.
        clock: NATS's clock, set.
        fail: called with an error that this process cannot go on with.
    """

    def __init__(
        self,
        number: int,
        ledger: Ledger,
        policy: RetryPolicy,
        releases: Releases,
        marks: Marks,
        clock: ServerClock,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.number = number
        self._ledger = ledger
        self._policy = policy
        self._releases = releases
        self._marks = marks
        self._clock = clock
        self._fail = fail
        self._effects = Effects(ledger, releases, clock, self._close, fail)
        self._open: dict[str, OpenRequest] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        #: What was delivered and is not acked yet; not the `accepted` events.
        self._handling: set[Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken_at_seq = 0
        #: Whether we ask for its events.
        self.is_asked = False
        #: Whether what comes is taken: as long as we ask, and until what that brought is forgotten.
        self._takes = False
        self._going: asyncio.Task[None] | None = None
        self.pull = ConsumerPull(
            ledger.connection,
            Stream.EVENTS,
            partition_consumer(number),
            self._received,
            group=PIN_GROUP,
            on_pin=self._pinned,
            expires_s=PULL_EXPIRES_S,
        )

    @property
    def is_owned(self) -> bool:
        """Whether its events come to us, and we have not begun to let it go."""
        return self.is_asked and self.pull.pin is not None

    @property
    def is_going(self) -> bool:
        """Whether it is being let go."""
        return self._going is not None and not self._going.done()

    @property
    def open_requests(self) -> int:
        """How many requests of it are open here."""
        return len(self._open)

    async def start(self) -> None:
        """Be able to ask for events."""
        await self.pull.start()

    async def stop(self) -> None:
        """Let the partition go for good."""
        self.leave()
        if self._going:
            await asyncio.wait([self._going])
        await self.pull.stop()

    def take(self) -> None:
        """Ask for events; they come while the partition is pinned to us."""
        self.is_asked = self._takes = True
        self._want()

    def leave(self) -> None:
        """Let another have the partition; if we ask for it again soon enough, it stays here."""
        self.is_asked = False
        if not self.is_going:
            name = f"let go of partition {self.number}"
            self._going = asyncio.create_task(self._let_go(), name=name)
            self._going.add_done_callback(self._effects.ended)

    async def _let_go(self) -> None:
        """Finish what is on its way, and give back what is open, until nothing is, or we ask."""
        while self._takes and not self.is_asked:
            if not await self.pull.run_out():
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await self._drained()
            if not self.is_asked:
                await self._give_up()
        self._want()

    async def _give_up(self) -> None:
        """Let a successor have it, who need not wait for our silence, nor for an ack wait."""
        held = [one.accepted for one in self._open.values() if one.accepted]
        held += [event.delivery for event in self._handling]
        self._forget_all()
        self._takes = False
        pin, self.pull.pin = self.pull.pin, None
        if pin:
            for delivery in held:
                await delivery.nak()
            await self._ledger.unpin(partition_consumer(self.number))

    async def _drained(self) -> None:
        while self._handling:
            under_way = [effect for one in self._open.values() for effect in one.effects]
            if waited := [*under_way, *self._tasks]:
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # what has ended is told with the next turn of the loop

    def _pinned(self, pin: str | None) -> None:
        if not self._takes:
            return  # what comes is given back
        log.info("partition_taken" if pin else "partition_lost", partition=self.number)
        # Events may have gone to another owner meanwhile: what we hold may be out of date.
        self._forget_all()
        self._taken_at_seq = 0
        if pin:
            self._spawn(self._sweep(), f"sweep partition {self.number}")

    async def _sweep(self) -> None:
        """Unqueue work of requests that have ended: a NATS that was killed may bring it back."""
        await asyncio.sleep(SWEEP_AFTER_S)
        try:
            for request in await self._ledger.queued_requests(self.number):
                if request not in self._open and await self._ledger.events.has_ended(request):
                    log.warning("leftover_unqueued", request=request)
                    await self._ledger.stop(request)
        except QueueUnavailable as error:
            log.warning("sweep_failed", partition=self.number, error=error.message)

    def _forget_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        for open_request in self._open.values():
            self._releases.forget(open_request.graph.request)
            for effect in open_request.effects:
                effect.cancel()
            if open_request.deadline:
                open_request.deadline.cancel()
            if open_request.accepted:
                self._marks.release(open_request.accepted)
        self._open.clear()
        for event in self._handling:
            self._marks.release(event.delivery)
        self._handling.clear()
        self._count_open()

    def _received(self, delivery: Delivery) -> None:
        if not self._takes:
            # It lay here while this process stood still. Taken, it would be held for ever: who
            # does not ask is not told that somebody else has the partition.
            log.info("event_came_late", partition=self.number, subject=delivery.subject)
            self.pull.pin = None
            delivery.nak_soon()
            return
        try:
            self._receive(delivery)
        except Exception as error:
            # A defect. Raised from here it would end in nats-py, and the event be held for ever.
            log.exception("event_failed", subject=delivery.subject)
            self._fail(error)

    def _receive(self, delivery: Delivery) -> None:
        """Take an event; if its request is known, all that follows has begun when this returns."""
        try:
            fact = fact_at(delivery.subject, delivery.data)
        except MalformedMessage as error:
            log.error("event_unreadable", subject=delivery.subject, error=error.message)  # noqa: TRY400
            delivery.ack_soon()
            return
        event = Event(delivery, fact)
        # A failure may want a letter that an earlier owner has not stored.
        is_late = fact.request in self._ended and not isinstance(fact, NodeFailed)
        open_request = None if is_late else self._open_request(fact, delivery)
        if open_request is None:
            delivery.ack_soon()
            return
        self._marks.hold(delivery)
        self._handling.add(event)
        if open_request.recovered:
            self._take(open_request, event)
        else:
            self._await_recovery(open_request, event)
        self._want()

    def _want(self) -> None:
        # What is being handled, or waits for a full queue, takes room from what is to come.
        room = max(0, CREDIT - len(self._handling)) if self.is_asked else 0
        self.pull.want(room, stays=self.is_asked)

    def _await_recovery(self, open_request: OpenRequest, event: Event) -> None:
        open_request.backlog.append(event)
        if not open_request.recovering:
            open_request.recovering = True
            self._spawn(self._catch_up(open_request), f"recover {event.fact.request}")

    async def _catch_up(self, open_request: OpenRequest) -> None:
        """Read what is known of a request, then take the events that have come meanwhile."""
        first, backlog = open_request.backlog[0], open_request.backlog
        try:
            with tracing.within(first.fact.request, first.delivery.headers):
                await self._recover(open_request, first.delivery, first.fact)
        except QueueUnavailable as error:
            while backlog:
                await self._give_back(backlog.popleft(), error)
        finally:
            open_request.recovering = False
        while backlog:
            self._take(open_request, backlog.popleft())

    async def _give_back(self, event: Event, error: QueueUnavailable) -> None:
        log.warning("event_given_back", subject=event.delivery.subject, error=error.message)
        self._release(event)
        await event.delivery.nak(1.0)

    def _take(self, open_request: OpenRequest, event: Event) -> None:
        """Fold a fact and begin to store what follows."""
        graph, fact, delivery = open_request.graph, event.fact, event.delivery
        with tracing.within(fact.request, delivery.headers):
            new = graph.fold(fact, delivery.stored_at)
            if new:  # a result told twice must not end the attempt after it
                self._releases.saw(fact)
            if new and isinstance(fact, AnswerAssembled | SkeletonDrafted | RequestFailed):
                report_end(fact, delivery, graph)
            self._clock.saw(delivery.stored_at)
            open_request.headers = open_request.headers or delivery.trace
            before = len(open_request.effects) if new else 0
            self._effects.bury(open_request, fact)
            self._effects.follow_up(open_request)
        effects = list(islice(open_request.effects, before, None))
        event.wait_for(effects, partial(self._settled, open_request))

    def _settled(self, open_request: OpenRequest, event: Event) -> None:
        """Nothing that follows from an event is under way any longer."""
        if event not in self._handling:
            return  # the partition is somebody else's
        request = open_request.graph.request
        if open_request.graph.ended and self._open.get(request) is open_request:
            self._spawn(self._close_for(open_request, event), f"close {request}")
        else:
            self._finish(open_request, event)

    async def _close_for(self, open_request: OpenRequest, event: Event) -> None:
        await self._close(open_request)
        self._finish(open_request, event)

    def _finish(self, open_request: OpenRequest, event: Event) -> None:
        """Ack an event, unless it is held further, or something was not stored."""
        if open_request.graph.ended:
            event.delivery.ack_soon()
        elif isinstance(event.fact, RequestAccepted):
            self._hold_accepted(open_request, event)
            return
        elif not event.failed:
            event.delivery.ack_soon()
        self._release(event)

    def _release(self, event: Event) -> None:
        self._handling.discard(event)
        self._marks.release(event.delivery)
        self._want()

    def _open_request(self, fact: Fact, delivery: Delivery) -> OpenRequest | None:
        known = self._open.get(fact.request)
        if known is None and isinstance(fact, AnswerAssembled | SkeletonDrafted | RequestFailed):
            self._remember(fact.request)  # ended before it was accepted, or before our time
            report_end(fact, delivery, None)
            return None
        if known is None:
            known = self._open[fact.request] = OpenRequest(Graph(fact.request, self._policy))
            self._count_open()
        return known

    async def _recover(self, open_request: OpenRequest, delivery: Delivery, fact: Fact) -> None:
        """Read all facts of a request that we do not know, unless this is its very first."""
        if open_request.recovered:
            return
        request, events = fact.request, self._ledger.events
        first = isinstance(fact, RequestAccepted) and delivery.times == 1
        if not first or await events.has_ended(request):
            # The queue before the facts: a worker stores its fact before it leaves the queue.
            queued = await self._ledger.queued(request)
            # What an earlier owner acked is not delivered again: this read must not miss it,
            # whichever replica answers.
            self._taken_at_seq = self._taken_at_seq or await events.last_seq()
            up_to_seq = max(self._taken_at_seq, delivery.stream_seq)
            stored = await events.read(request, up_to_seq=up_to_seq)
            for node, attempt in queued:
                open_request.graph.note_queued(node, attempt)
            for one in stored:
                open_request.graph.fold(one.fact, one.stored_at)
            self._releases.found(open_request.graph)
            log.info("request_recovered", request=request, facts=len(stored))
        open_request.recovered = True

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._effects.ended)

    def _hold_accepted(self, open_request: OpenRequest, event: Event) -> None:
        self._handling.discard(event)
        if open_request.accepted:
            self._marks.release(open_request.accepted)
        open_request.accepted = event.delivery
        self._want()

    async def _close(self, open_request: OpenRequest) -> None:
        """The end is stored: once the letters are, unqueue the rest, ack `accepted`, forget."""
        graph = open_request.graph
        while burials := open_request.under_way(BURY):
            await asyncio.wait(burials)
        if self._open.get(graph.request) is not open_request:
            return
        del self._open[graph.request]
        self._releases.forget(graph.request)
        self._releases.hand_over()
        self._remember(graph.request)
        if open_request.deadline:
            open_request.deadline.cancel()
        for effect in open_request.effects.keys() - {asyncio.current_task()}:
            effect.cancel()
        if open_request.accepted:
            await open_request.accepted.ack()
            self._marks.release(open_request.accepted)
        if not graph.planned.keys() <= graph.decoded.keys() or not graph.is_complete:
            await self._ledger.stop(graph.request)
        self._count_open()

    def _remember(self, request: str) -> None:
        self._ended[request] = None
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def _count_open(self) -> None:
        metrics.IN_FLIGHT.labels(f"open_request_{self.number}").set(len(self._open))
