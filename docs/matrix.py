"""Who may do what on NATS: the table of docs/security.md, each row an attempt of the test.

An attempt is a publish or a subscription, of everybody; what must come of it for whom is written
here by hand, beside it, and not read from the permissions: the table is what was meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from proto.names import (
    ANSWER,
    ANY_LOAD,
    CLAIMS,
    LIST_LETTERS,
    PREFIX,
    SUBMIT,
    Band,
    Pool,
    Stream,
    Subjects,
    of_tenant,
)

#: Two tenants; `acme` is the one whose requests everybody is after.
TENANTS: Final = ("@acme", "@bolt")
USERS: Final = (
    "planner", "assembler", "worker", "gateway", "operator", "provision", "backup", "system",
    *TENANTS,
)  # fmt: skip
ACME: Final = "@acme.r1"
PLAIN: Final = "r1"
_S: Final = Subjects(1)
_E, _R, _N, _D = Stream.EVENTS, Stream.REQUESTS, Stream.NODES, Stream.DEAD


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is tried, in words and as a subject, and who must succeed."""

    what: str
    verb: Literal["publish", "subscribe"]
    subject: str
    allowed: frozenset[str]


def _may(what: str, verb: Literal["publish", "subscribe"], subject: str, who: str) -> Attempt:
    return Attempt(what, verb, subject, frozenset(who.split()))


def _publish(what: str, subject: str, who: str = "") -> Attempt:
    return _may(what, "publish", subject, who)


def _api(what: str, call: str, who: str = "") -> Attempt:
    return _publish(what, f"$JS.API.{call}", who)


def _subscribe(what: str, subject: str, who: str = "") -> Attempt:
    return _may(what, "subscribe", subject, who)


_FOLLOW: Final = "gateway operator"

