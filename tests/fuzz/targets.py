"""What is fed with bytes, and what it may raise; all else is a finding.

Each target also holds to a law: what it takes it takes again, whatever the chunks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import orjson
from pydantic import BaseModel

from proto.channels import MESSAGES
from proto.codec import decode, decode_fact, decode_preview, encode
from proto.errors import EngineError, InvalidRequest, PlanRejected, SkelgraphError
from proto.names import check_request_id, check_tenant, request_of, split_tenant, tenant_of
from services.gateway import bodies, chat_bodies
from services.gateway.calls import checked
from services.planner.parser import PlanLimits, PlanParser
from services.runtime.credentials import Credentials
from services.runtime.dialects import DIALECTS
from services.runtime.events import InBand, NotAnEvent, mended, read
from services.runtime.reply import Reply

Target = Callable[[bytes], None]
_CREDS: Final = Path(tempfile.gettempdir()) / "skelgraph-fuzz.creds"


def plan(data: bytes) -> None:
    """The plan parser: whole or in pieces, the same comes of it."""
    text = data.decode(errors="replace")
    assert _planned([text]) == _planned(list(text))


def _planned(pieces: list[str]) -> object:
    parser, found = PlanParser(PlanLimits(max_nodes=8)), []
    try:
        for piece in pieces:
            found += parser.feed(piece)
        found += parser.close()
    except PlanRejected as error:
        return found, error.message
    return found


def codec(data: bytes) -> None:
    """Messages: what is read is written, and read again as the same; the first byte chooses one."""
    if not data:
        return
    readers: list[Callable[[bytes], BaseModel]]
    readers = [*(partial(decode, kind) for kind in MESSAGES), decode_fact, decode_preview]
    read_it, body = readers[data[0] % len(readers)], data[1:]
    try:
        message = read_it(body)
    except SkelgraphError:
        return
    assert read_it(encode(message)) == message


def request_bodies(data: bytes) -> None:
    """Bodies of the gateway."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    for kind in (bodies.NewRequest, bodies.NewSkeleton, chat_bodies.ChatCompletionRequest):
        try:
            checked(kind, value)
        except SkelgraphError:
            continue


def events(data: bytes) -> None:
    """Events of an engine."""
    try:
        read(data.decode("utf-8", "replace"))
    except (NotAnEvent, InBand):
        return


def reply(data: bytes) -> None:
    """An engine's reply, an event a line."""
    for dialect in DIALECTS.values():
        told = Reply(dialect)
        for line in data.decode("utf-8", "replace").split("\n"):
            try:
                told.take(read(line))
            except (NotAnEvent, InBand, EngineError):
                break
        mended(told.rest()).encode()


def credentials(data: bytes) -> None:
    """Credentials files."""
    _CREDS.write_bytes(data)
    file = Credentials(str(_CREDS))
    for look in (file.jwt, file.inbox, file.tenant, lambda: file.sign("nonce")):
        try:
            look()
        except ValueError:
            continue


def subjects(data: bytes) -> None:
    """Request ids, tenants and subjects."""
    text = data.decode("utf-8", "replace")
    request_of(f"skelgraph.v1.cancel.{text}")
    split_tenant(f"skelgraph.v1.tenant.{text}")
    for check in (check_request_id, check_tenant):
        try:
            check(text)
        except InvalidRequest:
            continue
        assert not set(text) & set(" \t\r\n*>")
    tenant_of(text)


TARGETS: Final[Mapping[str, Target]] = {
    "plan": plan,
    "codec": codec,
    "bodies": request_bodies,
    "events": events,
    "reply": reply,
    "credentials": credentials,
    "subjects": subjects,
}
