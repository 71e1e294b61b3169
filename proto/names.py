"""Every subject, stream, consumer and header name, in one place.

Code, schemas, manifests and tests take the names from here. A version stands in
each subject (``skelgraph.v1.…``), so that two versions of the contract can live
side by side on one NATS. Tokens never hold user text: a request id is checked by
:func:`check_request_id` before it becomes part of a subject.

The id of a tenant's request is two tokens, ``@<tenant>.<rest>``: the tenant stands in
every subject of its requests, so that NATS itself can keep tenants apart (ADR 0027).
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from enum import StrEnum
from typing import Final, NamedTuple

from proto.errors import InvalidRequest

PREFIX: Final = "skelgraph.v1"
_RESERVED: Final = f"{PREFIX.partition('.')[0]}."
#: As what assemblers announce themselves by the NATS services protocol.
SERVICE_NAME: Final = "skelgraph"

#: Node id of the one node that answers the whole question (modes `direct`, fallback).
DIRECT_NODE: Final = 0
#: Node ids from here on are joints: work on the beginning of the node with that much less.
JOINTS: Final = 500


class Pool(StrEnum):
    """A set of workers with one model behind them."""

    LARGE = "large"
    SMALL = "small"


class Band(StrEnum):
    """Urgency of a node within its pool; workers empty the lower number first."""

    #: Builds on nodes that are done, or answers directly, or is tried again: its request
    #: has waited already.
    URGENT = "0"
    NORMAL = "1"


class Stream(StrEnum):
    """The JetStream streams."""

    #: Work queue: one message a request, until it is planned.
    REQUESTS = "SKELGRAPH_REQUESTS"
    #: Work queue: one message a released node attempt, until its fact is stored.
    NODES = "SKELGRAPH_NODES"
    #: Limits: the event log, the only state there is; one subject a fact.
    EVENTS = "SKELGRAPH_EVENTS"
    #: Limits: nodes that failed for good.
    DEAD = "SKELGRAPH_DEAD"


class Header(StrEnum):
    """Message headers that the services set or read."""

    MSG_ID = "Nats-Msg-Id"
    EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
    #: W3C Trace Context, passed on from the request to every message and engine call.
    TRACEPARENT = "traceparent"
    #: Of a reply that is an `ErrorInfo`, by the NATS services protocol (ADR-32): what is wrong in
    #: words, and its code.
    SERVICE_ERROR = "Nats-Service-Error"
    SERVICE_ERROR_CODE = "Nats-Service-Error-Code"


#: Subjects that each stream captures.
STREAM_SUBJECTS: Final[dict[Stream, str]] = {
    Stream.REQUESTS: f"{PREFIX}.request.>",
    Stream.NODES: f"{PREFIX}.node.>",
    Stream.EVENTS: f"{PREFIX}.event.>",
    Stream.DEAD: f"{PREFIX}.dead.>",
}

#: Facts are said again on core NATS by the server, once they are stored and only then:
#: `skelgraph.v1.fact.…` for what is stored as `skelgraph.v1.event.…`.
ANY_FACT: Final = f"{PREFIX}.fact.>"

#: The planners' durable consumer on :attr:`Stream.REQUESTS`.
PLANNER_CONSUMER: Final = "planner"
#: Priority group of a partition's consumer (ADR-42 `pinned_client`).
PIN_GROUP: Final = "owner"
#: Queue group in which assemblers answer commands.
COMMAND_QUEUE: Final = "assembler"

#: What a tenant's token begins with; no id without a tenant can.
TENANT_MARK: Final = "@"
TENANT_PATTERN: Final = r"[a-z0-9][a-z0-9_-]{0,31}"
REQUEST_ID_PATTERN: Final = rf"^(?:{TENANT_MARK}{TENANT_PATTERN}\.)?[A-Za-z0-9_-]{{1,64}}$"
_TENANT_NAME = re.compile(rf"{TENANT_PATTERN}\Z")
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN.removesuffix("$") + r"\Z")


def schema_urn(message: str) -> str:
    """Return the `$id` of the JSON Schema of a message."""
    return f"urn:{PREFIX.replace('.', ':')}:{message}"


def new_request_id(tenant: str = "") -> str:
    """Return a fresh request id (16 hex digits of randomness), of `tenant` if it is one's."""
    return in_tenant(tenant, secrets.token_hex(8))


def in_tenant(tenant: str, rest: str) -> str:
    """Return the id that `rest` is within `tenant`; without a tenant just `rest`."""
    return f"{tenant_token(tenant)}.{rest}" if tenant else rest


def tenant_token(tenant: str) -> str:
    """Return the token that stands for `tenant` in subjects."""
    return f"{TENANT_MARK}{tenant}"


def tenant_of(request: str) -> str:
    """Return whose tenant's `request` is; empty for a request without one."""
    return request[1:].partition(".")[0] if request.startswith(TENANT_MARK) else ""


