"""Pulling from a durable consumer, continuously and by credit.

One long-lived inbox a consumer; pull requests for exactly the messages that there is
room for, with short expiries, sent again at once after a reconnect. nats-py's `fetch`
stalls after restarts and after empty fetches (ADR 0005); it also knows no priority
groups, which pin a partition to one assembler (NATS ADR-42).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from proto.names import Header
from services.runtime.clock import in_seconds
from services.runtime.connection import Connection, Json
from services.runtime.waits import until_set

log = structlog.get_logger()

#: A standing pull is renewed after this long: a frozen process holds no more than it asked for.
EXPIRES_S: Final = 2.0
#: Room for the server's word that a pull has expired, before it is taken for lost.
EXPIRY_MARGIN_S: Final = 0.5
#: A pull that does not wait is answered after a round trip, or the server is away.
INSTANT_S: Final = 1.0
#: Wait before asking again when the consumer is not there (yet).
MISSING_PAUSE_S: Final = 0.5

#: W3C Trace Context; anything else in the header is a client's, and stays with it.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
#: Tokens of the subject for acks (NATS ADR-15).
_SHORT_REPLY = 9
#: A pin is lost after 2 s without a pull (ADR 0003): who has no room still asks for one so often.
KEEP_PIN_S: Final = 0.5
#: How often it is looked whether all that was asked for has come.
RUN_OUT_LOOK_S: Final = 0.02
_WRONG_PIN = "423"
_GONE = {"409", "503"}


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """Return the W3C Trace Context in `headers`, if it is one."""
    given = headers.get(Header.TRACEPARENT, "")
    return given if _TRACEPARENT.match(given) else None


class Delivery:
    """A message of a durable consumer, to be acked."""

    __slots__ = (
        "_connection",
        "_msg",
        "consumer_seq",
        "marked_at",
        "pending",
        "stored_at",
        "stream_seq",
        "times",
    )

    def __init__(self, connection: Connection, msg: Msg) -> None:
        self._connection = connection
        self._msg = msg
        # Where an account is named there are further tokens in front, and may be one at the end.
        tokens = msg.reply.split(".")
        times, stream_seq, consumer_seq, stored_at, pending = (
            tokens[4:9] if len(tokens) == _SHORT_REPLY else tokens[6:11]
        )
        #: Position in the stream.
        self.stream_seq = int(stream_seq)
        #: How many times it has been delivered, this time included.
        self.times = int(times)
        #: How many further messages the consumer had for us when it was sent.
        self.pending = int(pending)
        #: Position among what the consumer has delivered.
        self.consumer_seq = int(consumer_seq)
        #: When NATS stored it, in seconds since the epoch.
        self.stored_at = in_seconds(int(stored_at))
        #: When its ack wait began anew for the last time, monotonic seconds.
        self.marked_at = time.monotonic()

    @property
    def subject(self) -> str:
        """The subject under which it was stored."""
        return self._msg.subject

    @property
    def data(self) -> bytes:
        """The body."""
        return self._msg.data

    @property
    def headers(self) -> dict[str, str]:
        """The headers; empty if there are none."""
        return self._msg.headers or {}

    @property
    def trace(self) -> dict[str, str]:
        """The trace context to pass on with what follows from this message."""
        traceparent = traceparent_of(self.headers)
        return {Header.TRACEPARENT.value: traceparent} if traceparent else {}

    async def ack(self) -> None:
        """It is done; what follows from it is stored."""
        await self._connection.publish(self._msg.reply, b"+ACK")

    def ack_soon(self) -> None:
        """Do as `ack`, with this turn of the event loop."""
        self._connection.put(self._msg.reply, b"+ACK")

    async def nak(self, delay_s: float = 0) -> None:
        """Give it back, to be delivered again after `delay_s`."""
        delay = b' {"delay": %d}' % int(delay_s * 1e9) if delay_s else b""
        await self._say(b"-NAK" + delay)

    def nak_soon(self) -> None:
        """Do as `nak`, with this turn of the event loop."""
        if self._connection.is_connected:
            self._connection.put(self._msg.reply, b"-NAK")

    async def in_progress(self) -> None:
        """It is being worked on: start its ack wait anew."""
        if self._connection.is_connected:
            self.marked_at = time.monotonic()
        await self._say(b"+WPI")

    async def _say(self, word: bytes) -> None:
        # Said late, after NATS was away, it might concern what somebody else has by then.
        if self._connection.is_connected:
            await self._connection.publish(self._msg.reply, word)


class ConsumerPull:
    """A standing demand for messages of one durable consumer.

    Args:
        connection: an open connection.
        stream: the stream's name.
        consumer: the durable consumer's name.
        on_message: called for each message; must not block.
        group: priority group, if the consumer has one.
        on_pin: called with the new pin when the server pins the consumer to us, and with
            None when it has pinned it to somebody else.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        on_message: Callable[[Delivery], None],
        *,
        group: str | None = None,
        on_pin: Callable[[str | None], None] | None = None,
        expires_s: float = EXPIRES_S,
    ) -> None:
        self._connection = connection
        self._api = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._name = consumer
        self._on_message = on_message
        self._group = group
        self._on_pin = on_pin
        self._expires_s = expires_s
        self._inbox = connection.new_inbox()
        self._ids = itertools.count()
        self._subscription: Subscription | None = None
        self._open: dict[str, tuple[int, float]] = {}  # pull id → messages still due, expiry
        #: Messages asked for and not yet here.
        self.due = 0
        self._instant: asyncio.Future[None] | None = None  # the end of a pull that does not wait
        self._instant_left = 0
        self._wanted = 0
        self._stays = False
        self._asked_at_s = 0.0
        #: What the server knows us by while the consumer is pinned to us.
        self.pin: str | None = None
        self._changed = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._missing = False

    async def start(self) -> None:
        """Subscribe; nothing is pulled until something is wanted."""
        self._subscription = await self._connection.hear(f"{self._inbox}.*", self._received)
        self._connection.on_reconnect(self._forget_open)
        self._renewing = asyncio.create_task(self._renew(), name=f"pull {self._name}")

    async def stop(self) -> None:
        """Ask for no more; a message on its way is given back by its ack wait."""
        self._wanted, self._stays = 0, False
        self._connection.forget(self._forget_open)
        self._connection.missing.discard(self._name)
        if self._renewing:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self._subscription:
            with contextlib.suppress(Exception):  # the connection may be gone
                await self._subscription.unsubscribe()

    async def run_out(self) -> bool:
        """Ask for no more; return whether nothing is on its way, or False if more is wanted again.

        So no message is sent to us that we do not take: it would come back after its ack wait.
        """
        self._wanted, self._stays = 0, False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._expires_s + EXPIRY_MARGIN_S):
                while self.due and not self._stays:  # noqa: ASYNC110  # rare: no signal a message
                    await asyncio.sleep(RUN_OUT_LOOK_S)
        return not self._stays

    @property
    def task(self) -> asyncio.Task[None]:
        """The task that renews the pulls; its end is the end of deliveries."""
        if self._renewing is None:
            raise RuntimeError("not started")
        return self._renewing

    def want(self, count: int, *, stays: bool = True) -> None:
        """Keep `count` messages asked for, and at least half as many at any time.

        Fewer than before takes effect as pulls expire. A consumer that is pinned to us `stays` so
        although no more are wanted, at the price of one message now and then.
        """
        self._wanted, self._stays = count, stays
        if self._is_short:
            self._changed.set()

    @property
    def _is_short(self) -> bool:
        """Whether it is time to ask for more: not for each message, which costs one more."""
        return self.due < self._wanted and self.due <= self._wanted // 2

    async def take_now(self, count: int) -> int:
        """Take up to `count` messages that are there now; return how many.

        Standing pulls must not be due meanwhile.
        """
        if count <= 0:  # a slot was taken meanwhile: NATS refuses to give no message
            return 0
        pull = f"{self._inbox}.{next(self._ids)}"
        self._instant = asyncio.get_running_loop().create_future()
        self._instant_left = count
        try:
            await self._ask(pull, {"batch": count, "no_wait": True})
            async with asyncio.timeout(INSTANT_S):
                await self._instant
        except TimeoutError:
            pass
        finally:
            self._instant = None
        return count - self._instant_left

    async def _renew(self) -> None:
        while True:
            self._changed.clear()
            self._drop_expired()
            missing = max(self._wanted - self.due, 1 if self._keeps_pin() else 0)
            if missing > 0:
                await self._connection.wait_connected()
                if self._missing:
                    await asyncio.sleep(MISSING_PAUSE_S)
                    self._missing = False
                await self._pull(missing)
            await until_set(self._changed, self._next_look_s())

    def _keeps_pin(self) -> bool:
        """Whether it is time to ask for one more, so that the server sees that we are there."""
        now = asyncio.get_running_loop().time()
        return bool(self.pin) and self._stays and now - self._asked_at_s >= KEEP_PIN_S

    async def _pull(self, count: int) -> None:
        pull, now = f"{self._inbox}.{next(self._ids)}", asyncio.get_running_loop().time()
        self._open[pull] = (count, now + self._expires_s + EXPIRY_MARGIN_S)
        self._asked_at_s = now
        self.due += count
        await self._ask(pull, {"batch": count, "expires": int(self._expires_s * 1e9)})

    async def _ask(self, pull: str, request: Json) -> None:
        if self._group:
            request["group"] = self._group
            if self.pin:
                request["id"] = self.pin
        await self._connection.publish(self._api, orjson.dumps(request), reply=pull)

    def _received(self, msg: Msg) -> None:
        if msg.subject.startswith(self._inbox):
            self._status(msg)
            return
        pin = (msg.headers or {}).get("Nats-Pin-Id")
        if pin and pin != self.pin:
            self._pinned(pin)
        self._connection.missing.discard(self._name)
        self._count_down()
        self._on_message(Delivery(self._connection, msg))

    def _status(self, msg: Msg) -> None:
        status = (msg.headers or {}).get("Status", "")
        if status == "100":
            return
        if status == _WRONG_PIN:
            self._pinned(None)
        if status in _GONE:
            description, _, _ = (msg.headers or {}).get("Description", "").partition("\n")
            if "Completed" not in description:
                reason = reason_in(description)
                log.warning("pull_refused", consumer=self._name, status=status, reason=reason)
                self._missing = True
                self._connection.missing.add(self._name)
        else:
            self._connection.missing.discard(self._name)
        self._close_pull(msg.subject)

    def _close_pull(self, pull: str) -> None:
        closed = self._open.pop(pull, None)
        if closed is None:
            self._settle_instant()
        else:
            self.due -= closed[0]
        self._changed.set()

    def _count_down(self) -> None:
        """Attribute a message to the oldest pull; the server serves them in that order."""
        if not self._open:
            self._instant_left -= 1
            if self._instant_left <= 0:
                self._settle_instant()
            return
        pull, (count, expiry) = next(iter(self._open.items()))
        self.due -= 1
        if count > 1:
            self._open[pull] = (count - 1, expiry)
        else:
            del self._open[pull]
        if self._is_short:
            self._changed.set()

    def _settle_instant(self) -> None:
        if self._instant and not self._instant.done():
            self._instant.set_result(None)

    def _pinned(self, pin: str | None) -> None:
        if pin == self.pin:
            return
        self.pin = pin
        if self._on_pin:
            self._on_pin(pin)

    def _drop_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        for pull in [pull for pull, (_, expiry) in self._open.items() if expiry <= now]:
            self.due -= self._open.pop(pull)[0]

    def _next_look_s(self) -> float | None:
        times = [expiry for _, expiry in self._open.values()]
        if self.pin and self._stays:
            times.append(self._asked_at_s + KEEP_PIN_S)
        now = asyncio.get_running_loop().time()
        return max(0.001, min(times) - now) if times else None

    def _forget_open(self) -> None:
        self._open.clear()
        self.due = 0
        self._changed.set()


def reason_in(description: str) -> str:
    """Return what a status says; nats-py takes a header that follows it for a part of it."""
    return description.partition("\n")[0].strip() or "nobody answers"
