"""Which message travels where: the table behind the AsyncAPI document and the docs.

Subjects, streams, consumers and queue groups are asked of `proto.names`; a `{parameter}`
stands where a value would.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, cast

from pydantic import BaseModel

from proto import messages as m
from proto.names import (
    ANSWER,
    CLAIMS,
    COMMAND_QUEUE,
    DROP_LETTER,
    LIST_LETTERS,
    PLANNER_CONSUMER,
    REQUEUE_LETTER,
    SHOW_LETTER,
    SUBMIT,
    Band,
    Pool,
    Stream,
    Subjects,
    node_consumer,
    of_tenant,
    partition_consumer,
    partition_consumer_filter,
    said,
)

Message = type[BaseModel]


class Role(StrEnum):
    """Who sends and reads messages."""

    CLIENT = "client"
    PLANNER = "planner"
    ASSEMBLER = "assembler"
    WORKER = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One kind of subject, the messages on it, and who sends and reads them.

    Args:
        name: unique among the channels.
        address: the subject, with `{parameter}` for what varies.
        summary: what it is for.
        sent: what each role sends there.
        read: the roles that read it.
        stream: the stream that keeps it; None on core NATS.
        consumers: durable consumers on it, with `{parameter}` for what varies.
        queue: the queue group in which its readers answer.
        replies: what its readers reply.
        tenants: whether a tenant's account is lent it, for requests of its own.
    """

    name: str
    address: str
    summary: str
    sent: Mapping[Role, tuple[Message, ...]]
    read: tuple[Role, ...]
    stream: Stream | None = None
    consumers: tuple[str, ...] = ()
    queue: str | None = None
    replies: tuple[Message, ...] = field(default=())
    tenants: bool = False

    @property
    def tenant_address(self) -> str | None:
        """Where a tenant's messages arrive; None if tenants have nothing to do with it.

        NATS maps commands there; what is stored or said has its tenant in the request's id.
        """
        if not self.tenants:
            return None
        return of_tenant(self.address, "{tenant}") if self.replies else self.address

    @property
    def said_address(self) -> str | None:
        """Where the server says on core NATS what is stored here; facts only."""
        return said(self.address) if is_fact(self) else None

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages on it, each once."""
        return tuple(dict.fromkeys(kind for kinds in self.sent.values() for kind in kinds))

    @property
    def pattern(self) -> str:
        """What to subscribe to for all of its subjects."""
        # A tenant's request id is two tokens.
        return re.sub(r"{\w+}", "*", re.sub(r"{request}$", ">", self.address))


_REQUEST: Final = "{request}"
_NODE: Final = cast("int", "{node}")
_ATTEMPT: Final = cast("int", "{attempt}")
_PARTITION: Final = cast("int", "{partition}")
_POOL: Final = cast("Pool", "{pool}")
_BAND: Final = cast("Band", "{band}")

#: What the parameters of the addresses mean, and the values of those that are enumerated.
PARAMETERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "tenant": (
        "The tenant: 1 to 32 lower-case letters, digits, `_`, `-`. It is NATS's word.",
        (),
    ),
    "request": (
        "Id of the request: 1 to 64 letters, digits, `_` or `-`; a tenant's begins with `@tenant.`",
        (),
    ),
    "node": ("Id of the node, from 1 in plan order; 0 is the direct answer.", ()),
    "attempt": ("Which attempt at the node, from 1.", ()),
    "partition": ("CRC-32 of the request's id, modulo the number of partitions.", ()),
    "pool": ("Pool that decodes the node.", tuple(Pool)),
    "band": ("Urgency within the pool, the lower number first.", tuple(Band)),
}

_UNPARTITIONED: Final = Subjects(1)
_ENDS: Final = (m.AnswerAssembled, m.SkeletonDrafted, m.RequestFailed)


def _fact_address(subject: str) -> str:
    """Put the parameter in the place of the only partition, 0."""
    only, any_one = partition_consumer_filter(0), partition_consumer_filter(_PARTITION)
    return subject.replace(only.removesuffix(">"), any_one.removesuffix(">"), 1)


def _fact(
    name: str, subject: str, summary: str, sent: Mapping[Role, tuple[Message, ...]]
) -> Channel:
    return Channel(
        name=name,
        address=_fact_address(subject),
        summary=summary,
        sent=sent,
        read=(Role.ASSEMBLER, Role.CLIENT),
        stream=Stream.EVENTS,
        consumers=(partition_consumer(_PARTITION),),
    )


_WORK: Final = (
    Channel(
        name="request",
        address=Subjects.request(_REQUEST),
        summary="Requests, until they are planned.",
        sent={Role.CLIENT: (m.SubmitRequest,)},
        read=(Role.PLANNER,),
        stream=Stream.REQUESTS,
        consumers=(PLANNER_CONSUMER,),
        tenants=True,
    ),
    Channel(
        name="node",
        address=Subjects.node(_POOL, _BAND, _REQUEST, _NODE, _ATTEMPT),
        summary="Released node attempts, until their fact is stored.",
        sent={Role.ASSEMBLER: (m.DecodeNode,)},
        read=(Role.WORKER,),
        stream=Stream.NODES,
        consumers=tuple(node_consumer(pool, band) for pool in Pool for band in Band),
    ),
    Channel(
        name="dead",
        address=Subjects.dead(_REQUEST, _NODE),
        summary="Nodes that failed for good, for people to look at.",
        sent={Role.ASSEMBLER: (m.DeadLetter,)},
        read=(Role.CLIENT,),
        stream=Stream.DEAD,
    ),
)

_FACTS: Final = (
    _fact(
        "accepted",
        _UNPARTITIONED.accepted(_REQUEST),
        "A valid request was taken up; held un-acked by its assembler until the end.",
        {Role.PLANNER: (m.RequestAccepted,)},
    ),
    _fact(
        "planned",
        _UNPARTITIONED.planned(_REQUEST, _NODE),
        "A node of the plan, stored the moment its line is complete.",
        {Role.PLANNER: (m.NodePlanned,)},
    ),
    _fact(
        "plan",
        _UNPARTITIONED.plan(_REQUEST),
        "The plan is complete: the nodes of the answer are known.",
        {Role.PLANNER: (m.PlanCompleted,)},
    ),
    _fact(
        "decoded",
        _UNPARTITIONED.decoded(_REQUEST, _NODE),
        "A node has its text; the first one stored wins.",
        {Role.WORKER: (m.NodeDecoded,)},
    ),
    _fact(
        "failed",
        _UNPARTITIONED.failed(_REQUEST, _NODE, _ATTEMPT),
        "One attempt at a node failed.",
        {Role.WORKER: (m.NodeFailed,)},
    ),
    _fact(
        "end",
        _UNPARTITIONED.end(_REQUEST),
        "The end of the request; the first one stored wins.",
        {
            Role.ASSEMBLER: _ENDS,
            Role.PLANNER: (m.RequestFailed,),
        },
    ),
)


def _command(
    name: str,
    address: str,
    summary: str,
    asked: Message,
    *replies: Message,
    tenants: bool = False,
) -> Channel:
    """Request-reply, answered by any assembler."""
    return Channel(
        name=name,
        address=address,
        summary=summary,
        sent={Role.CLIENT: (asked,)},
        read=(Role.ASSEMBLER,),
        queue=COMMAND_QUEUE,
        replies=(*replies, m.ErrorInfo),
        tenants=tenants,
    )


#: What callers ask for and get in a reply; assemblers answer (`services.assembler`).
SUBMIT_COMMAND: Final = _command(
    "submit",
    SUBMIT,
    "Stores a request and replies with its id.",
    m.CreateRequest,
    m.RequestCreated,
    tenants=True,
)
ANSWER_COMMAND: Final = _command(
    "answer",
    ANSWER,
    "Stores a request, waits for its end and replies with it.",
    m.AskQuestion,
    *_ENDS,
    m.AnswerPending,
    tenants=True,
)
AWAIT_COMMAND: Final = _command(
    "await",
    Subjects.answer(_REQUEST),
    "Waits for the end of a stored request and replies with it.",
    m.AwaitAnswer,
    *_ENDS,
    m.AnswerPending,
    tenants=True,
)
CANCEL_COMMAND: Final = _command(
    "cancel",
    Subjects.cancel(_REQUEST),
    "Cancels a request; answered when its end is stored.",
    m.CancelRequest,
    m.CancelOutcome,
    tenants=True,
)
LIST_LETTERS_COMMAND: Final = _command(
    "listLetters",
    LIST_LETTERS,
    "Lists dead letters, a page at a time.",
    m.ListLetters,
    m.LetterPage,
)
SHOW_LETTER_COMMAND: Final = _command(
    "showLetter", SHOW_LETTER, "Shows one dead letter.", m.ShowLetter, m.LetterShown
)
REQUEUE_LETTER_COMMAND: Final = _command(
    "requeueLetter",
    REQUEUE_LETTER,
    "Submits the request of a dead letter again; answered when it is stored.",
    m.RequeueLetter,
    m.LetterRequeued,
)
DROP_LETTER_COMMAND: Final = _command(
    "dropLetter", DROP_LETTER, "Removes a dead letter.", m.DropLetter, m.LetterDropped
)
COMMANDS: Final = (
    SUBMIT_COMMAND,
    ANSWER_COMMAND,
    AWAIT_COMMAND,
    CANCEL_COMMAND,
    LIST_LETTERS_COMMAND,
    SHOW_LETTER_COMMAND,
    REQUEUE_LETTER_COMMAND,
    DROP_LETTER_COMMAND,
)

_CORE: Final = (
    Channel(
        name="live",
        address=Subjects.live(_REQUEST, _NODE),
        summary="Previews of a node's text. They may be lost: the decoded fact is the truth.",
        sent={
            Role.ASSEMBLER: (m.NodeReleased,),
            Role.WORKER: (m.NodeStarted, m.TokensDecoded, m.NodeReset),
        },
        read=(Role.CLIENT,),
        tenants=True,
    ),
    Channel(
        name="stop",
        address=Subjects.stop(_REQUEST),
        summary="Work on a request is of no more use. May be lost: the end says the same.",
        sent={Role.ASSEMBLER: (m.StopWork,)},
        read=(Role.PLANNER, Role.WORKER),
    ),
    Channel(
        name="load",
        address=Subjects.load(_POOL),
        summary="What a pool has and what waits for it. May be lost: it is said again.",
        sent={
            Role.WORKER: (m.LoadAnnounced,),
            Role.ASSEMBLER: (m.LoadAnnounced,),
        },
        read=(Role.PLANNER, Role.ASSEMBLER),
    ),
    Channel(
        name="claims",
        address=CLAIMS,
        summary="Which partitions an assembler has. May be lost: it is said again.",
        sent={Role.ASSEMBLER: (m.PartitionsClaimed,)},
        read=(Role.ASSEMBLER,),
    ),
)


CHANNELS: Final[tuple[Channel, ...]] = _WORK + _FACTS + COMMANDS + _CORE

#: Every message that travels, each once, in the order of the channels.
MESSAGES: Final[tuple[Message, ...]] = tuple(
    dict.fromkeys(kind for channel in CHANNELS for kind in channel.messages + channel.replies)
)


def is_fact(channel: Channel) -> bool:
    """Whether the channel is part of the event log, where the first message wins."""
    return channel.stream is Stream.EVENTS