def check_tenant(tenant: str) -> str:
    """Return `tenant` if it may name one.

    Raises:
        InvalidRequest: it is not 1 to 32 lower-case letters, digits, `_` or `-`, or begins
            with one of the last two.
    """
    if not _TENANT_NAME.match(tenant):
        raise InvalidRequest(
            "1 to 32 lower-case letters, digits, '_' or '-' are allowed", field="tenant"
        )
    return tenant


def check_request_id(request: str) -> str:
    """Return `request` if it may stand as a subject token.

    Raises:
        InvalidRequest: it is not 1 to 64 letters, digits, `_` or `-`, after the tenant's name
            if there is one.
    """
    if not _REQUEST_ID.match(request):
        raise InvalidRequest(
            "1 to 64 letters, digits, '_' or '-' are allowed, after '@tenant.' for a tenant's",
            field="request",
        )
    return request


def requeued_id(request: str) -> str:
    """Return the id under which the dead letters of `request` are requeued: always the same."""
    digest = hashlib.sha256(f"requeue {request}".encode()).hexdigest()[:16]
    return in_tenant(tenant_of(request), digest)


def joint_before(node: int) -> int:
    """Return the id of the work that fits `node` to the text before it."""
    return JOINTS + node


def is_joint(node: int) -> bool:
    """Return whether `node` is such work, and no node of a plan."""
    return node >= JOINTS


def partition_of(request: str, partitions: int) -> int:
    """Return the partition, `0 … partitions - 1`, that owns `request`."""
    return zlib.crc32(request.encode()) % partitions


def node_consumer(pool: Pool, band: Band) -> str:
    """Return the durable consumer of one pool and band on :attr:`Stream.NODES`."""
    return f"{pool}-{band}"


def node_consumer_filter(pool: Pool, band: Band) -> str:
    """Return what the consumer of one pool and band takes."""
    return f"{PREFIX}.node.{pool}.{band}.>"


def partition_consumer(partition: int) -> str:
    """Return the durable consumer of one partition on :attr:`Stream.EVENTS`."""
    return f"assembler-{partition}"


def partition_consumer_filter(partition: int) -> str:
    """Return what the consumer of one partition takes."""
    return f"{PREFIX}.event.{partition}.>"


class Subjects:
    """The subject of each message.

    Args:
        partitions: how many partitions the event log is split into; one figure for a
            whole deployment, kept in the event stream's metadata.
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    @staticmethod
    def request(request: str) -> str:
        """Where a client submits `request`."""
        return f"{PREFIX}.request.{request}"

    @staticmethod
    def node(pool: Pool, band: Band, request: str, node: int, attempt: int) -> str:
        """Work for a pool: unique while it is queued or running (ADR 0004)."""
        return f"{PREFIX}.node.{pool}.{band}.{request}.{node}.{attempt}"

    @staticmethod
    def nodes_of(request: str) -> str:
        """All queued work of one request, in any pool and band."""
        return f"{PREFIX}.node.*.*.{request}.>"

    @staticmethod
    def dead(request: str, node: int) -> str:
        """The dead letter of one node."""
        return f"{PREFIX}.dead.{request}.{node}"

    @staticmethod
    def dead_of(request: str) -> str:
        """All dead letters of one request."""
        return f"{PREFIX}.dead.{request}.*"

    @staticmethod
    def live(request: str, node: int) -> str:
        """Previews of one node on core NATS: nothing waits for them, nothing stores them."""
        return f"{PREFIX}.live.{request}.{node}"

    @staticmethod
    def live_of(request: str) -> str:
        """All previews of one request."""
        return f"{PREFIX}.live.{request}.*"

    @staticmethod
    def answer(request: str) -> str:
        """Where a client asks (request-reply) for the answer to `request`, and waits for it."""
        return f"{PREFIX}.answer.{request}"

    @staticmethod
    def cancel(request: str) -> str:
        """Where a client asks (request-reply) that `request` be cancelled."""
        return f"{PREFIX}.cancel.{request}"

    @staticmethod
    def stop(request: str) -> str:
        """Where workers and planners hear that work on `request` is of no more use."""
        return f"{PREFIX}.stop.{request}"

    @staticmethod
    def load(pool: Pool) -> str:
        """Where workers and assemblers tell (core NATS) what a pool has and what waits for it."""
        return f"{PREFIX}.load.{pool}"

    @staticmethod
    def facts_of(request: str) -> str:
        """All facts of one request, for readers that need not know its partition."""
        return f"{PREFIX}.event.*.{request}.>"

    @staticmethod
    def said_of(request: str) -> str:
        """All facts of one request as the server says them on core NATS."""
        return f"{PREFIX}.fact.*.{request}.>"

    def accepted(self, request: str) -> str:
        """The fact that a valid request was taken up."""
        return f"{self._event(request)}.accepted"

    def planned(self, request: str, node: int) -> str:
        """The fact that a node is part of the plan."""
        return f"{self._event(request)}.planned.{node}"

    def plan(self, request: str) -> str:
        """The fact that the plan is complete."""
        return f"{self._event(request)}.plan"

    def decoded(self, request: str, node: int) -> str:
        """The fact that a node has its text."""
        return f"{self._event(request)}.decoded.{node}"

    def failed(self, request: str, node: int, attempt: int) -> str:
        """The fact that one attempt at a node failed."""
        return f"{self._event(request)}.failed.{node}.{attempt}"

    def end(self, request: str) -> str:
        """The fact that ends a request: the first one stored wins."""
        return f"{self._event(request)}.end"

    def _event(self, request: str) -> str:
        return f"{PREFIX}.event.{partition_of(request, self.partitions)}.{request}"


#: Requests from callers that follow no facts (request-reply): stored, or answered as well.
SUBMIT: Final = f"{PREFIX}.submit"
ANSWER: Final = f"{PREFIX}.answer"

ANY_CANCEL: Final = f"{PREFIX}.cancel.>"
ANY_STOP: Final = f"{PREFIX}.stop.>"
ANY_LOAD: Final = f"{PREFIX}.load.*"

#: Where assemblers tell one another (core NATS) which partitions they have.
CLAIMS: Final = f"{PREFIX}.claims"

#: Commands on dead letters (request-reply); not below `dead`, whose stream would take them.
LIST_LETTERS: Final = f"{PREFIX}.letter.list"
SHOW_LETTER: Final = f"{PREFIX}.letter.show"
REQUEUE_LETTER: Final = f"{PREFIX}.letter.requeue"
DROP_LETTER: Final = f"{PREFIX}.letter.drop"
ANY_LETTER: Final = f"{PREFIX}.letter.*"

_TENANT: Final = f"{PREFIX}.tenant"


def said(subject: str) -> str:
    """Return where the server says on core NATS what is stored under `subject`, a fact's."""
    return f"{PREFIX}.fact.{subject.removeprefix(f'{PREFIX}.event.')}"


