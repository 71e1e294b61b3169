"""The dead letters as a client sees them: listed page by page, shown, requeued, dropped."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, NamedTuple, Self, TypeVar

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg
from pydantic import BaseModel

from proto.codec import decode, encode
from proto.errors import InvalidRequest, QueueUnavailable
from proto.messages import (
    MAX_LETTERS,
    DropLetter,
    ErrorInfo,
    LetterDropped,
    LetterPage,
    LetterRequeued,
    LetterShown,
    LetterSummary,
    ListLetters,
    RequeueLetter,
    ShowLetter,
)
from proto.names import DROP_LETTER, LIST_LETTERS, REQUEUE_LETTER, SHOW_LETTER, check_request_id
from services.runtime.client import error_of
from services.runtime.connection import Connection

log = structlog.get_logger()

#: How long an assembler may take for one command.
TIMEOUT_S: Final = 8.0
#: All commands may be repeated; another assembler may answer where one is frozen.
TRIES: Final = 3
MAX_NODE: Final = 999

R = TypeVar("R", bound=BaseModel)


class LetterId(NamedTuple):
    """Which letter: written `REQUEST/NODE`."""

    request: str
    node: int

    def __str__(self) -> str:
        return f"{self.request}/{self.node}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `REQUEST/NODE`.

        Raises:
            InvalidRequest: it is not of that form.
        """
        request, _, node = text.partition("/")
        if not (node.isascii() and node.isdecimal() and int(node) <= MAX_NODE):
            raise InvalidRequest(
                f"{text!r} is not REQUEST/NODE, as `dead list` writes it", field="id"
            )
        return cls(check_request_id(request), int(node))


class Wanted(NamedTuple):
    """Which letters are meant; a field that is None means all."""

    request: str | None = None
    code: str | None = None
    since: float | None = None


class Letters:
    """Asks the assemblers about dead letters.

    All methods raise `QueueUnavailable` if no assembler answers, and the error that it replies.

    Args:
        connection: an open connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def each(self, wanted: Wanted, limit: int | None = None) -> AsyncGenerator[LetterSummary]:
        """Yield the letters that are wanted, oldest first, at most `limit`."""
        after, left = 0, limit
        while left is None or left > 0:
            size = MAX_LETTERS if left is None else min(left, MAX_LETTERS)
            page = await self._page(wanted, after, size)
            for letter in page.letters:
                yield letter
            if page.next is None:
                return
            after = page.next
            left = None if left is None else left - len(page.letters)

    async def show(self, letter: LetterId, *, text: bool) -> LetterShown:
        """Return one letter; `LetterNotFound` if there is none."""
        ask = ShowLetter(request=letter.request, node=letter.node, text=text)
        return await self._ask(SHOW_LETTER, ask, LetterShown)

    async def requeue(self, letter: LetterId) -> LetterRequeued:
        """Submit the letter's request again; returns once that is stored."""
        ask = RequeueLetter(request=letter.request, node=letter.node)
        return await self._ask(REQUEUE_LETTER, ask, LetterRequeued)

    async def drop(self, letter: LetterId) -> LetterDropped:
        """Remove a letter."""
        ask = DropLetter(request=letter.request, node=letter.node)
        return await self._ask(DROP_LETTER, ask, LetterDropped)

    async def _page(self, wanted: Wanted, after: int, limit: int) -> LetterPage:
        fields = {**wanted._asdict(), "after": after, "limit": limit}
        ask = decode(ListLetters, orjson.dumps(fields))
        return await self._ask(LIST_LETTERS, ask, LetterPage)

    async def _ask(self, subject: str, command: BaseModel, kind: type[R]) -> R:
        reply = await self._reply(subject, encode(command))
        if orjson.loads(reply.data).get("type") != kind.__name__:
            raise error_of(decode(ErrorInfo, reply.data))
        return decode(kind, reply.data)

    async def _reply(self, subject: str, command: bytes) -> Msg:
        for _ in range(TRIES):
            try:
                return await self._connection.request(subject, command, timeout_s=TIMEOUT_S)
            except nats.errors.NoRespondersError:
                raise QueueUnavailable("no assembler is running") from None
            except (nats.errors.Error, TimeoutError) as error:
                log.info("letter_command_unanswered", subject=subject, error=str(error))
        raise QueueUnavailable(f"no assembler answered in {TRIES * TIMEOUT_S:g} s")
