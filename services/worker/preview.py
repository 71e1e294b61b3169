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
        if self._timer:
            return
        if self._loop.time() >= (next_at := self._told_at + GATHER_S):
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
        text, self._gathered, self._timer = self._gathered, "", None
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
        self._told_at = self._loop.time()
