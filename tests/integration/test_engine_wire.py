"""Whatever bytes an engine sends, in whatever pieces, the client ends with a reply or its error.

Over real HTTP: a server that sends what it is told, byte for byte, and closes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.errors import EngineCutOff, EngineError
from proto.messages import Usage
from services.runtime.calls import Completion, EngineLimits, EngineStream
from services.runtime.dialects import TGI
from services.runtime.engine import ChatCall, ChatMessage, EngineClient
from tests.scripted_engine import Say, ScriptedEngine, Step
from tests.scripted_steps import Json

CALL = ChatCall((ChatMessage("user", "Why?"),), max_tokens=4)
RECORDED = Path(__file__).parents[3] / "shared/data/tgi"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Speaker:
    """A server that says what it is told, and a client of it, in a loop of their own."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.pieces: list[bytes] = []
        self.client = self.runner.run(self._open())

    async def _open(self) -> EngineClient:
        self.server = await asyncio.start_server(self._speak, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        limits = EngineLimits(first_token_s=5, between_tokens_s=5)
        return EngineClient(f"http://127.0.0.1:{port}", dialect=TGI, limits=limits)

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
        writer.close()

    def ask(self, pieces: list[bytes]) -> tuple[str, Completion | EngineError]:
        """Return the text that came out, and how it ended."""
        self.pieces = pieces
        return self.runner.run(self._ask())

    async def _ask(self) -> tuple[str, Completion | EngineError]:
        texts: list[str] = []
        stream = self.client.stream(CALL)
        try:
            async with asyncio.timeout(15), stream:
                async for chunk in stream:
                    texts.append(chunk.text)
        except EngineError as error:
            return "".join(texts), error
        return "".join(texts), stream.completion

    def close(self) -> None:
        self.runner.run(self.client.close())
        self.server.close()
        self.runner.close()


@pytest.fixture(scope="module")
def speaker() -> Iterator[Speaker]:
    speaker = Speaker()
    yield speaker
    speaker.close()


# --- what is sent -----------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One event on the wire, the text that it carries, and whether it tells the end."""

    data: bytes
    text: str = ""
    ends: bool = False


def sse(payload: Any, end: str = "\n") -> bytes:
    told = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    return f"data: {told}{end}{end}".encode("utf-8", "surrogatepass")


def delta(delta: Any, reason: str | None = None) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def say(text: str, end: str = "\n") -> Sent:
    return Sent(sse(delta({"role": "assistant", "content": text}), end), text)


ends = st.sampled_from(["\n", "\r\n", "\r"])
saying = st.builds(say, st.text(max_size=12), ends)
silent = st.sampled_from(
    [
        Sent(b":\n\n"),
        Sent(b": ping\r\n\r\n"),
        Sent(b"event: message\nid: 7\nretry: 3000\n\n"),
        Sent(sse(delta({"role": "assistant", "content": None}))),
        Sent(sse(delta({"role": "assistant", "content": ""}))),
        Sent(sse({"model": "m", "choices": [], "usage": None})),
    ]
)
usage = Sent(sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}))
done = Sent(sse("[DONE]"))
finish = st.sampled_from(["stop", "length", "eos_token"]).map(
    lambda reason: Sent(sse(delta({"content": ""}, reason)), ends=True)
)
legal = st.lists(saying | silent, max_size=8)


@st.composite
def framed(draw: st.DrawFn, body: bytes) -> list[bytes]:
    """An answer with `body` in chunks of any size, sent in pieces of any size."""
    wire = HEAD + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in draw(pieces(body)))
    return draw(pieces(wire + b"0\r\n\r\n"))


@st.composite
def pieces(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    cuts = draw(st.lists(st.integers(0, len(whole)), max_size=6))
    edges = [0, *sorted(cuts), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges) if a < b]


def body_of(events: list[Sent]) -> bytes:
    return b"".join(event.data for event in events)


# --- laws -------------------------------------------------------------------------------


@settings(max_examples=60)
@given(legal, finish, st.data())
def test_a_reply_comes_out_whole_however_it_is_cut(
    speaker: Speaker, events: list[Sent], end: Sent, data: st.DataObject
) -> None:
    body = body_of([*events, end, usage, done])
    text, ending = speaker.ask(data.draw(framed(body)))
    assert text == "".join(event.text for event in events)
    assert isinstance(ending, Completion)
    assert ending.usage == Usage(prompt_tokens=9, generated_tokens=3)


@settings(max_examples=60)
@given(st.lists(saying | silent | finish | st.just(usage) | st.just(done), max_size=10), st.data())
def test_events_in_any_order_end_in_a_reply_only_if_its_end_was_told(
    speaker: Speaker, events: list[Sent], data: st.DataObject
) -> None:
    text, ending = speaker.ask(data.draw(framed(body_of(events))))
    read = events[: events.index(done)] if done in events else events
    assert text == "".join(event.text for event in read)
    assert isinstance(ending, Completion) is any(event.ends for event in read)