ATTEMPTS: Final = (
    # Requests
    _publish("store a request", Subjects.request(PLAIN), "assembler gateway operator"),
    _publish("store a request of acme", Subjects.request(ACME), "assembler gateway operator @acme"),
    _publish("submit by request-reply", SUBMIT, "gateway operator @acme @bolt"),
    _publish("ask by request-reply", ANSWER, "gateway operator @acme @bolt"),
    _publish("await an answer", Subjects.answer(PLAIN), _FOLLOW),
    _publish("await acme's answer", Subjects.answer(ACME), "gateway operator @acme"),
    _publish("submit as acme, by its name", of_tenant(SUBMIT, "acme")),
    _publish("cancel", Subjects.cancel(PLAIN), _FOLLOW),
    _publish("cancel acme's", Subjects.cancel(ACME), "gateway operator @acme"),
    _publish("cancel as acme, by its name", of_tenant(Subjects.cancel(ACME), "acme")),
    _publish("stop work", Subjects.stop(ACME), "assembler"),
    _publish("release a node", Subjects.node(Pool.SMALL, Band.NORMAL, ACME, 1, 1), "assembler"),
    _publish("accept a request", _S.accepted(ACME), "planner assembler"),
    _publish("plan a node", _S.planned(PLAIN, 1), "planner assembler"),
    _publish("write a node's result", _S.decoded(PLAIN, 1), "assembler worker"),
    _publish("write the result of acme's node", _S.decoded(ACME, 1), "assembler worker"),
    _publish("say that a node failed", _S.failed(ACME, 1, 1), "assembler worker"),
    _publish("end a request", _S.end(PLAIN), "planner assembler"),
    _publish("end acme's request", _S.end(ACME), "planner assembler"),
    _publish("say a fact that is not stored", f"{PREFIX}.fact.0.{ACME}.end"),
    _publish("write tokens", Subjects.live(ACME, 1), "assembler worker"),
    _publish("tell a pool's load", Subjects.load(Pool.SMALL), "assembler worker"),
    _publish("claim partitions", CLAIMS, "assembler"),
    _publish("write a dead letter", Subjects.dead(ACME, 1), "assembler"),
    _publish("list dead letters", LIST_LETTERS, "operator"),
    _publish("find services", "$SRV.PING", "operator"),
    # Hearing
    _subscribe("hear requests", f"{PREFIX}.request.>"),
    _subscribe("hear work", f"{PREFIX}.node.>"),
    _subscribe("hear all facts as they are written", f"{PREFIX}.event.>"),
    _subscribe("hear ends as they are written", _S.end(PLAIN), "assembler"),
    _subscribe("hear all stored facts", f"{PREFIX}.fact.>", _FOLLOW),
    _subscribe("hear acme's facts", f"{PREFIX}.fact.*.@acme.>", "gateway operator @acme"),
    _subscribe("hear acme's facts as written", f"{PREFIX}.event.*.@acme.>"),
    _subscribe("hear all tokens", f"{PREFIX}.live.>", _FOLLOW),
    _subscribe("hear acme's tokens", f"{PREFIX}.live.@acme.>", "gateway operator @acme"),
    _subscribe("hear one request's tokens", Subjects.live_of(ACME), "gateway operator @acme"),
    _subscribe("answer cancels", f"{PREFIX}.cancel.>", "assembler"),
    _subscribe("answer for assemblers", f"{PREFIX}.submit", "assembler"),
    _subscribe("hear stops", f"{PREFIX}.stop.>", "planner worker"),
    _subscribe("hear questions about services", "$SRV.>", "assembler"),
    _subscribe("hear the pools' load", ANY_LOAD, "planner assembler operator"),
    _subscribe("hear who claims partitions", CLAIMS, "assembler"),
    _subscribe("hear everything", ">"),
    # Of its own account everybody in a tenant's may hear all inboxes; nobody else's are in it.
    _subscribe("hear all inboxes", "_INBOX.>", "@acme @bolt"),
    _subscribe("hear the planner's inbox", "_INBOX.planner.>", "planner @acme @bolt"),
    _subscribe("hear replies between accounts", "_R_.>"),
    _subscribe("hear the system", "$SYS.>"),
    _subscribe("hear JetStream's advisories", "$JS.EVENT.>"),
    # JetStream: reading
    _api("server is there", "INFO", " ".join(user for user in USERS if user != "system")),
    _api("list streams", "STREAM.NAMES", "provision"),
    _api("info of the log", f"STREAM.INFO.{_E}",
         "planner assembler worker gateway operator provision"),
    _api("info of the queue", f"STREAM.INFO.{_R}", "assembler gateway operator provision"),
    _api("read any message of the log", f"STREAM.MSG.GET.{_E}", "provision"),
    _api("read any fact, by query", f"DIRECT.GET.{_E}",
         "planner assembler worker gateway operator"),
    _api("read any fact, by subject", f"DIRECT.GET.{_E}.{_S.end(PLAIN)}",
         "planner assembler worker gateway operator"),
    _api("read acme's fact, by subject", f"DIRECT.GET.{_E}.{_S.end(ACME)}",
         "planner assembler worker gateway operator @acme"),
    _api("read acme's facts, by wildcard", f"DIRECT.GET.{_E}.{PREFIX}.event.*.@acme.>",
         "planner assembler worker gateway operator @acme"),
    _api("read a queued request", f"DIRECT.GET.{_R}.{Subjects.request(PLAIN)}",
         "assembler gateway operator"),
    _api("read acme's queued request", f"DIRECT.GET.{_R}.{Subjects.request(ACME)}",
         "assembler gateway operator @acme"),
    _api("read queued requests, by query", f"DIRECT.GET.{_R}"),
    _api("read dead letters, by query", f"DIRECT.GET.{_D}", "assembler"),
    _api("read queued work", f"DIRECT.GET.{_N}.{PREFIX}.node.small.1.{ACME}.1.1"),
    # JetStream: consuming
    _api("make a consumer of the log", f"CONSUMER.CREATE.{_E}.mine", "provision"),
    _api("make one of acme's facts", f"CONSUMER.CREATE.{_E}.mine.{PREFIX}.event.*.@acme.>",
         "provision"),
    _api("make a durable consumer", f"CONSUMER.DURABLE.CREATE.{_E}.mine", "provision"),
    _api("make a consumer of the queue", f"CONSUMER.CREATE.{_R}.mine", "provision"),
    _api("list consumers", f"CONSUMER.LIST.{_E}", "planner assembler provision"),
    _api("info of an assembler's consumer", f"CONSUMER.INFO.{_E}.assembler-0",
         "planner assembler worker gateway operator provision"),
    _api("take requests", f"CONSUMER.MSG.NEXT.{_R}.planner", "planner provision"),
    _api("take work", f"CONSUMER.MSG.NEXT.{_N}.small-1", "worker provision"),
    _api("take a partition's events", f"CONSUMER.MSG.NEXT.{_E}.assembler-0",
         "assembler provision"),
    _api("unpin a partition", f"CONSUMER.UNPIN.{_E}.assembler-0", "assembler provision"),
    _api("remove an assembler's consumer", f"CONSUMER.DELETE.{_E}.assembler-0", "provision"),
    _api("remove planners' consumer", f"CONSUMER.DELETE.{_R}.planner", "provision"),
    _publish("ack a request", f"$JS.ACK.{_R}.planner.1.1.1.1.0", "planner"),
    _publish("ack a partition's event", f"$JS.ACK.{_E}.assembler-0.1.1.1.1.0", "assembler"),
    _publish("ack work", f"$JS.ACK.{_N}.small-1.1.1.1.1.0", "worker"),
    # JetStream: changing
    _api("make a stream", "STREAM.CREATE.MINE", "provision"),
    _api("change the log", f"STREAM.UPDATE.{_E}", "provision"),
    _api("remove the log", f"STREAM.DELETE.{_E}", "provision"),
    _api("empty the log", f"STREAM.PURGE.{_E}", "provision"),
    _api("empty the queue of work", f"STREAM.PURGE.{_N}", "assembler provision"),
    _api("empty the queue of requests", f"STREAM.PURGE.{_R}", "provision"),
    _api("drop dead letters", f"STREAM.PURGE.{_D}", "assembler provision"),
    _api("remove a message", f"STREAM.MSG.DELETE.{_E}", "provision"),
    _api("save a stream", f"STREAM.SNAPSHOT.{_E}", "backup provision"),
    _api("restore a stream", f"STREAM.RESTORE.{_E}", "provision"),
    # The system
    _publish("change accounts", "$SYS.REQ.CLAIMS.UPDATE", "system"),
    _publish("look at connections", "$SYS.REQ.SERVER.PING.CONNZ"),
    _publish("stop a server", "$SYS.REQ.SERVER.NABC.RELOAD"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Effect:
    """A message and what it would do to somebody's request or to a consumer, and who can do that.

    Of each user another request and another consumer is the victim: `NUMBER` stands for the user's
    place in `USERS`.
    """

    what: str
    subject: str
    reply: str
    body: str
    allowed: frozenset[str]


NUMBER: Final = "#"
VICTIM: Final = f"victim{NUMBER}"
#: A stored fact that each of those may read who may read facts of acme.
SOURCE: Final = "@acme.source"
_END: Final = _S.end(VICTIM).replace(".0.", f".{NUMBER}.")
_STOP: Final = Subjects.stop(VICTIM)
#: They may write all, or change all, or see below: a worker is a user of the store's own account.
_OF_THE_STORE: Final = "assembler worker provision backup"
_FILTER: Final = f"{PREFIX}.event.nowhere.>"


def _effect(what: str, subject: str, who: str = "", *, reply: str = "", body: str = "") -> Effect:
    return Effect(what, subject, reply, body, frozenset(who.split()))


EFFECTS: Final = (
    _effect("write an end", _END, "planner assembler"),
    _effect("have the log write it: the reply is a stored fact",
            f"$JS.API.DIRECT.GET.{_E}.{_S.end(SOURCE)}", "assembler worker", reply=_END),
    _effect("have the queue write it: the reply is an ack",
            Subjects.request(f"@acme.x{NUMBER}"), "assembler", reply=_END),
    _effect("have the API write it", "$JS.API.INFO", _OF_THE_STORE, reply=_END),
    _effect("have an assembler write it", SUBMIT, reply=_END),
    _effect("have an assembler write it as it announces itself", "$SRV.PING", reply=_END),
    _effect("stop work", _STOP, "assembler"),
    _effect("have the API stop work", "$JS.API.INFO", _OF_THE_STORE, reply=_STOP),
    _effect("have an assembler stop work", SUBMIT, reply=_STOP),
    _effect("remove an assembler's consumer", f"$JS.API.CONSUMER.DELETE.{_E}.assembler-{NUMBER}",
            "provision"),
    _effect("change what it takes",
            f"$JS.API.CONSUMER.CREATE.{_E}.assembler-{NUMBER}.{_FILTER}", "provision",
            body=f'{{"stream_name":"{_E}","config":{{"name":"assembler-{NUMBER}",'
                 f'"durable_name":"assembler-{NUMBER}","filter_subject":"{_FILTER}",'
                 '"ack_policy":"explicit"}}'),
    _effect("have the log said elsewhere", f"$JS.API.CONSUMER.CREATE.{_E}.mine{NUMBER}",
            "provision",
            body=f'{{"stream_name":"{_E}","config":{{"name":"mine{NUMBER}",'
                 f'"deliver_subject":"{_STOP}","ack_policy":"none"}}}}'),
)  # fmt: skip


def table() -> str:
    """Return the matrix as Markdown: ✓ allowed, nothing else."""
    rows = [f"| What | Subject | {' | '.join(USERS)} |", f"| --- | --- |{' :-: |' * len(USERS)}"]
    for one in ATTEMPTS:
        verb = "pub" if one.verb == "publish" else "sub"
        rows.append(f"| {one.what} | {verb} `{one.subject}` | {_marks(one.allowed)} |")
    return "\n".join(rows)


def effects_table() -> str:
    """Return what comes of it as Markdown: ✓ it is done, else nothing comes of it."""
    heads = f"| What | Message | Reply to | {' | '.join(USERS)} |"
    rows = [heads, f"| --- | --- | --- |{' :-: |' * len(USERS)}"]
    for one in EFFECTS:
        reply = f"`{one.reply}`" if one.reply else ""
        rows.append(f"| {one.what} | `{one.subject}` | {reply} | {_marks(one.allowed)} |")
    return "\n".join(rows)


def _marks(allowed: frozenset[str]) -> str:
    return " | ".join("✓" if user in allowed else " " for user in USERS)
