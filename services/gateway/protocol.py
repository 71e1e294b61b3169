"""HTTP as the gateway speaks it: bounds on what a client may cost before a handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import httptools
import orjson
import structlog
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from proto.errors import InvalidRequest, SkelgraphError
from services.gateway.errors import (
    HeadersTooLarge,
    RequestTimedOut,
    TooManyConnections,
    body_of,
    headers_of,
    status_of,
)
from services.gateway.sse import ABORT

log = structlog.get_logger()

#: Bytes of a request's line and headers, or of its trailers.
MAX_HEAD_BYTES: Final = 32 * 1024
#: How long the rest of a body may take that nobody reads: its answer has been sent.
REST_OF_BODY_S: Final = 1.0


class BoundedProtocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with limits.

    uvicorn (with httptools) sets none: a client that sends its headers byte by byte or never ends
    them, that leaves its body out, or takes nothing of its answer, would hold its connection, or
    memory, for ever. Nor does it know what to do with an upgrade that it does not support: the
    body would be read as the next request.
    """

    #: How long a head may take to come.
    head_timeout_s = 10.0
    #: How long a client may take nothing of its answer.
    write_timeout_s = 60.0
    #: Requests on further connections are refused.
    max_connections = 4096

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._loose_bytes = 0  # since the parser last made something of them
        self._in_message = False
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        for name in tuple(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    # --- what comes ---

    def data_received(self, data: bytes) -> None:
        """Parse; count what belongs to a head or to trailers."""
        self._unset_keepalive_if_required()
        self._loose_bytes += len(data)
        before = self._loose_bytes
        try:
            self._feed(memoryview(data))
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"this is not HTTP/1.1: {error}"))
            return
        if self._loose_bytes == before > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"at most {MAX_HEAD_BYTES} bytes are taken"))
        elif self._is_idle and "head" not in self._timers:
            self._await_head()  # line breaks between requests are no reason to wait for ever

    @property
    def _is_idle(self) -> bool:
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and not self._in_message and not self.transport.is_closing()

    def _feed(self, rest: memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                self._begin_without_upgrade()
            else:
                return

    def _begin_without_upgrade(self) -> None:
        """Begin the request again as one that asks for no upgrade: a server may ignore it."""
        if self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        if any(b"\r" in line or b"\n" in line for line in lines):
            raise httptools.HttpParserError("a line break within a header")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"\r\n"]))

    # --- what the parser finds ---

    def on_message_begin(self) -> None:
        """Expect the rest of this head, and let handlers close the connection at once."""
        super().on_message_begin()
        self.scope["state"][ABORT] = self.transport.abort
        self._in_message = True
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers, of which nobody asked any, are left out."""
        if "head" in self._timers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._stop("head")
        self._loose_bytes = 0
        if self.parser.should_upgrade():
            return  # it is begun again without
        full = max(len(self.connections), len(self.tasks)) > self.max_connections
        self.app = _refuse_connection if full else self.config.loaded_app
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Another chunk of the body."""
        self._loose_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._loose_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here."""
        if self.parser.should_upgrade():
            return
        self._in_message = False
        self._stop("body")
        super().on_message_complete()

    # --- what goes ---

    def on_response_complete(self) -> None:
        """Go on; do not wait long for the rest of a body, nor for who does not read."""
        super().on_response_complete()
        self._watch_writes()
        answered = self.cycle.response_complete and not self.transport.is_closing()
        if answered and self._in_message and "head" not in self._timers:
            self._start("body", REST_OF_BODY_S, self._close)

    def pause_writing(self) -> None:
        """The client does not read as fast as is written."""
        super().pause_writing()
        self._watch_writes()

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._stop("write")
        if self.cycle is None or self.cycle.response_complete:
            self._watch_writes()

    def _watch_writes(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and "write" not in self._timers:
            self._start("write", self.write_timeout_s, lambda: self._check_writes(left))

    def _check_writes(self, left_before: int) -> None:
        self._stop("write")
        if 0 < left_before <= self.transport.get_write_buffer_size():
            log.info("slow_client_dropped", limit_s=self.write_timeout_s)
            self.transport.abort()
        else:
            self._watch_writes()

    # --- ends ---

    def _await_head(self) -> None:
        self._start("head", self.head_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._refuse(RequestTimedOut(f"headers are waited for {self.head_timeout_s:g} s"))

    def _refuse(self, error: SkelgraphError) -> None:
        """Answer with an error, unless an answer is under way, and close."""
        if self.transport.is_closing():
            return
        log.info("http_head_refused", code=error.code)
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_plain(error))
        self._close()

    def _close(self) -> None:
        self._stop("head")
        self._stop("body")
        self.transport.close()
        self._watch_writes()

    def _start(self, name: str, delay_s: float, then: Callable[[], None]) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(delay_s, then)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()


def _answer(error: SkelgraphError) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and headers of an error in OpenAI's form."""
    body = orjson.dumps(body_of(error.code, error.message, error.field))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **headers_of(error),
    }
    said = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return status_of(error.code), body, said


def _plain(error: SkelgraphError) -> bytes:
    """Return an error as it goes over the wire where there is no request to answer."""
    status, body, headers = _answer(error)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return STATUS_LINE[status] + lines + b"\r\n" + body


async def _refuse_connection(_: Scope, __: Receive, send: Send) -> None:
    status, body, headers = _answer(TooManyConnections())
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