@settings(max_examples=60)
@given(legal, finish, st.data())
def test_a_reply_that_is_cut_off_is_never_taken_for_whole(
    speaker: Speaker, events: list[Sent], end: Sent, data: st.DataObject
) -> None:
    told, body = body_of([*events, end]), body_of([*events, end, usage, done])
    at = data.draw(st.integers(0, len(body)))
    cleanly = data.draw(st.booleans())
    sent = body[:at]
    wire = HEAD + (b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b"")
    text, ending = speaker.ask([wire + (b"0\r\n\r\n" if cleanly else b"")])
    whole = "".join(event.text for event in events)
    assert whole.startswith(text)
    if isinstance(ending, Completion):
        assert at >= len(told) - 1  # a "\r" may be half of the end of a line
        assert text == whole


@settings(max_examples=80)
@given(legal, finish, st.data())
def test_illegal_bytes_anywhere_in_the_body_end_in_a_reply_or_a_typed_error(
    speaker: Speaker, events: list[Sent], end: Sent, data: st.DataObject
) -> None:
    body = body_of([*events, end, usage, done])
    at = data.draw(st.integers(0, len(body)))
    gone = data.draw(st.integers(0, 3))
    body = body[:at] + data.draw(st.binary(max_size=6)) + body[at + gone :]
    _, ending = speaker.ask(data.draw(framed(body)))
    assert isinstance(ending, Completion | EngineError)


@settings(max_examples=80)
@given(legal, finish, st.data())
def test_illegal_bytes_anywhere_in_the_http_end_in_a_reply_or_a_typed_error(
    speaker: Speaker, events: list[Sent], end: Sent, data: st.DataObject
) -> None:
    wire = b"".join(data.draw(framed(body_of([*events, end, done]))))
    at = data.draw(st.integers(0, len(wire)))
    wire = wire[:at] + data.draw(st.binary(max_size=6)) + wire[at + data.draw(st.integers(0, 3)) :]
    _, ending = speaker.ask(data.draw(pieces(wire)))
    assert isinstance(ending, Completion | EngineError)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.booleans())
def test_nothing_but_noise_is_a_typed_error(speaker: Speaker, noise: bytes, head: bool) -> None:
    _, ending = speaker.ask([HEAD + noise if head else noise])
    assert isinstance(ending, EngineError)


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c", "\x1e"])
def test_what_python_takes_for_a_line_end_and_json_does_not_stays_text(
    speaker: Speaker, char: str
) -> None:
    events = [say(f"a{char}b"), Sent(sse(delta({}, "stop"))), done]
    text, ending = speaker.ask([HEAD, *(b"%x\r\n%b\r\n" % (len(e.data), e.data) for e in events)])
    assert (text, type(ending)) == (f"a{char}b", Completion)


def test_an_event_without_end_is_given_up(speaker: Speaker) -> None:
    endless = b"data: " + b"x" * 1_200_000
    _, ending = speaker.ask([HEAD, b"%x\r\n%b\r\n" % (len(endless), endless)])
    assert isinstance(ending, EngineError)


# --- recorded ---------------------------------------------------------------------------


def recorded(kind: type) -> list[Any]:
    if not RECORDED.is_dir():
        return []
    found = sorted(path for path in RECORDED.glob("*/*.json"))
    return [
        pytest.param(path, id=path.stem) for path in found if _is_stream(path) is (kind is list)
    ]


def _is_stream(path: Path) -> bool:
    told = json.loads(path.read_text())
    return isinstance(told, list) and told[0].get("object") == "chat.completion.chunk"


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded bodies are not here")
@pytest.mark.parametrize("path", recorded(list))
def test_recorded_streams_of_tgi_are_read(speaker: Speaker, path: Path) -> None:
    events = json.loads(path.read_text())
    body = b"".join(sse(event) for event in events) + done.data
    text, ending = speaker.ask([HEAD, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)])
    choices = [event["choices"][0] for event in events if event["choices"]]
    assert text == "".join(choice["delta"].get("content") or "" for choice in choices)
    assert isinstance(ending, Completion)
    told = choices[-1]["finish_reason"]
    assert ending.finish_reason == ("length" if told == "length" else "stop")
    counted = events[-1]["usage"] or {}
    assert ending.usage.prompt_tokens == counted.get("prompt_tokens", 0)
    assert ending.usage.generated_tokens == counted.get("completion_tokens", 0)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded bodies are not here")
@pytest.mark.parametrize("path", recorded(dict))
def test_recorded_answers_that_are_no_streams_are_typed_errors(
    speaker: Speaker, path: Path
) -> None:
    body = path.read_bytes()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    _, ending = speaker.ask([head % len(body) + body])
    assert isinstance(ending, EngineError)


async def test_an_engine_without_end_fills_nobodys_memory() -> None:
    async def endless(_: Json) -> AsyncIterator[Step]:
        while True:
            yield Say("x" * 10_000)

    async with ScriptedEngine(endless) as engine:
        client = EngineClient(engine.url, dialect=TGI)
        got: list[int] = []
        with pytest.raises(EngineCutOff, match="longer"):
            await count(client.stream(CALL), got)
        assert 10_000 < sum(got) < 1_000_000
        await client.close()


async def count(stream: EngineStream, got: list[int]) -> None:
    async with stream:
        async for chunk in stream:
            got.append(len(chunk.text))
