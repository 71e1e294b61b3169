"""A frame is one message: what nats-py writes for it, and nothing that breaks out of its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol import command
from nats.protocol.parser import Parser

from services.runtime.nats_client import DirectClient, DirectParser
from services.runtime.wire import frame

NAMES = st.from_regex(r"[A-Za-z][A-Za-z-]{0,20}", fullmatch=True)
VALUES = st.from_regex(r"[!-~][ -~]{0,40}[!-~]", fullmatch=True)


@given(st.binary(max_size=200), st.sampled_from(["", "_INBOX.a.1"]))
def test_without_headers_it_is_what_nats_py_writes(data: bytes, reply: str) -> None:
    theirs = command.pub_cmd("a.b", reply, data)
    assert frame("a.b", data, reply, None).split() == theirs.split()


@given(st.dictionaries(NAMES, VALUES, min_size=1), st.binary(max_size=50))
def test_headers_are_read_as_they_were_written(headers: dict[str, str], data: bytes) -> None:
    sent = frame("a.b", data, "r", headers)
    line, _, rest = sent.partition(b"\r\n")
    head_size, size = map(int, line.split()[3:])
    assert (len(rest), rest[head_size:size]) == (size + 2, data)
    head = rest[:head_size].removeprefix(b"NATS/1.0\r\n")
    assert DirectClient._parse_header_lines(head) == headers


class _Heard:
    """Stands for the client that a parser tells of what it reads."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    async def _process_msg(self, *message: object) -> None:
        self.told.append((*message[:4], message[4] or b""))

    async def _process_ping(self) -> None:
        self.told.append(("ping",))

    async def _process_pong(self) -> None:
        self.told.append(("pong",))

    async def _process_err(self, error: str) -> None:
        self.told.append((error,))


def _sent(reply: str, head: bytes, body: bytes) -> bytes:
    """Return a message as a server sends it."""
    address = f"a.b 7 {reply} " if reply else "a.b 7 "
    if not head:
        return b"MSG %b%d\r\n%b\r\n" % (address.encode(), len(body), body)
    sizes = b"%d %d" % (len(head), len(head) + len(body))
    return b"HMSG %b%b\r\n%b%b\r\n" % (address.encode(), sizes, head, body)


HEADS = st.sampled_from([b"", b"NATS/1.0\r\na: b\r\n\r\n", b"NATS/1.0 404\r\n\r\n"])
REPLIES = st.sampled_from(["", "_INBOX.r.1"])
BODIES = st.binary(max_size=40) | st.sampled_from([b"\r\nMSG a 1 1\r\n", b"PING\r\n"])
SAID = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n"])


@given(st.lists(st.builds(_sent, REPLIES, HEADS, BODIES) | SAID), st.lists(st.integers(1, 30)))
def test_it_reads_what_nats_py_reads_in_any_chunks(said: list[bytes], sizes: list[int]) -> None:
    heard, theirs = _Heard(), _Heard()

    async def read() -> None:
        parser, rest = DirectParser(heard), b"".join(said)
        for size in sizes:
            await parser.parse(rest[:size])
            rest = rest[size:]
        await parser.parse(rest)
        await Parser(theirs).parse(b"".join(said))

    with pytest.raises(StopIteration):
        read().send(None)  # nothing waits
    assert heard.told == theirs.told
    assert len(heard.told) == sum(not one.startswith(b"+OK") for one in said)


def test_what_is_cut_by_the_end_of_a_read_is_cut_by_us_all_the_same() -> None:
    ours = 0
    heard = _Heard()

    class Counting(DirectParser):
        async def _whole_messages(self, data: bytes) -> int:
            nonlocal ours
            before = len(heard.told)
            end = await super()._whole_messages(data)
            ours += len(heard.told) - before
            return end

    small, large = _sent("", b"", b"x" * 700), _sent("", b"", b"x" * 300_000)
    said = small * 500 + b"PING\r\n" + large + small * 500

    async def read() -> None:
        parser = Counting(heard)
        for start in range(0, len(said), 32 * 1024):
            await parser.parse(said[start : start + 32 * 1024])

    with pytest.raises(StopIteration):
        read().send(None)
    assert len(heard.told) == 1002
    # All but the large one, and what one read holds of the others after the ping.
    assert ours >= 1000 - 32 * 1024 // len(small)


def test_what_was_begun_is_forgotten_with_the_connection() -> None:
    heard = _Heard()
    whole = _sent("", b"", b"x" * 700)

    async def read() -> None:
        parser = DirectParser(heard)
        await parser.parse(whole[:300])
        parser.reset()
        await parser.parse(whole)

    with pytest.raises(StopIteration):
        read().send(None)
    assert len(heard.told) == 1


@pytest.mark.parametrize("said", [b"MSG nonsense\r\n", b"nonsense\r\n"])
def test_what_is_no_message_is_an_error_at_once(said: bytes) -> None:
    parser = DirectParser(_Heard())
    with pytest.raises((ProtocolError, ValueError)):
        parser.parse(said).send(None)


@pytest.mark.parametrize(
    ("subject", "reply", "headers"),
    [
        ("", "", None),
        ("a b", "", None),
        ("a\r\nPUB x 0", "", None),
        ("a", "b c", None),
        ("a", "", {"traceparent": "x\r\nNats-Msg-Id: y"}),
        ("a", "", {"x\n": "y"}),
    ],
)
def test_what_would_break_out_of_its_line_is_refused(
    subject: str, reply: str, headers: dict[str, str] | None
) -> None:
    with pytest.raises(ValueError, match=r"subject|header"):
        frame(subject, b"", reply, headers)