def of_tenant(subject: str, owner: str = "*") -> str:
    """Return where `subject` of a tenant arrives: NATS maps it there from the tenant's account,
    so that what stands in the owner's place is the server's word, not the caller's (ADR 0027).
    """
    return f"{_TENANT}.{owner}.{subject.removeprefix(f'{PREFIX}.')}"


def split_tenant(subject: str) -> tuple[str, str]:
    """Return the owner that `subject` names, and the subject without it; see `of_tenant`."""
    if not subject.startswith(f"{_TENANT}."):
        return "", subject
    owner, _, rest = subject.removeprefix(f"{_TENANT}.").partition(".")
    return owner, f"{PREFIX}.{rest}"


def request_of(subject: str) -> str:
    """Return the request id in a `request`, `answer`, `cancel`, `stop` or `live` subject."""
    _, _, kind, *rest = subject.split(".")
    return ".".join(rest[:-1] if kind == "live" else rest)


def may_take_replies(subject: str) -> bool:
    """Return whether a reply may be sent to `subject`, which whoever asks has chosen.

    Who answers has rights of its own: it must write no fact, nor ask the server for anything,
    because somebody who may not do so has named that subject as the place for the reply.
    """
    return bool(subject) and not subject.startswith((_RESERVED, "$"))


class WorkSubject(NamedTuple):
    """What the subject of a node's work says."""

    pool: Pool
    request: str
    node: int
    attempt: int


def work_of(subject: str) -> WorkSubject:
    """Return what a `node` subject says."""
    _, _, _, pool, _, *request, node, attempt = subject.split(".")
    return WorkSubject(Pool(pool), ".".join(request), int(node), int(attempt))


def request_and_kind_of(subject: str) -> tuple[str, str]:
    """Return the request id in an `event` or `fact` subject, and the kind of fact."""
    _, _, _, _, first, second, *further = subject.split(".")
    if first.startswith(TENANT_MARK):
        return f"{first}.{second}", further[0]
    return first, second


__all__ = [
    "ANSWER",
    "ANY_CANCEL",
    "ANY_FACT",
    "ANY_LETTER",
    "ANY_LOAD",
    "ANY_STOP",
    "CLAIMS",
    "COMMAND_QUEUE",
    "DIRECT_NODE",
    "DROP_LETTER",
    "JOINTS",
    "LIST_LETTERS",
    "PIN_GROUP",
    "PLANNER_CONSUMER",
    "PREFIX",
    "REQUEST_ID_PATTERN",
    "REQUEUE_LETTER",
    "SERVICE_NAME",
    "SHOW_LETTER",
    "STREAM_SUBJECTS",
    "SUBMIT",
    "TENANT_MARK",
    "TENANT_PATTERN",
    "Band",
    "Header",
    "Pool",
    "Stream",
    "Subjects",
    "WorkSubject",
    "check_request_id",
    "check_tenant",
    "in_tenant",
    "is_joint",
    "joint_before",
    "may_take_replies",
    "new_request_id",
    "node_consumer",
    "node_consumer_filter",
    "of_tenant",
    "partition_consumer",
    "partition_consumer_filter",
    "partition_of",
    "request_and_kind_of",
    "request_of",
    "requeued_id",
    "schema_urn",
    "split_tenant",
    "tenant_of",
    "tenant_token",
    "work_of",
]
