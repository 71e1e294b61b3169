"""The work loop: a slot first, then the pull; marks from receipt; ack after the effect.

Source of the shape: procrastinate's worker (slot before fetch, monitored tasks) and
taskiq's and FastStream's defects (prefetch beyond the slots, no marks: work done twice).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog

from proto.errors import SkelgraphError
from proto.names import Stream
from services.runtime import metrics
from services.runtime.clock import ServerClock
from services.runtime.connection import Connection
from services.runtime.marks import Marks
from services.runtime.pull import ConsumerPull, Delivery
from services.runtime.surplus import BOUNCE_S, Surplus, Turns, is_ours

log = structlog.get_logger()

#: Messages that are taken to be refused at once, so that what is behind them comes to light.
TOO_MANY: Final = 16
#: After it has stood still a process ignores for so long what had waited for it.
DEAF_S: Final = 0.2
#: Deliveries after which a message is taken to kill whoever works on it. Generous, because
#: what comes to a full process, or is given back at a drain, counts as a delivery too.
MAX_DELIVERIES: Final = 50
#: A handler that raised is tried again after this long, doubled each time.
RETRY_S: Final = 0.5
RETRY_MAX_S: Final = 30.0


class Job:
    """A delivery in a slot.

    Args:
        delivery: what is worked on.
        ack_wait_s: the consumer's ack wait.
        received_at: when it came, by NATS's clock (seconds since the epoch).
        slot_free_since: when a slot was last known to be free, by the same clock: what waited
            from before then waited for a slot.
    """

    def __init__(
        self, delivery: Delivery, ack_wait_s: float, received_at: float, slot_free_since: float
    ) -> None:
        self.delivery = delivery
        self.received_at = received_at
        self.slot_free_since = slot_free_since
        #: Whose it is, where owners take turns.
        self.owner = ""
        self._ack_wait_s = ack_wait_s
        self._lapsed = False

    def lapse(self) -> None:
        """Note that it has gone to somebody else."""
        self._lapsed = True

    @property
    def lapsed(self) -> bool:
        """Whether somebody else may have it: it could not be marked for the ack wait."""
        return self._lapsed or time.monotonic() - self.delivery.marked_at > self._ack_wait_s


class WorkLoop:
    """Takes messages into slots and runs a handler on each.

    The message is acked when the handler returns, and given back when it raises.

    Args:
        connection: an open connection.
        stream: a work queue.
        consumers: its durable consumers, the most urgent first.
        slots: how many messages are worked on at once.
        handler: does the work and stores its effects.
        ack_wait_s: the consumers' ack wait.
        clock: NATS's clock, set.
        kind: what a message is (`node`, `request`), for metrics and logs.
        turns: how owners take turns, if they do.
    """

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        consumers: Sequence[str],
        slots: int,
        handler: Callable[[Job], Awaitable[None]],
        *,
        ack_wait_s: float,
        clock: ServerClock,
        kind: str,
        turns: Turns | None = None,
    ) -> None:
        self._slots = slots
        self._turns = turns
        self._handler = handler
        self._kind = kind
        self._pulls = [
            ConsumerPull(connection, stream, consumer, partial(self._received, place))
            for place, consumer in enumerate(consumers)
        ]
        self._ack_wait_s = ack_wait_s
        self._clock = clock
        self._marks = Marks(ack_wait_s, self._lapsed)
        self._deaf_until = 0.0
        self._held_back = False
        self._running: dict[asyncio.Task[None], Job] = {}
        #: The same, by position in the stream.
        self._jobs: dict[int, tuple[asyncio.Task[None], Job]] = {}
        self._naks: set[asyncio.Task[None]] = set()
        #: What came without a free slot.
        self._surplus = Surplus(self._no_slot)
        self._refusing: set[asyncio.Task[None]] = set()
        #: Whether more waited behind the last message that came.
        self._is_backlog = False
        self._changed = asyncio.Event()
        self._slot_free_since = clock.now()
        self._draining = False
        self._in_flight = metrics.IN_FLIGHT.labels(kind)
        metrics.SLOTS.labels(kind).set(slots)

    def hold_back(self, held_back: bool) -> None:
        """Take no more messages, or take them again; what runs goes on."""
        if held_back != self._held_back:
            log.warning("held_back" if held_back else "not_held_back", kind=self._kind)
        self._held_back = held_back
        self._changed.set()

    async def run(self, stopping: asyncio.Event, *, drain_s: float) -> None:
        """Work until `stopping` is set, then finish what runs within `drain_s`.

        What is not done by then is cancelled and given back.
        """
        for pull in self._pulls:
            await pull.start()
        side_tasks = [
            asyncio.create_task(self._fill(), name=f"fill {self._kind} slots"),
            asyncio.create_task(self._marks.run(), name=f"{self._kind} marks"),
        ]
        stop = asyncio.create_task(stopping.wait(), name="stopping")
        try:
            watched = [stop, *side_tasks, *(pull.task for pull in self._pulls)]
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            self._draining = True
            for task in watched[1:]:
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            stop.cancel()
            side_tasks[0].cancel()
            await self._drain(drain_s)
            side_tasks[1].cancel()
            await asyncio.wait([stop, *side_tasks])

    async def _drain(self, drain_s: float) -> None:
        self._draining = True
        for delivery in self._surplus.take_all():
            self._no_slot(delivery)
        for pull in self._pulls:
            await pull.stop()
        if self._running:
            log.info("draining", kind=self._kind, running=len(self._running))
            _, late = await asyncio.wait(self._running, timeout=drain_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if last := self._naks | self._refusing:
            await asyncio.wait(last)

    async def _fill(self) -> None:
        """Keep as many messages asked for as there are free slots, the urgent ones first."""
        while True:
            self._changed.clear()
            self._begin_surplus()
            if self._free > 0 and await self._took_urgent():
                continue
            free = max(0, self._free + self._ahead - len(self._surplus))
            for pull in self._pulls:
                pull.want(free)
            await self._changed.wait()

    @property
    def _free(self) -> int:
        return 0 if self._held_back else self._slots - len(self._running)

    async def _took_urgent(self) -> bool:
        """With several consumers, ask them in their order what is there already."""
        if len(self._pulls) == 1:
            return False
        for pull in self._pulls:
            if not pull.due and await pull.take_now(self._free):
                return True
        return False

    def _received(self, place: int, delivery: Delivery) -> None:
        self._clock.saw(delivery.stored_at)
        self._is_backlog = delivery.pending > 0
        if self._is_running(delivery):
            return
        if self._marks.is_late or time.monotonic() < self._deaf_until:
            return  # it waited for a process that stood still: somebody else has it, or will
        if self._draining:
            self._bounce(delivery, BOUNCE_S)
        elif self._free <= 0:
            self._keep(place, delivery)
        else:
            self._begin(delivery)

    @property
    def _ahead(self) -> int:
        """How many messages are taken beyond the slots: while some wait, as then no slot is free
        anywhere; and a few more than are kept, so that the queue moves on.
        """
        waiting = self._turns and (self._is_backlog or self._surplus) and not self._held_back
        return self._turns.ahead + TOO_MANY if self._turns and waiting else 0

    def _keep(self, place: int, delivery: Delivery) -> None:
        """Keep what came for no slot, in case one is free soon."""
        self._marks.hold(delivery)
        turns = self._turns
        keep_s = turns.keep_s if turns else BOUNCE_S
        self._surplus.keep(delivery, place, self._owner_of(delivery), keep_s)
        self._changed.set()
        if turns and (one := self._surplus.too_many(turns.ahead)):
            refusing = asyncio.create_task(self._refuse(one, turns), name="refuse")
            self._refusing.add(refusing)
            refusing.add_done_callback(self._refusing.discard)

    async def _refuse(self, delivery: Delivery, turns: Turns) -> None:
        """End a message that is too many; if that fails it comes again."""
        try:
            await turns.refuse(delivery)
            await delivery.ack()
        except SkelgraphError as error:
            log.warning("not_refused", kind=self._kind, code=error.code, error=error.message)
            await delivery.nak(RETRY_S)
        finally:
            self._marks.release(delivery)
            self._changed.set()

    def _owner_of(self, delivery: Delivery) -> str:
        return self._turns.owner_of(delivery) if self._turns else ""

    def _no_slot(self, delivery: Delivery) -> None:
        """Give a message back that was kept for long enough."""
        self._marks.release(delivery)
        if is_ours(delivery, self._ack_wait_s):
            self._bounce(delivery)
        self._changed.set()

    def _bounce(self, delivery: Delivery, delay_s: float = 0) -> None:
        nak = asyncio.create_task(delivery.nak(delay_s), name="nak")
        self._naks.add(nak)
        nak.add_done_callback(self._naks.discard)

    def _begin_surplus(self) -> None:
        """Begin what has been kept, by turns, the most urgent first."""
        while self._free > 0 and (delivery := self._surplus.next(self._running_of())):
            self._marks.release(delivery)
            if is_ours(delivery, self._ack_wait_s):
                self._begin(delivery)

    def _running_of(self) -> Counter[str]:
        """How many messages of each owner are worked on; asked for only while some are kept."""
        return Counter(job.owner for job in self._running.values()) if self._surplus else Counter()

    def _begin(self, delivery: Delivery) -> None:
        received_at = self._clock.now()
        job = Job(delivery, self._ack_wait_s, received_at, self._slot_free_since)
        job.owner = self._owner_of(delivery)
        self._marks.hold(delivery)
        task = asyncio.create_task(self._work(job), name=f"{self._kind} {delivery.subject}")
        self._running[task] = job
        self._jobs[delivery.stream_seq] = (task, job)
        task.add_done_callback(self._freed)
        self._in_flight.set(len(self._running))
        self._changed.set()

    def _is_running(self, delivery: Delivery) -> bool:
        """Whether it is a redelivery of what runs here: NATS was away for an ack wait."""
        if kept := self._surplus.take(delivery.stream_seq):
            self._marks.release(kept)
        task, job = self._jobs.get(delivery.stream_seq, (None, None))
        # One that is done has let its message go: what is held for it is held for ever.
        if job is None or task is None or task.done():
            return False
        self._marks.release(job.delivery)
        job.delivery = delivery
        self._marks.hold(delivery)
        return True

    def _lapsed(self) -> None:
        """Leave what runs to those to whom it has gone while this process stood still."""
        self._deaf_until = time.monotonic() + DEAF_S
        for delivery in self._surplus.take_all():
            self._marks.release(delivery)
        for task, job in self._running.items():
            log.warning("work_lapsed", kind=self._kind, subject=job.delivery.subject)
            job.lapse()
            task.cancel()

    def _freed(self, task: asyncio.Task[None]) -> None:
        if len(self._running) == self._slots:
            self._slot_free_since = self._clock.now()
        job = self._running.pop(task)
        if self._jobs.get(job.delivery.stream_seq) == (task, job):
            del self._jobs[job.delivery.stream_seq]
        self._begin_surplus()
        self._in_flight.set(len(self._running))
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("work_failed", kind=self._kind, task=task.get_name(), exc_info=error)

    async def _work(self, job: Job) -> None:
        try:
            await self._handler(job)
            await job.delivery.ack()
        except asyncio.CancelledError:
            await self._give_back(job)
            raise
        except SkelgraphError as error:
            log.warning(
                "work_given_back",
                kind=self._kind,
                code=error.code,
                error=error.message,
                times=job.delivery.times,
            )
            await self._give_back(job, _pause_s(job.delivery.times))
        except Exception:
            # A defect: the message goes back so that nothing is lost, the task's death is logged.
            await self._give_back(job, _pause_s(job.delivery.times))
            raise
        finally:
            self._marks.release(job.delivery)

    async def _give_back(self, job: Job, delay_s: float = 0) -> None:
        if not job.lapsed:  # else it would be taken from whoever has it now
            await job.delivery.nak(delay_s)


def _pause_s(times: int) -> float:
    return min(RETRY_MAX_S, RETRY_S * float(2 ** min(times - 1, 10)))
