"""A node's text as it comes: the first piece at once, then what gathers within a moment."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from proto.codec import encode
from proto.messages import DecodeNode, TokensDecoded
from proto.names import Subjects
from services.runtime.connection import Connection

#: Pieces that come closer together than this travel together: less than a frame of a screen.
GATHER_S: Final = 0.012
#: Most that travels together. A character takes 6 bytes at most as JSON: under 64 KiB a message.
MOST_CHARS: Final = 10_000


class Preview:
    """Tells listeners of a node's text; a context at whose end all of it is told.

    After an error what was gathered is dropped: that attempt is void.

    Args:
        connection: where to.
        work: the node.
    """

    def __init__(self, connection: Connection, work: DecodeNode) -> None:
        self._connection = connection
        self._work = work
        self._subject = Subjects.live(work.request, work.node.id)
        self._loop = asyncio.get_running_loop()
        self._tokens = 0
        self._offset = 0
        self._gathered = ""
        self._told_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def add(self, piece: str) -> None:
        """Take what one more token adds to the text, which may be nothing."""
        self._tokens += 1
        if not piece:
            return
        self._gathered += piece
        if len(self._gathered) >= MOST_CHARS:
            self._tell()
        elif self._timer:
            return
        elif self._loop.time() >= (next_at := self._told_at + GATHER_S):
            self._tell()
        else:
            self._timer = self._loop.call_at(next_at, self._tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer:
            self._timer.cancel()
        if error is None and self._gathered:
            self._tell()

    def _tell(self) -> None:
        if self._timer:
            self._timer.cancel()
        text, self._gathered, self._timer = self._gathered, "", None
        for start in range(0, len(text), MOST_CHARS):
            self._send(text[start : start + MOST_CHARS])
        self._told_at = self._loop.time()

    def _send(self, text: str) -> None:
        told = TokensDecoded(
            request=self._work.request,
            node=self._work.node.id,
            attempt=self._work.attempt,
            offset=self._offset,
            text=text,
            tokens=self._tokens,
        )
        self._connection.preview(self._subject, encode(told))
        self._offset += len(text)
