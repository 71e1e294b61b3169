"""What each service, a person and a tenant may do on NATS: what they need, and no more.

One table for `skelgraph auth init`, the Helm values, the documentation and the tests. Subjects are
asked of `proto.names`. Nobody but `provision` may make, change or empty streams, but for the
assembler, which takes work and letters out of queues. Everybody has an inbox of its own: a reply to
one is not heard by another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proto.names import ANSWER, CLAIMS, PREFIX, SUBMIT, Stream, Subjects, of_tenant, tenant_token
from skelgraph.auth.tokens import Limits, Permissions, Shared

SYSTEM: Final = "system"
#: The account of the streams, and of those that may do all there.
STORE: Final = "services"
OPERATOR: Final = "operator"
#: NATS forgets who asked what after this long; longer than a caller may wait for an answer.
RESPOND_S: Final = 3660
#: The same of what is answered several times: pulls, batches, and who is there.
MANY_S: Final = 10
#: What one tenant may have open; an account without bounds could fill a server's tables.
TENANT_LIMITS: Final = Limits(connections=64, subscriptions=10_000, payload_bytes=1024**2)

_EVENTS, _NODES, _REQUESTS, _DEAD = Stream.EVENTS, Stream.NODES, Stream.REQUESTS, Stream.DEAD


def _api(*calls: str) -> tuple[str, ...]:
    return tuple(f"$JS.API.{call}" for call in ("INFO", *calls))


def _own(*subjects: str) -> tuple[str, ...]:
    return tuple(f"{PREFIX}.{subject}" for subject in subjects)


def _facts(*kinds: str) -> tuple[str, ...]:
    """Return where facts of these kinds are written, of requests without a tenant and with one."""
    return tuple(
        Subjects.facts_of(any_id).removesuffix(">") + kind
        for kind in kinds
        for any_id in ("*", "*.*")
    )


def _info(*streams: Stream) -> tuple[str, ...]:
    return tuple(f"STREAM.INFO.{stream}" for stream in streams)


def _reads(stream: Stream) -> tuple[str, str]:
    return f"DIRECT.GET.{stream}", f"DIRECT.GET.{stream}.>"


def _with_inbox(name: str, subjects: Iterable[str] = ()) -> tuple[str, ...]:
    return (f"_INBOX.{name}.>", *subjects)


_PLANNER: Final = Permissions(
    publish=(
        *_api(
            # How full it all is: over capacity it refuses before it plans.
            *_info(_EVENTS, _NODES),
            f"CONSUMER.LIST.{_EVENTS}",
            f"CONSUMER.INFO.{_EVENTS}.*",
            f"CONSUMER.MSG.NEXT.{_REQUESTS}.planner",
            *_reads(_EVENTS),
        ),
        f"$JS.ACK.{_REQUESTS}.planner.>",
        *_facts("accepted", "planned.*", "plan", "end"),
    ),
    subscribe=_with_inbox("planner", _own("stop.>", "load.*")),
)
_ASSEMBLER: Final = Permissions(
    publish=(
        *_api(
            *_info(_EVENTS, _REQUESTS, _NODES, _DEAD),
            # Queued work of a request that has ended.
            f"STREAM.PURGE.{_NODES}",
            # Dead letters: read, dropped, and their requests submitted again.
            *_reads(_DEAD),
            f"STREAM.PURGE.{_DEAD}",
            f"CONSUMER.LIST.{_EVENTS}",
            f"CONSUMER.INFO.{_EVENTS}.*",
            f"CONSUMER.MSG.NEXT.{_EVENTS}.*",
            # A partition is let go at the end, so that its successor need not wait.
            f"CONSUMER.UNPIN.{_EVENTS}.*",
            *_reads(_EVENTS),
            f"DIRECT.GET.{_REQUESTS}.>",
        ),
        f"$JS.ACK.{_EVENTS}.>",
        *_own("request.>", "event.>", "node.>", "dead.>", "live.>", "stop.>", "load.*"),
        CLAIMS,
    ),
    subscribe=_with_inbox(
        "assembler",
        (
            # Commands, from tenants' accounts too, and who it is that answers them.
            *_own("submit", "answer", "answer.>", "cancel.>", "letter.*", "tenant.>", "load.*"),
            "$SRV.>",
            # Which partitions the other assemblers have.
            CLAIMS,
            # The word that a request has ended, for callers that wait for its answer.
            *_facts("end"),
        ),
    ),
    respond_s=RESPOND_S,
)
_WORKER: Final = Permissions(
    publish=(
        *_api(
            *_info(_EVENTS),
            f"CONSUMER.INFO.{_EVENTS}.*",
            f"CONSUMER.MSG.NEXT.{_NODES}.*",
            *_reads(_EVENTS),
        ),
        f"$JS.ACK.{_NODES}.>",
        *_facts("decoded.*", "failed.*.*"),
        *_own("live.>", "load.*"),
    ),
    subscribe=_with_inbox("worker", _own("stop.>")),
)
_FOLLOWS: Final = (
    *_api(
        "STREAM.INFO.*",
        "CONSUMER.INFO.*.*",
        *_reads(_EVENTS),
        f"DIRECT.GET.{_REQUESTS}.>",
    ),
    *_own("request.>", "cancel.>", "submit", "answer", "answer.>"),
)
_SEES: Final = _own("live.>", "fact.>")
_GATEWAY: Final = Permissions(publish=_FOLLOWS, subscribe=_with_inbox("gateway", _SEES))
#: People with the command line: all that a gateway may, and dead letters.
_OPERATOR: Final = Permissions(
    publish=(*_FOLLOWS, *_own("letter.*"), "$SRV.>"),
    subscribe=_with_inbox(OPERATOR, (*_SEES, *_own("load.*"))),
)
_PROVISION: Final = Permissions(
    publish=(*_api("STREAM.>", "CONSUMER.>"), "$JS.SNAPSHOT.>"),
    subscribe=_with_inbox("provision"),
)
#: Saves; restoring is a person's work, as the user `provision`.
_BACKUP: Final = Permissions(
    publish=(*_api("STREAM.SNAPSHOT.*"), "$JS.SNAPSHOT.ACK.>"),
    subscribe=_with_inbox("backup"),
)

#: Users of the services' account.
SERVICES: Final[dict[str, Permissions]] = {
    "planner": _PLANNER,
    "assembler": _ASSEMBLER,
    "worker": _WORKER,
    "gateway": _GATEWAY,
    OPERATOR: _OPERATOR,
    "provision": _PROVISION,
    "backup": _BACKUP,
}

#: The user of the system account, that changes accounts while the server runs.
SYSTEM_USER: Final = Permissions(
    publish=("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP"),
    subscribe=_with_inbox(SYSTEM),
)


#: Services with an account of their own each, as tenants have one: NATS sends the reply to whatever
#: a user may ask to any subject of the account it asks in, so that who may ask the store for
#: anything could have it write or say anything there. Users of the store's own account are the
#: assembler, which may write all, `provision` and `backup`, which may read and change all, and the
#: worker: NATS does not lend on to others (tokens, to gateways and tenants) what was lent to it.
APART: Final = ("planner", "gateway", OPERATOR)


def account_of(service: str) -> str:
    """Return the account that the user of a service is in."""
    return service if service in APART else STORE


def borrowed(service: str) -> tuple[Shared, ...]:
    """Return what the account of a service is lent: all that its user may do, and no more."""
    may = SERVICES[service]
    heard = (one for one in may.subscribe if not one.startswith("_INBOX."))
    return (*map(_used, may.publish), *(Shared(one, one, "stream") for one in heard))


def _used(subject: str) -> Shared:
    batch = subject.removeprefix("$JS.API.DIRECT.GET.") in set(Stream)
    if batch or subject.startswith(("$JS.API.CONSUMER.MSG.NEXT.", "$SRV.")):
        return Shared(subject, subject, "service", respond_s=MANY_S, many=True)
    waits_s = RESPOND_S if subject.startswith(ANSWER) else 0
    return Shared(subject, subject, "service", respond_s=waits_s)


#: Stands for each tenant in what is lent to all.
_ANY: Final = "*"


def _lent(tenant: str) -> tuple[Shared, ...]:
    token = tenant if tenant == _ANY else tenant_token(tenant)
    stored, get = f"{PREFIX}.request.{token}.*", "$JS.API.DIRECT.GET"
    # Commands arrive under a subject that names the tenant: what it says of itself counts nothing.
    commands = (SUBMIT, ANSWER, Subjects.answer(f"{token}.*"), Subjects.cancel(f"{token}.*"))
    return (
        *(
            Shared(f"command {number}", of_tenant(one, tenant), "service", one, RESPOND_S)
            for number, one in enumerate(commands, 1)
        ),
        Shared("store a request", stored, "service"),
        Shared("read the queue", f"{get}.{_REQUESTS}.{stored}", "service"),
        Shared("read a fact", f"{get}.{_EVENTS}.{PREFIX}.event.*.{token}.>", "service"),
        Shared("hear facts", f"{PREFIX}.fact.*.{token}.>", "stream"),
        Shared("hear tokens", f"{PREFIX}.live.{token}.>", "stream"),
    )


def _exports() -> tuple[Shared, ...]:
    """Return all that is lent; NATS wants no subject that another one covers."""
    wanted = [*_lent(_ANY), *(one for service in APART for one in borrowed(service))]
    found: dict[tuple[str, str], Shared] = {}
    for one in wanted:
        covered = any(
            other.type == one.type and other.subject != one.subject and _covers(other, one)
            for other in wanted
        )
        if not covered:
            found.setdefault((one.type, one.subject), one)
    return tuple(found.values())


def _covers(broad: Shared, narrow: Shared) -> bool:
    """Return whether each subject of `narrow` is one of `broad`, too."""
    words, theirs = broad.subject.split("."), narrow.subject.split(".")
    for place, word in enumerate(words):
        if word == ">":
            return len(theirs) > place
        if place >= len(theirs) or theirs[place] == ">" or word not in {"*", theirs[place]}:
            return False
    return len(words) == len(theirs)


#: What the services' account lends, with its leave only, to others.
EXPORTS: Final = _exports()


def imports(tenant: str) -> tuple[Shared, ...]:
    """Return what a tenant is lent: the subjects of its own requests."""
    return _lent(tenant)


def tenant_permissions(tenant: str) -> Permissions:
    """Return what a user of a tenant's account may do there: use what the account was lent."""
    lent = imports(tenant)
    asks = tuple(one.known_as for one in lent if one.type == "service")
    hears = tuple(one.known_as for one in lent if one.type == "stream")
    # Without JetStream of its own: the answer to INFO says no more than that the server is there.
    return Permissions(publish=(*_api(), *asks), subscribe=("_INBOX.>", *hears))
