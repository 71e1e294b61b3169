"""What clients send and get in forms that are easily got wrong."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proto.errors import InvalidRequest, NotConfirmed
from proto.messages import CancelOutcome, SubmitRequest
from services.gateway.accounts import Accounts
from services.gateway.app import make_app
from services.gateway.bodies import NewRequest
from services.gateway.calls import checked
from services.gateway.chat_answer import Chunks
from services.gateway.chat_request import read_chat
from services.gateway.errors import (
    UnknownParameter,
    UnsupportedParameter,
    headers_of,
    status_of,
)
from services.gateway.gateway import Gateway
from services.gateway.idempotency import request_id
from services.gateway.keys import Caller, Keys
from services.gateway.sse import event
from skelgraph import key_commands
from skelgraph.remote import GatewayUnavailable, RemoteClient

CHAT: dict[str, object] = {"model": "skelgraph", "messages": [{"role": "user", "content": "Why?"}]}
FIELD = st.sampled_from(["role", "content", "type", "text", "n", "stop", "stream", "skelgraph"])
ODD = "a\u2028b\u2029c\u0085d"


@pytest.mark.parametrize(
    "sent",
    [
        event(orjson.dumps({"text": ODD})),
        Chunks("r", "skelgraph", 0, with_usage=False).text(ODD),
    ],
)
def test_an_event_is_one_line_to_every_client(sent: bytes) -> None:
    first, *_ = sent.decode().splitlines()
    assert ODD in _texts(orjson.loads(first.removeprefix("data: ")))


def _texts(value: object) -> list[object]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value]


@pytest.mark.parametrize("depth", [260, 900])
def test_json_that_is_nested_deeply_is_refused(depth: int) -> None:
    nested = orjson.loads(b'{"question":' + b"[" * depth + b"]" * depth + b"}")
    with pytest.raises(InvalidRequest, match="nested"):
        checked(NewRequest, nested)


@pytest.mark.parametrize("stop", ["", ["a", ""], [""] * 5, 7])
def test_a_bad_stop_is_named_as_it_was_sent(stop: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_chat({**CHAT, "stop": stop})
    assert caught.value.field == "stop"


@pytest.mark.parametrize("other", [{"stop": "END"}, {"max_tokens": 9000}, {"max_tokens": 10_000}])
def test_what_cuts_an_answer_off_is_part_of_what_a_key_means(other: dict[str, object]) -> None:
    terms = {read_chat({**CHAT, **more}).terms for more in ({}, {"max_tokens": 8999}, other)}
    assert len({request_id("alice", "key", 0, one) for one in terms}) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(FIELD, JSON, max_size=4), JSON)
@example({}, {"role": [None], "content": ""})
@example({"stop": {}, "n": [1]}, {"role": "user", "content": [{"type": {}}]})
def test_whatever_is_sent_as_a_chat_is_read_or_refused(body: dict[str, object], one: Any) -> None:
    with contextlib.suppress(InvalidRequest, UnknownParameter, UnsupportedParameter):
        read_chat(CHAT | body | {"messages": [one]})


def test_what_nats_did_not_confirm_can_be_sent_again() -> None:
    assert status_of("not_confirmed") == 503
    assert "Retry-After" in headers_of(NotConfirmed())


class _Unconfirmed:
    """A client of a NATS that says nothing, and notes what is cancelled."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.may_end = asyncio.Event()

    async def submit(self, *_: object, **__: object) -> str:
        raise NotConfirmed

    async def cancel(self, request: str, _: str) -> CancelOutcome:
        self.cancelled.append(request)
        await self.may_end.wait()
        return CancelOutcome(request=request, outcome="cancelled")


def a_gateway(client: Any) -> Gateway:
    nothing: Any = SimpleNamespace()
    return Gateway(client, nothing, Accounts(), Keys(None), nothing)


@pytest.mark.parametrize("key", [None, "key"])
async def test_what_may_be_stored_and_nobody_can_ask_for_is_cancelled(key: str | None) -> None:
    client = _Unconfirmed()
    client.may_end.set()
    gateway, asked = a_gateway(client), SubmitRequest(question="Why?")
    claim = gateway._admit(Caller(), asked, "r1", repeatable=key is not None)
    with pytest.raises(NotConfirmed):
        await gateway.submit(claim, asked, None)
    await gateway.settled()
    assert client.cancelled == ([] if key else ["r1"])


async def test_nobody_joins_what_is_being_cancelled() -> None:
    client = _Unconfirmed()
    gateway = a_gateway(client)
    gateway.cancel_soon("r1", "left")
    gateway.cancel_soon("r1", "left")
    joining = asyncio.create_task(gateway._cancel_ended("r1"))
    await asyncio.wait([joining], timeout=0.01)
    assert not joining.done()
    client.may_end.set()
    await joining
    await gateway.settled()
    assert client.cancelled == ["r1"]


@pytest.mark.parametrize(("status", "passing"), [(502, True), (503, True), (404, False)])
async def test_a_proxy_without_a_gateway_is_a_gateway_that_is_away(
    status: int, passing: bool
) -> None:
    answer = httpx2.MockTransport(lambda _: httpx2.Response(status, text="<html>"))
    async with httpx2.AsyncClient(transport=answer, base_url="http://x") as http:
        with pytest.raises(Exception, match=str(status)) as caught:
            await RemoteClient(http).check()
    assert isinstance(caught.value, GatewayUnavailable) is passing


async def test_openais_client_for_javascript_may_call_from_an_allowed_page() -> None:
    app = make_app(a_gateway(None), own_names_only=False, cors_origins=["http://page"])
    wanted = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,traceparent"
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://x"
    ) as http:
        preflight = await http.options(
            "/v1/chat/completions",
            headers={
                "Origin": "http://page",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": wanted,
            },
        )
    assert preflight.status_code == 200


async def test_a_keys_file_keeps_who_may_read_it(tmp_path: Path) -> None:
    old, fresh = tmp_path / "old.toml", tmp_path / "fresh.toml"
    old.write_text("")
    old.chmod(0o640)
    for file in (old, fresh):
        await key_commands.new("alice", file, {})
    modes = [stat.S_IMODE(file.stat().st_mode) for file in (old, fresh)]
    assert modes == [0o640, 0o600]
