"""One connection to NATS that comes back by itself, or says that it cannot.

nats-py is used for connecting, subscribing and plain publishing only; the reasons and
the settings below are in ADR 0005. A watchdog asks the server for something every few
seconds, because a client whose read loop has died still calls itself connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from proto.errors import QueueUnavailable
from services.runtime.credentials import INBOX, Access, Credentials, Tls
from services.runtime.nats_client import DirectClient
from services.runtime.wire import frame

log = structlog.get_logger()

Json = dict[str, object]

#: How often the watchdog asks, and how long an answer may take.
WATCH_EVERY_S: Final = 3.0
WATCH_TIMEOUT_S: Final = 3.0
#: Unanswered questions in a row after which the connection is made anew.
WATCH_PATIENCE: Final = 2
API_TIMEOUT_S: Final = 5.0
#: Room that is left below `max_payload` for headers and the protocol line.
PAYLOAD_MARGIN_BYTES: Final = 4096


def without_user(url: str) -> str:
    """Return `url` without user and password, for logs and errors."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


#: What JetStream calls a stream that is not there.
STREAM_NOT_FOUND: Final = 10059


class ApiError(Exception):
    """JetStream answered an API call with an error."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        self.code = code
        self.err_code = err_code
        super().__init__(f"{description} ({err_code})")


class Connection:
    """A NATS client with reconnect callbacks and a watchdog.

    Args:
        servers: addresses of the NATS servers.
        name: shown in the server's connection list.
        access: credentials and certificates, if the server wants any.

    Raises:
        ValueError: one of their files holds something else.
    """

    def __init__(self, servers: Sequence[str], *, name: str, access: Access | None = None) -> None:
        access = access or Access()
        self.nc = DirectClient()
        self.closed = asyncio.Event()
        #: Consumers that were pulled from and were not there.
        self.missing: set[str] = set()
        self._servers = list(servers)
        self._name = name
        self._creds = Credentials(access.creds) if access.creds else None
        self._tls = Tls(access)
        self._inbox = self._creds.inbox() if self._creds else INBOX
        self._on_reconnect: list[Callable[[], None]] = []
        self._connected = asyncio.Event()
        self._watchdog: asyncio.Task[None] | None = None
        self._closing = False
        self._said_down = False
        self._flushing = False

    async def open(self, *, timeout_s: float | None = None) -> None:
        """Connect; without a time limit try until it works.

        Raises:
            QueueUnavailable: no server answered within `timeout_s`.
        """
        try:
            await _within(timeout_s, self._connect())
        except (TimeoutError, nats.errors.Error, OSError) as error:
            self._closing = True
            await self._close_client()
            where = ", ".join(map(without_user, self._servers))
            raise QueueUnavailable(f"{where}: {str(error) or 'no answer'}") from error
        self._connected.set()
        self._watchdog = asyncio.create_task(self._watch(), name="nats watchdog")
        log.info("nats_connected", server=self._server())

    async def close(self) -> None:
        """Send what is buffered and disconnect."""
        self._closing = True
        if self._watchdog:
            self._watchdog.cancel()
            await asyncio.wait([self._watchdog])
        await self._close_client()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Whether the server is there at this moment."""
        return self.nc.is_connected

    @property
    def max_payload_bytes(self) -> int:
        """Largest body that is sent, headers allowed for."""
        return self.nc.max_payload - PAYLOAD_MARGIN_BYTES

    @property
    def watchdog(self) -> asyncio.Task[None]:
        """The task that makes a dead connection anew; its end would leave it dead."""
        if self._watchdog is None:
            raise RuntimeError("not open")
        return self._watchdog

    @property
    def tenant(self) -> str:
        """Whose tenant's the credentials are; empty for a service's, or without any."""
        return self._creds.tenant() if self._creds else ""

    def new_inbox(self) -> str:
        """Return a subject that nobody else can hear or guess."""
        return f"{self._inbox}.{secrets.token_hex(11)}"

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time the connection has come back."""
        self._on_reconnect.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Call `callback` no longer."""
        self._on_reconnect.remove(callback)

    async def wait_connected(self) -> None:
        """Return when the server is there."""
        if not self._connected.is_set():
            await self._connected.wait()

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Publish on core NATS: nothing says whether anybody heard it.

        While the server is away nats-py keeps a bounded number of messages and sends them later;
        beyond that they are dropped. What must not be lost goes through the durable publisher.
        """
        self.put(subject, data, reply=reply, headers=headers)
        if self.nc.is_connected and self.nc._pending_data_size > self.nc._max_pending_size:
            await self.nc._flush_pending(force_flush=True)

    def put(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Do as `publish`, without waiting while the server is behind.

        Raises:
            nats.errors.MaxPayloadError: NATS would close the connection for it.
        """
        nc = self.nc
        if len(data) > nc.max_payload:
            raise nats.errors.MaxPayloadError
        if nc.is_connected or (
            not nc.is_closed and nc._pending_data_size + len(data) <= nc._max_pending_size
        ):
            self._buffer(frame(subject, data, reply, headers))

    def preview(self, subject: str, data: bytes) -> None:
        """Publish what may be lost; while the server is away or behind, it is."""
        nc = self.nc
        if len(data) > nc.max_payload:  # the server would close the connection for it
            log.warning("preview_too_large", subject=subject, size_bytes=len(data))
        elif nc.is_connected and nc._pending_data_size <= nc._max_pending_size:
            self._buffer(frame(subject, data, "", None))

    def _buffer(self, message: bytes) -> None:
        """Do the second half of nats-py's `publish`: what is encoded goes out with this turn."""
        nc = self.nc
        nc._pending.append(message)
        nc._pending_data_size += len(message)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write what is buffered; while the server is behind or away nats-py's flusher waits."""
        self._flushing = False
        nc = self.nc
        if nc.write_at_once() or not nc.is_connected or nc._flush_queue is None:
            return  # nats-py writes what is left when the server is back
        if nc._flush_queue.empty():
            nc._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def subscribe(
        self, subject: str, on_message: Callable[[Msg], Awaitable[None]], *, queue: str = ""
    ) -> Subscription:
        """Call `on_message` for each message; credit bounds the sender, so nothing is dropped."""
        return await self.nc.subscribe(
            subject, queue=queue, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0
        )

    async def hear(self, subject: str, on_message: Callable[[Msg], None]) -> Subscription:
        """Call `on_message` at once for each message; it must not wait, nor take long."""
        subscription = await self.nc.subscribe(subject, cb=_never)
        self.nc.hand_on(subscription._id, on_message)
        return subscription

    async def request(self, subject: str, data: bytes = b"", *, timeout_s: float) -> Msg:
        """Ask whoever answers on `subject` and return the reply.

        Raises:
            nats.errors.NoRespondersError: nobody listens there.
            nats.errors.Error, TimeoutError: no answer in time.
        """
        # Not nats-py's own time limit: before Python 3.12 `asyncio.wait_for` swallows a cancel
        # that meets the answer, and the cancelled task goes on for ever (ADR 0005).
        async with asyncio.timeout(timeout_s):
            return await self.nc.request(subject, data, timeout=None)  # type: ignore[arg-type]

    async def api(self, subject: str, payload: Json | None = None) -> Json:
        """Ask the JetStream API.

        Raises:
            ApiError: JetStream refused.
            QueueUnavailable: no answer.
        """
        body = orjson.dumps(payload) if payload is not None else b""
        try:
            reply = await self.request(f"$JS.API.{subject}", body, timeout_s=API_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError) as error:
            raise QueueUnavailable(f"$JS.API.{subject}: {error}") from error
        answer: Json = orjson.loads(reply.data)
        error_info = answer.get("error")
        if isinstance(error_info, dict):
            raise ApiError(
                int(error_info.get("code", 0)),
                int(error_info.get("err_code", 0)),
                str(error_info.get("description", "")),
            )
        return answer

    async def _connect(self) -> None:
        await self.nc.connect(
            servers=self._servers,
            name=self._name,
            user_jwt_cb=self._creds.jwt if self._creds else None,
            signature_cb=self._creds.sign if self._creds else None,
            tls=self._tls.context,
            inbox_prefix=self._inbox,
            error_cb=self._error,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._was_closed,
            connect_timeout=2,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # nats-py sleeps for it as a float
            max_reconnect_attempts=-1,
            ping_interval=5,
            max_outstanding_pings=2,
        )

    async def _close_client(self) -> None:
        if self.nc.is_closed:
            return
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(2):
                await self.nc.close()

    async def _error(self, error: Exception) -> None:
        # While the server is away each try to reconnect ends here; one line says it all.
        is_down = isinstance(error, OSError | nats.errors.NoServersError)
        if is_down and self._said_down:
            return
        self._said_down = self._said_down or is_down
        log.warning("nats_error", error=str(error) or type(error).__name__)

    async def _disconnected(self) -> None:
        self._connected.clear()
        if not self._closing:
            log.warning("nats_disconnected")

    async def _reconnected(self) -> None:
        self._said_down = False
        self._connected.set()
        log.info("nats_reconnected", server=self._server())
        for callback in tuple(self._on_reconnect):
            try:
                callback()
            except Exception:
                # One's error must not keep the others from sending again what they have.
                log.exception("reconnect_callback_failed")

    async def _was_closed(self) -> None:
        self._connected.clear()
        self.closed.set()
        if not self._closing:
            log.error("nats_closed")

    async def _watch(self) -> None:
        unanswered = 0
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if self._renewed() and self.is_connected:
                log.info("nats_credentials_renewed")
                await self.nc.force_reconnect()
                continue
            unanswered = 0 if not self.is_connected or await self._answers() else unanswered + 1
            if unanswered >= WATCH_PATIENCE or (self.is_connected and self._reader_is_dead()):
                log.warning("nats_watchdog_reconnects", unanswered=unanswered)
                unanswered = 0
                await self.nc.force_reconnect()

    def _renewed(self) -> bool:
        """Whether other credentials or certificates are to be shown than were."""
        if self._tls.renewed():
            self.nc.options["tls"] = self._tls.context  # where nats-py looks at each connect
            return True
        return bool(self._creds and self._creds.renewed())

    async def _answers(self) -> bool:
        try:
            await self.request("$JS.API.INFO", timeout_s=WATCH_TIMEOUT_S)
        except nats.errors.NoRespondersError:
            return True  # the server is there, JetStream is not yet
        except (nats.errors.Error, TimeoutError):
            return False
        return True

    def _server(self) -> str:
        """The server that we are connected to, without the password that its URL may hold."""
        url = self.nc.connected_url
        return f"{url.hostname}:{url.port}" if url else ""

    def _reader_is_dead(self) -> bool:
        reader = self.nc._reading_task
        return reader is not None and reader.done()


async def _never(message: Msg) -> None:
    raise RuntimeError(f"{message.subject} was to be handed on")


async def _within(timeout_s: float | None, connect: Coroutine[object, object, None]) -> None:
    """Run `connect`, and cancel it until it heeds that: between two tries nats-py swallows a
    cancel, and would go on for ever (ADR 0005).
    """
    connecting = asyncio.create_task(connect, name="nats connect")
    try:
        if not (await asyncio.wait([connecting], timeout=timeout_s))[0]:
            raise TimeoutError
        connecting.result()
    finally:
        while not connecting.done():
            connecting.cancel()
            await asyncio.wait([connecting], timeout=0.1)
